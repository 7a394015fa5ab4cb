//! `pailfs unit`: the text of a systemd service, for a file below `/etc/systemd/system`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::UnitRequest;

/// What systemd waits beyond `drain_timeout` before it kills the process.
const GRACE: Duration = Duration::from_secs(30);

/// A process that says nothing for so long hangs.
const WATCHDOG: &str = "60s";

/// Prints it.
pub fn run(request: &UnitRequest) -> ExitCode {
    let program = std::env::current_exe().unwrap_or_else(|_| "/usr/bin/pailfs".into());
    // A reader that stops reading (`| head`) is no failure.
    let _ = io::stdout().write_all(text(request, &program).as_bytes());
    ExitCode::SUCCESS
}

fn text(request: &UnitRequest, program: &Path) -> String {
    let config = &request.config;
    let (program, mountpoint) = (word(&program.display().to_string()), word(&config.mountpoint.display().to_string()));
    let source = word(config.source.typed());
    let options: String = request.options.iter().fold(String::new(), |mut line, option| {
        let _ = write!(line, " -o {}", word(option));
        line
    });
    let stop = config.drain_timeout.saturating_add(GRACE).as_secs();
    // Whoever moves the file to keep it small has it opened again by 'systemctl reload'.
    let reload = if config.log.file.is_some() { "ExecReload=/bin/kill -HUP $MAINPID\n" } else { "" };
    let description = config.source.typed().replace('%', "%%");
    format!(
        "# Save as /etc/systemd/system/NAME.service, then: systemctl daemon-reload && systemctl enable --now NAME\n\
         # Credentials: AWS_ACCESS_KEY_ID=... and AWS_SECRET_ACCESS_KEY=... in /etc/pailfs/credentials, owned by root,\n\
         # with mode 0600; or a profile, or the role of the machine.\n\
         [Unit]\n\
         Description=pailfs {description}\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type=notify\n\
         EnvironmentFile=-/etc/pailfs/credentials\n\
         ExecStart={program} mount --foreground{options} {source} {mountpoint}\n\
         {reload}ExecStop={program} umount {mountpoint}\n\
         WatchdogSec={WATCHDOG}\n\
         TimeoutStopSec={stop}s\n\
         Restart=on-failure\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

/// One word of a command line in a unit (systemd.service(5), "Command lines"; `%` begins a specifier, `$` a variable).
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/:=.,_-+@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' | '$' => quoted.extend([c, c]),
            '\n' => quoted.push_str("\\n"),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command_line_are_quoted_where_systemd_would_read_them_otherwise() {
        for (text, quoted) in [
            ("s3://b/p", "s3://b/p"),
            ("part_size=8M,ro", "part_size=8M,ro"),
            ("", "\"\""),
            ("/mnt/my files", "\"/mnt/my files\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("50%", "\"50%%\""),
            ("$HOME", "\"$$HOME\""),
        ] {
            assert_eq!(word(text), quoted, "{text}");
        }
    }
}
