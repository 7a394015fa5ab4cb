//! open(2) and mkdir(2), as POSIX and, where POSIX leaves a choice, Linux have them.

use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;

use libc::{
    EACCES, EBADF, EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL,
    O_NOFOLLOW, O_PATH, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY,
};

use crate::posix_table::Call::{Mkdir, Open};
use crate::posix_table::{Case, Ground, PATH_MAX, fails, gives, long, on_both, padded, run};

fn open_for_new() -> Vec<Case> {
    let new = O_CREAT | O_WRONLY;
    vec![
        gives("", Open("f", new, 0o644), "f", ".:mc"),
        gives("", Open("f", O_CREAT, 0o444), "f:444", ".:mc"),
        gives("", Open("f", new | O_EXCL, 0o600), "f:600", ".:mc"),
        gives("", Open("f", new | O_TRUNC, 0o600), "f:600", ".:mc"),
        gives("", Open("f", O_CREAT | O_RDWR, 0), "f:000", ".:mc"),
        gives("", Open("f", new, 0o7777), "f:7777", ".:mc"),
        gives("", Open("f", new, 0o666), "f:644", ".:mc").umask(0o022),
        gives("", Open("f", new, 0o777), "f:700", ".:mc").umask(0o077),
        gives("", Open("f", new, 0o666), "f:000", ".:mc").umask(0o777),
        gives("d/", Open("d/f", new, 0o644), "d/ d/f", "d:mc"),
        gives("", Open(long(255), new, 0o644), long(255), ".:mc"),
        // A directory with the set-group-ID bit gives its group; POSIX allows it, Linux does it.
        gives("d/:2755:7:8", Open("d/f", new, 0o644), "d/:2755:7:8 d/f:644:0:8", "d:mc"),
        gives("d/:777", Open("d/f", new, 0o640), "d/:777 d/f:640:1001:1001", "d:mc").by_user(),
        gives("d/:777", Open("d/f", O_CREAT | O_RDWR, 0), "d/:777 d/f:000:1001:1001", "d:mc").by_user(),
        gives("d/:2777:0:8", Open("d/f", new, 0o640), "d/:2777:0:8 d/f:640:1001:8", "d:mc").by_user(),
        // Nobody makes a program that runs with a group that is not theirs.
        gives("d/:2777:0:8", Open("d/f", new, 0o2755), "d/:2777:0:8 d/f:755:1001:8", "d:mc").by_user(),
        fails(EEXIST, "f=abc", Open("f", new | O_EXCL, 0o644)),
        fails(EEXIST, "f=abc", Open("f", new | O_EXCL | O_TRUNC, 0o644)),
        fails(EEXIST, "d/", Open("d", new | O_EXCL, 0o644)),
        fails(EISDIR, "d/", Open("d", new, 0o644)),
        fails(EISDIR, "", Open("f/", new, 0o644)),
        fails(ENOENT, "", Open("", new, 0o644)),
        fails(ENOENT, "", Open("no/f", new, 0o644)),
        fails(ENOTDIR, "f", Open("f/x", new, 0o644)),
        fails(EINVAL, "", Open("d", O_CREAT | O_DIRECTORY, 0o755)),
        fails(ENAMETOOLONG, "", Open(long(256), new, 0o644)),
        fails(ENAMETOOLONG, "", Open(padded(PATH_MAX, "f"), new, 0o644)),
        fails(EACCES, "", Open("f", new, 0o644)).by_user(),
        fails(EACCES, "d/:776", Open("d/f", new, 0o644)).by_user(),
        fails(EACCES, "d/:775", Open("d/f", new, 0o644)).by_user(),
    ]
}

fn open_what_is_there() -> Vec<Case> {
    vec![
        gives("f=abc", Open("f", O_RDONLY, 0), "f=abc", ""),
        gives("f=abc", Open("f", O_RDWR, 0), "f=abc", ""),
        gives("f=abc", Open("f", O_WRONLY | O_APPEND, 0), "f=abc", ""),
        gives("f:600=abc", Open("f", O_CREAT | O_WRONLY, 0o777), "f:600=abc", ""),
        gives("f=abc", Open("f", O_RDONLY | O_NOFOLLOW, 0), "f=abc", ""),
        gives("f=abc", Open("f", O_WRONLY | O_TRUNC, 0), "f", "f:mc"),
        gives("f=abc", Open("f", O_CREAT | O_RDWR | O_TRUNC, 0o600), "f", "f:mc"),
        gives("f:640:7:8=abc", Open("f", O_CREAT | O_RDWR | O_TRUNC, 0o600), "f:640:7:8", "f:mc"),
        gives("f", Open("f", O_WRONLY | O_TRUNC, 0), "f", "f:mc"),
        gives("f:000:7:8=abc", Open("f", O_RDWR, 0), "f:000:7:8=abc", ""),
        gives("d/", Open("d", O_RDONLY, 0), "d/", ""),
        gives("d/", Open("d/", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0), "d/", ""),
        gives("f=abc", Open(padded(PATH_MAX - 1, "f"), O_RDONLY, 0), "f=abc", ""),
        fails(ENOENT, "", Open("f", O_RDONLY, 0)),
        fails(ENOENT, "", Open("f", O_WRONLY | O_TRUNC, 0)),
        fails(ENOENT, "", Open("", O_RDONLY, 0)),
        fails(ENOENT, "", Open("no/f", O_RDONLY, 0)),
        fails(ENOTDIR, "f", Open("f/x", O_RDONLY, 0)),
        fails(ENOTDIR, "f", Open("f/", O_RDONLY, 0)),
        fails(ENOTDIR, "f", Open("f", O_RDONLY | O_DIRECTORY, 0)),
        fails(EISDIR, "d/", Open("d", O_WRONLY, 0)),
        fails(EISDIR, "d/", Open("d", O_RDWR, 0)),
        fails(EISDIR, "d/", Open("d", O_RDONLY | O_TRUNC, 0)),
        fails(EISDIR, "d/ d/f", Open("d", O_WRONLY | O_TRUNC, 0)),
        fails(EISDIR, "", Open(".", O_RDWR, 0)),
        fails(ENAMETOOLONG, "", Open(long(256), O_RDONLY, 0)),
        fails(ENAMETOOLONG, "", Open(long(1025), O_RDONLY, 0)),
        fails(ENAMETOOLONG, "f", Open(padded(PATH_MAX, "f"), O_RDONLY, 0)),
        gives("f:604=abc", Open("f", O_RDONLY, 0), "f:604=abc", "").by_user(),
        gives("f:602=abc", Open("f", O_WRONLY, 0), "f:602=abc", "").by_user(),
        gives("f:602=abc", Open("f", O_WRONLY | O_TRUNC, 0), "f:602", "f:mc").by_user(),
        gives("d/:711 d/f:644=abc", Open("d/f", O_RDONLY, 0), "d/:711 d/f:644=abc", "").by_user(),
        gives("f:000=abc", Open("f", O_PATH, 0), "f:000=abc", "").by_user(),
        fails(EACCES, "f:602=abc", Open("f", O_RDONLY, 0)).by_user(),
        fails(EACCES, "f:604=abc", Open("f", O_WRONLY, 0)).by_user(),
        fails(EACCES, "f:604=abc", Open("f", O_RDWR, 0)).by_user(),
        fails(EACCES, "f:602=abc", Open("f", O_RDWR, 0)).by_user(),
        fails(EACCES, "f:644=abc", Open("f", O_RDONLY | O_TRUNC, 0)).by_user(),
        fails(EACCES, "f:644=abc", Open("f", O_CREAT | O_WRONLY | O_TRUNC, 0o666)).by_user(),
        // The owner's bits alone count for the owner.
        fails(EACCES, "f:077:1001=abc", Open("f", O_RDONLY, 0)).by_user(),
        fails(EACCES, "f:707:0:1001=abc", Open("f", O_RDONLY, 0)).by_user(),
        fails(EACCES, "d/:700 d/f:666", Open("d/f", O_RDONLY, 0)).by_user(),
        fails(EACCES, "d/:733", Open("d", O_RDONLY, 0)).by_user(),
        fails(EISDIR, "d/:777", Open("d", O_WRONLY, 0)).by_user(),
    ]
}

fn mkdir() -> Vec<Case> {
    vec![
        gives("", Mkdir("d", 0o755), "d/", ".:mc"),
        gives("", Mkdir("d/", 0o700), "d/:700", ".:mc"),
        gives("", Mkdir("d", 0), "d/:000", ".:mc"),
        gives("", Mkdir("d", 0o1777), "d/:1777", ".:mc"),
        gives("", Mkdir("d", 0o6777), "d/:777", ".:mc"),
        gives("", Mkdir("d", 0o777), "d/:750", ".:mc").umask(0o027),
        gives("", Mkdir("d", 0o777), "d/:000", ".:mc").umask(0o777),
        gives("d/", Mkdir("d/e", 0o755), "d/ d/e/", "d:mc"),
        gives("d/:2755:7:8", Mkdir("d/e", 0o755), "d/:2755:7:8 d/e/:2755:0:8", "d:mc"),
        gives("d/:777", Mkdir("d/e", 0o755), "d/:777 d/e/:755:1001:1001", "d:mc").by_user(),
        gives("d/:2777:0:8", Mkdir("d/e", 0o755), "d/:2777:0:8 d/e/:2755:1001:8", "d:mc").by_user(),
        fails(EEXIST, "d/", Mkdir("d", 0o755)),
        fails(EEXIST, "d/ d/f", Mkdir("d", 0o755)),
        fails(EEXIST, "f=abc", Mkdir("f", 0o755)),
        fails(EEXIST, "d/", Mkdir("d/.", 0o755)),
        fails(EEXIST, "d/", Mkdir("d/..", 0o755)),
        fails(ENOENT, "", Mkdir("", 0o755)),
        fails(ENOENT, "", Mkdir("no/d", 0o755)),
        fails(ENOTDIR, "f", Mkdir("f/d", 0o755)),
        fails(ENAMETOOLONG, "", Mkdir(long(256), 0o755)),
        fails(ENAMETOOLONG, "", Mkdir(padded(PATH_MAX, "d"), 0o755)),
        fails(EACCES, "", Mkdir("d", 0o755)).by_user(),
        fails(EACCES, "d/:776", Mkdir("d/e", 0o755)).by_user(),
    ]
}

/// What can be done with a descriptor is what it was opened for.
fn descriptors(ground: &Ground) {
    let path = ground.path("f");
    std::fs::write(&path, "abc").expect("a file");
    let options = std::fs::File::options;
    let errno = |error: std::io::Error| error.raw_os_error();
    let mut reader = options().read(true).open(&path).expect("an open file");
    assert_eq!(reader.write(b"x").map_err(errno), Err(Some(EBADF)));
    let mut writer = options().write(true).open(&path).expect("an open file");
    assert_eq!(writer.read(&mut [0]).map_err(errno), Err(Some(EBADF)));
    let mut dir = std::fs::File::open(ground.path("")).expect("an open directory");
    assert_eq!(dir.read(&mut [0]).map_err(errno), Err(Some(EISDIR)));
    // SAFETY: the descriptor is open and nothing is read from memory.
    assert_eq!(unsafe { libc::write(dir.as_raw_fd(), c"x".as_ptr().cast(), 1) }, -1);
    // Each write goes to the end as it is then, wherever the descriptor stands.
    let mut one = options().append(true).read(true).open(&path).expect("an open file");
    let mut two = options().append(true).open(&path).expect("an open file");
    one.write_all(b"1").expect("a write");
    two.write_all(b"22").expect("a write");
    one.rewind().and_then(|()| one.write_all(b"3")).expect("a write");
    writer.write_all(b"X").expect("a write");
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("a read");
    assert_eq!(text, "Xbc1223");
}

#[test]
fn open_and_mkdir_do_what_posix_says() {
    on_both(|ground| {
        let mut cases = [open_for_new(), open_what_is_there(), mkdir()].concat();
        if ground.long_directories {
            cases.push(gives("", Mkdir(long(255), 0o755), format!("{}/", long(255)).leak(), ".:mc"));
        }
        run(ground, &cases);
        descriptors(ground);
    });
}
