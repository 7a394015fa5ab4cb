//! The program: what was asked, done, and said as an exit code.

fn main() -> std::process::ExitCode {
    pailfs::app::run(std::env::args_os())
}
