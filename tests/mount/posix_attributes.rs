//! chmod(2), chown(2) and utimensat(2), as POSIX and, where POSIX leaves a choice, Linux have them.

use std::os::unix::fs::MetadataExt;

use libc::{EACCES, EINVAL, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, UTIME_NOW, UTIME_OMIT};

use crate::common::{Mount, TestServer, eventually};
use crate::posix_table::Call::{Chmod, Chown, Utimens, WriteByte};
use crate::posix_table::{Case, Ground, PATH_MAX, fails, gives, long, on_both, padded, run, wait_past};

const NOW: (i64, i64) = (0, UTIME_NOW);
const OMIT: (i64, i64) = (0, UTIME_OMIT);

fn chmod() -> Vec<Case> {
    vec![
        gives("f=abc", Chmod("f", 0o600), "f:600=abc", "f:c"),
        gives("f", Chmod("f", 0o7777), "f:7777", "f:c"),
        gives("f:7777", Chmod("f", 0), "f:000", "f:c"),
        gives("f:600=abc", Chmod("f", 0o600), "f:600=abc", "f:c"),
        gives("d/", Chmod("d", 0o755), "d/", "d:c"),
        gives("f:640:7:8=abc", Chmod("f", 0o4755), "f:4755:7:8=abc", "f:c"),
        gives("d/ d/f", Chmod("d", 0o1700), "d/:1700 d/f", "d:c"),
        gives("d/", Chmod("d/", 0o2777), "d/:2777", "d:c"),
        gives("f:644:1001:1001=abc", Chmod("f", 0o2600), "f:2600:1001:1001=abc", "f:c").by_user(),
        // The set-group-ID bit of a group that one is not in is not set.
        gives("f:644:1001:8=abc", Chmod("f", 0o2755), "f:755:1001:8=abc", "f:c").by_user(),
        gives("d/:700:1001:1001", Chmod("d", 0o3777), "d/:3777:1001:1001", "d:c").by_user(),
        fails(ENOENT, "", Chmod("f", 0o600)),
        fails(ENOENT, "", Chmod("", 0o600)),
        fails(ENOENT, "", Chmod("no/f", 0o600)),
        fails(ENOTDIR, "f", Chmod("f/x", 0o600)),
        fails(ENOTDIR, "f", Chmod("f/", 0o600)),
        fails(ENAMETOOLONG, "", Chmod(long(256), 0o600)),
        fails(ENAMETOOLONG, "f", Chmod(padded(PATH_MAX, "f"), 0o600)),
        fails(EPERM, "f:666", Chmod("f", 0o600)).by_user(),
        fails(EPERM, "f:666:0:1001", Chmod("f", 0o666)).by_user(),
        fails(EPERM, "d/:777", Chmod("d", 0o700)).by_user(),
        fails(EACCES, "d/:700 d/f:666:1001", Chmod("d/f", 0o600)).by_user(),
    ]
}

fn chown() -> Vec<Case> {
    vec![
        gives("f=abc", Chown("f", 7, 8), "f:644:7:8=abc", "f:c"),
        gives("f:600:7:8", Chown("f", 7, 8), "f:600:7:8", "f:c"),
        gives("f:600:7:8", Chown("f", 9, -1), "f:600:9:8", "f:c"),
        gives("f:600:7:8", Chown("f", -1, 9), "f:600:7:9", "f:c"),
        gives("d/:750 d/f", Chown("d", 7, 8), "d/:750:7:8 d/f", "d:c"),
        // Linux takes the bits away whoever asks, as POSIX allows; a set-group-ID bit without execution is another thing.
        gives("f:6755=abc", Chown("f", 7, 8), "f:755:7:8=abc", "f:c"),
        gives("f:2644", Chown("f", 7, 8), "f:2644:7:8", "f:c"),
        gives("d/:6755", Chown("d", 7, 8), "d/:6755:7:8", "d:c"),
        gives("f:6755:1001:1001", Chown("f", 1001, 1001), "f:755:1001:1001", "f:c").by_user(),
        gives("f:644:1001:8", Chown("f", -1, 1001), "f:644:1001:1001", "f:c").by_user(),
        fails(ENOENT, "", Chown("f", 7, 8)),
        fails(ENOENT, "", Chown("", 7, 8)),
        fails(ENOENT, "", Chown("no/f", 7, 8)),
        fails(ENOTDIR, "f", Chown("f/x", 7, 8)),
        fails(ENAMETOOLONG, "", Chown(long(256), 7, 8)),
        fails(ENAMETOOLONG, "f", Chown(padded(PATH_MAX, "f"), 7, 8)),
        fails(EPERM, "f:666", Chown("f", 1001, -1)).by_user(),
        fails(EPERM, "f:666", Chown("f", -1, 1001)).by_user(),
        fails(EPERM, "f:666:1001:1001", Chown("f", 0, -1)).by_user(),
        fails(EPERM, "f:666:1001:1001", Chown("f", -1, 8)).by_user(),
        fails(EACCES, "d/:700 d/f:666:1001:8", Chown("d/f", -1, 1001)).by_user(),
    ]
}

/// Who writes to a file that runs with another's rights takes these away, unless it is root.
fn writes() -> Vec<Case> {
    vec![
        gives("f:6777=abc", WriteByte("f"), "f:777=xbc", "f:mc").by_user(),
        gives("f:6777:1001:1001=abc", WriteByte("f"), "f:777:1001:1001=xbc", "f:mc").by_user(),
        gives("f:6777=abc", WriteByte("f"), "f:6777=xbc", "f:mc"),
        gives("f:1666=abc", WriteByte("f"), "f:1666=xbc", "f:mc").by_user(),
    ]
}

fn utimens() -> Vec<Case> {
    vec![
        gives("f=abc", Utimens("f", NOW, NOW), "f=abc", "f:mc"),
        gives("f=abc", Utimens("f", NOW, OMIT), "f=abc", "f:c"),
        gives("f=abc", Utimens("f", OMIT, NOW), "f=abc", "f:mc"),
        gives("f=abc", Utimens("f", OMIT, OMIT), "f=abc", ""),
        gives("f=abc", Utimens("f", (5, 0), OMIT), "f=abc", "f:c"),
        gives("d/ d/f", Utimens("d", NOW, NOW), "d/ d/f", "d:mc"),
        gives("f:606=abc", Utimens("f", NOW, NOW), "f:606=abc", "f:mc").by_user(),
        gives("f:400:1001=abc", Utimens("f", NOW, NOW), "f:400:1001=abc", "f:mc").by_user(),
        gives("f:400:1001=abc", Utimens("f", (5, 0), OMIT), "f:400:1001=abc", "f:c").by_user(),
        gives("f:600=abc", Utimens("f", OMIT, OMIT), "f:600=abc", "").by_user(),
        fails(ENOENT, "", Utimens("f", NOW, NOW)),
        fails(ENOENT, "", Utimens("", NOW, NOW)),
        fails(ENOTDIR, "f", Utimens("f/x", NOW, NOW)),
        fails(ENAMETOOLONG, "", Utimens(long(256), NOW, NOW)),
        fails(ENAMETOOLONG, "f", Utimens(padded(PATH_MAX, "f"), NOW, NOW)),
        fails(EINVAL, "f", Utimens("f", (5, 1_000_000_000), NOW)),
        fails(EINVAL, "f", Utimens("f", NOW, (5, -1))),
        fails(EACCES, "f:604=abc", Utimens("f", NOW, NOW)).by_user(),
        fails(EPERM, "f:666=abc", Utimens("f", (5, 0), (5, 0))).by_user(),
        fails(EPERM, "f:666=abc", Utimens("f", OMIT, NOW)).by_user(),
        fails(EPERM, "f:666=abc", Utimens("f", NOW, OMIT)).by_user(),
        fails(EACCES, "d/:700 d/f:666:1001", Utimens("d/f", NOW, NOW)).by_user(),
    ]
}

/// What is set is shown to the nanosecond, before and after 1970 and 2038.
fn exact_times(ground: &Ground) {
    std::fs::write(ground.path("f"), "abc").expect("a file");
    std::fs::create_dir(ground.path("d")).expect("a directory");
    for name in ["f", "d"] {
        let path = ground.path(name);
        for (atime, mtime) in
            [((0, 1), (1, 999_999_999)), ((-2, 5), (-1, 0)), ((1 << 32, 7), (8_000_000_000, 123_456_789))]
        {
            let before = std::fs::metadata(&path).expect("attributes");
            wait_past((before.ctime(), before.ctime_nsec()));
            set_times(&path, atime, mtime);
            let stat = std::fs::metadata(&path).expect("attributes");
            assert_eq!((stat.atime(), stat.atime_nsec()), atime, "atime of {name}");
            assert_eq!((stat.mtime(), stat.mtime_nsec()), mtime, "mtime of {name}");
            assert!((stat.ctime(), stat.ctime_nsec()) > (before.ctime(), before.ctime_nsec()), "ctime of {name}");
            set_times(&path, OMIT, (3, 4));
            let stat = std::fs::metadata(&path).expect("attributes");
            assert_eq!(((stat.atime(), stat.atime_nsec()), (stat.mtime(), stat.mtime_nsec())), (atime, (3, 4)));
        }
    }
}

fn set_times(path: &std::path::Path, atime: (i64, i64), mtime: (i64, i64)) {
    let path = std::ffi::CString::new(path.to_string_lossy().as_bytes()).expect("no NUL in a path");
    let times = [atime, mtime].map(|(sec, nsec)| libc::timespec { tv_sec: sec, tv_nsec: nsec });
    // SAFETY: the path is a terminated string and the times an array of two, and both live through the call.
    let done = unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), 0) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn chmod_and_chown_do_what_posix_says() {
    on_both(|ground| run(ground, &[chmod(), chown(), writes()].concat()));
}

#[test]
fn utimens_does_what_posix_says() {
    on_both(|ground| {
        run(ground, &utimens());
        exact_times(ground);
    });
}

#[test]
fn the_time_of_a_directory_moves_with_its_names_and_is_not_stored() {
    let server = TestServer::start();
    let mut mount = server.mount();
    let seconds = |mount: &Mount| std::fs::metadata(mount.path("d")).expect("attributes").mtime();
    mount.sh("mkdir d; touch -d @5 d");
    assert_eq!(seconds(&mount), 5);
    for script in ["echo x > d/f", "mv d/f d/g", "rm d/g", "mkdir d/e", "rmdir d/e"] {
        mount.sh(script);
        assert!(seconds(&mount) > 1_000_000_000, "{script}");
        mount.sh("touch -d @7 d");
        assert_eq!(seconds(&mount), 7);
    }
    mount.sh("touch d/f");
    mount.remount();
    assert_eq!(seconds(&mount), 7);
}

/// fuser panics at the least of all times where overflows are checked. That call hung for ever, and took one of the threads that
/// serve the mount with it.
#[test]
fn a_time_out_of_range_becomes_the_nearest_that_is_kept() {
    const EARLIEST: (i64, i64) = (-9_223_372_037, 145_224_192);
    const LATEST: (i64, i64) = (9_223_372_036, 854_775_807);
    let server = TestServer::start();
    let mut mount = server.mount();
    mount.sh("echo bytes > f; mkdir d");
    let times = |mount: &Mount, name: &str| {
        let stat = std::fs::metadata(mount.path(name)).expect("attributes");
        ((stat.atime(), stat.atime_nsec()), (stat.mtime(), stat.mtime_nsec()))
    };
    for name in ["f", "d"] {
        for (asked, kept) in [
            ((i64::MIN, 0), EARLIEST),
            ((i64::MIN, 999_999_999), EARLIEST),
            ((i64::MIN + 1, 7), EARLIEST),
            ((i64::MAX, 999_999_999), LATEST),
            (EARLIEST, EARLIEST),
            (LATEST, LATEST),
        ] {
            for (atime, mtime, shown) in [(asked, (5, 5), (kept, (5, 5))), ((5, 5), asked, ((5, 5), kept))] {
                let path = mount.path(name);
                let call = std::thread::spawn(move || set_times(&path, atime, mtime));
                eventually("the times are set", || call.is_finished());
                call.join().expect("times that can be set");
                assert_eq!(times(&mount, name), shown, "{name}, {asked:?}");
            }
        }
    }
    assert_eq!(mount.sh("cat f; echo more > d/g; ls d"), "bytes\ng");
    mount.remount();
    assert_eq!(times(&mount, "f"), ((5, 5), LATEST));
}
