//! truncate(2) and ftruncate(2), as POSIX and, where POSIX leaves a choice, Linux have them; and every change that a
//! read-only mount refuses.

use libc::{
    EACCES, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, EROFS, O_CREAT, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY,
};

use crate::common::TestServer;
use crate::posix_table::Call::{self, Ftruncate, Truncate};
use crate::posix_table::{Case, PATH_MAX, fails, gives, long, mounted, on_both, padded, refused, run};

fn truncate() -> Vec<Case> {
    vec![
        gives("f=abcdef", Truncate("f", 3), "f=abc", "f:mc"),
        gives("f=abc", Truncate("f", 6), "f=abc000", "f:mc"),
        gives("f=abc", Truncate("f", 0), "f", "f:mc"),
        gives("f", Truncate("f", 2), "f=00", "f:mc"),
        gives("f:640:7:8=abcdef", Truncate("f", 3), "f:640:7:8=abc", "f:mc"),
        gives("f:602=abc", Truncate("f", 1), "f:602=a", "f:mc").by_user(),
        gives("f:6777=abc", Truncate("f", 1), "f:777=a", "f:mc").by_user(),
        gives("f=abcdef", Ftruncate("f", O_WRONLY, 3), "f=abc", "f:mc"),
        gives("f=abc", Ftruncate("f", O_RDWR, 6), "f=abc000", "f:mc"),
        gives("f=abc", Ftruncate("f", O_RDWR, 3), "f=abc", "f:mc"),
        fails(EINVAL, "f=abc", Truncate("f", -1)),
        fails(EINVAL, "f=abc", Ftruncate("f", O_RDWR, -1)),
        fails(EINVAL, "f=abc", Ftruncate("f", O_RDONLY, 1)),
        fails(EISDIR, "d/", Truncate("d", 0)),
        fails(EINVAL, "d/", Ftruncate("d", O_RDONLY, 0)),
        fails(ENOENT, "", Truncate("f", 0)),
        fails(ENOENT, "", Truncate("", 0)),
        fails(ENOENT, "", Truncate("no/f", 0)),
        fails(ENOTDIR, "f", Truncate("f/x", 0)),
        fails(ENOTDIR, "f", Truncate("f/", 0)),
        fails(ENAMETOOLONG, "", Truncate(long(256), 0)),
        fails(ENAMETOOLONG, "f", Truncate(padded(PATH_MAX, "f"), 0)),
        fails(EACCES, "f:644=abc", Truncate("f", 0)).by_user(),
        fails(EACCES, "d/:700 d/f:666=abc", Truncate("d/f", 0)).by_user(),
    ]
}

#[test]
fn truncate_does_what_posix_says() {
    on_both(|ground| run(ground, &truncate()));
}

#[test]
fn a_read_only_mount_answers_every_change_with_its_errno() {
    let server = TestServer::start();
    server.objects().put("d/f", "abc");
    server.objects().put("e/", "");
    let mount = server.mount_with(&["ro"]);
    let now = (0, libc::UTIME_NOW);
    refused(
        &mounted(&mount),
        EROFS,
        &[
            Call::Rename("d/f", "g"),
            Call::Rename("d", "g"),
            Call::Unlink("d/f"),
            Call::Rmdir("e"),
            Call::Mkdir("g", 0o755),
            Call::Open("g", O_CREAT | O_RDONLY, 0o644),
            Call::Open("d/f", O_WRONLY, 0),
            Call::Open("d/f", O_RDWR, 0),
            Call::Open("d/f", O_RDONLY | O_TRUNC, 0),
            Call::Truncate("d/f", 0),
            Call::Chmod("d/f", 0o600),
            Call::Chmod("d", 0o700),
            Call::Chown("d/f", 7, 8),
            Call::Utimens("d/f", now, now),
        ],
    );
}
