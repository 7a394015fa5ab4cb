//! unlink(2) and rmdir(2), as POSIX and, where POSIX leaves a choice, Linux have them.

use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use libc::{EACCES, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EPERM};

use crate::posix_table::Call::{Rmdir, Unlink};
use crate::posix_table::{Case, Ground, PATH_MAX, fails, gives, long, on_both, padded, run, wait_past};

fn unlink() -> Vec<Case> {
    vec![
        gives("f=abc", Unlink("f"), "", ".:mc"),
        gives("f:000:7:8=abc g=1", Unlink("f"), "g=1", ".:mc"),
        gives("d/ d/f d/g", Unlink("d/f"), "d/ d/g", "d:mc"),
        gives("f", Unlink(padded(PATH_MAX - 1, "f")), "", ".:mc"),
        fails(ENOENT, "", Unlink("f")),
        fails(ENOENT, "f", Unlink("")),
        fails(ENOENT, "f", Unlink("no/f")),
        fails(ENOTDIR, "f", Unlink("f/x")),
        fails(ENOTDIR, "f", Unlink("f/")),
        // EPERM in POSIX; Linux says what it is.
        fails(EISDIR, "d/", Unlink("d")),
        fails(EISDIR, "d/ d/x", Unlink("d")),
        fails(EISDIR, "d/", Unlink("d/")),
        fails(EISDIR, "d/", Unlink("d/.")),
        fails(EISDIR, "d/", Unlink("d/..")),
        fails(ENAMETOOLONG, "", Unlink(long(256))),
        fails(ENAMETOOLONG, "f", Unlink(padded(PATH_MAX, "f"))),
        gives("d/:777 d/f:000", Unlink("d/f"), "d/:777", "d:mc").by_user(),
        gives("d/:1777 d/f:400:1001", Unlink("d/f"), "d/:1777", "d:mc").by_user(),
        gives("d/:1755:1001 d/f:400", Unlink("d/f"), "d/:1755:1001", "d:mc").by_user(),
        fails(EACCES, "f:666", Unlink("f")).by_user(),
        fails(EACCES, "d/:776 d/f:666", Unlink("d/f")).by_user(),
        fails(EACCES, "d/:775 d/f:666:1001", Unlink("d/f")).by_user(),
        fails(EPERM, "d/:1777 d/f:666", Unlink("d/f")).by_user(),
    ]
}

fn rmdir() -> Vec<Case> {
    vec![
        gives("d/", Rmdir("d"), "", ".:mc"),
        gives("d/", Rmdir("d/"), "", ".:mc"),
        gives("d/:000:7:8 d/e/", Rmdir("d/e"), "d/:000:7:8", "d:mc"),
        fails(ENOENT, "", Rmdir("d")),
        fails(ENOENT, "", Rmdir("")),
        fails(ENOENT, "", Rmdir("no/d")),
        fails(ENOTDIR, "f", Rmdir("f")),
        fails(ENOTDIR, "f", Rmdir("f/d")),
        fails(ENOTEMPTY, "d/ d/f", Rmdir("d")),
        fails(ENOTEMPTY, "d/ d/e/", Rmdir("d")),
        fails(EINVAL, "d/", Rmdir("d/.")),
        fails(EINVAL, "", Rmdir(".")),
        fails(ENOTEMPTY, "d/", Rmdir("d/..")),
        fails(ENOTEMPTY, "d/ d/e/", Rmdir("d/e/..")),
        fails(ENAMETOOLONG, "", Rmdir(long(256))),
        fails(ENAMETOOLONG, "d/", Rmdir(padded(PATH_MAX, "d"))),
        gives("d/:777 d/e/:700", Rmdir("d/e"), "d/:777", "d:mc").by_user(),
        gives("d/:1777 d/e/:700:1001", Rmdir("d/e"), "d/:1777", "d:mc").by_user(),
        fails(EACCES, "d/:777", Rmdir("d")).by_user(),
        fails(EACCES, "d/:776 d/e/:777", Rmdir("d/e")).by_user(),
        fails(EPERM, "d/:1777 d/e/:777", Rmdir("d/e")).by_user(),
    ]
}

/// The name goes, the file stays for who has it open, and shows no link.
fn open_file(ground: &Ground) {
    let path = ground.path("open");
    std::fs::write(&path, "abc").expect("a file");
    let mut file = std::fs::File::options().read(true).write(true).open(&path).expect("an open file");
    let before = file.metadata().expect("attributes");
    wait_past((before.ctime(), before.ctime_nsec()));
    std::fs::remove_file(&path).expect("it is removed");
    let after = file.metadata().expect("attributes");
    assert_eq!((before.nlink(), after.nlink(), after.ino()), (1, 0, before.ino()));
    assert!((after.ctime(), after.ctime_nsec()) > (before.ctime(), before.ctime_nsec()), "{before:?} {after:?}");
    file.seek(std::io::SeekFrom::End(0)).and_then(|_| file.write_all(b"def")).expect("it can be written");
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("it can be read");
    assert_eq!((text.as_str(), file.metadata().map(|stat| stat.size()).ok()), ("abcdef", Some(6)));
    // Another one of that name is another file.
    std::fs::write(&path, "new").expect("a file");
    assert_ne!(std::fs::metadata(&path).expect("attributes").ino(), before.ino());
    assert_eq!(file.metadata().expect("attributes").nlink(), 0);
}

/// As a file's, and nothing is made in it any more.
fn open_directory(ground: &Ground) {
    let (path, other) = (ground.path("opened"), ground.path("other"));
    let remove: [fn(&Path, &Path) -> std::io::Result<()>; 2] =
        [|path, _| std::fs::remove_dir(path), |path, other| std::fs::rename(other, path)];
    for remove in remove {
        std::fs::create_dir(&path).expect("a directory");
        std::fs::create_dir_all(&other).expect("a directory");
        let dir = std::fs::File::open(&path).expect("an open directory");
        let before = dir.metadata().expect("attributes");
        wait_past((before.ctime(), before.ctime_nsec()));
        remove(&path, &other).expect("it is removed");
        let after = dir.metadata().expect("attributes");
        assert_eq!((after.nlink(), after.ino()), (0, before.ino()));
        assert!((after.ctime(), after.ctime_nsec()) > (before.ctime(), before.ctime_nsec()), "{before:?} {after:?}");
        // SAFETY: the descriptor is open and the name a terminated string.
        let made = unsafe { libc::openat(dir.as_raw_fd(), c"f".as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o600) };
        assert_eq!((made, std::io::Error::last_os_error().raw_os_error()), (-1, Some(ENOENT)));
    }
}

#[test]
fn unlink_and_rmdir_do_what_posix_says() {
    on_both(|ground| {
        run(ground, &[unlink(), rmdir()].concat());
        open_file(ground);
        open_directory(ground);
    });
}
