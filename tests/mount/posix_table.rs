//! Tables of system calls as POSIX tells them: what stands there, the call, its errno or what stands there afterwards.
//!
//! Each table runs on a local directory first, which proves the table, and then on a mount. Owns how a case is called and who
//! calls; what stands there is `posix_picture`'s, and the cases are in the other `posix_*`.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libc::{c_int, c_uint};

use crate::common::{Capability, Mount, TestServer};
pub use crate::posix_picture::wait_past;
use crate::posix_picture::{Picture, compare, now, picture, same, set_up, times};

/// Longest path with its NUL (limits.h of Linux).
pub const PATH_MAX: usize = 4096;

/// A user that owns nothing unless a case says so, and is in no group but its own, which has the same number.
pub const USER: u32 = 1001;

/// One system call; paths are relative to the directory of the case.
#[derive(Clone, Debug)]
pub enum Call {
    Rename(&'static str, &'static str),
    RenameNoReplace(&'static str, &'static str),
    Unlink(&'static str),
    Rmdir(&'static str),
    Mkdir(&'static str, u32),
    /// Flags and mode; what was opened is closed again.
    Open(&'static str, c_int, u32),
    /// Opens for writing and writes one byte at the start.
    WriteByte(&'static str),
    Truncate(&'static str, i64),
    /// Through a descriptor that was opened with these flags.
    Ftruncate(&'static str, c_int, i64),
    Chmod(&'static str, u32),
    /// -1 leaves it.
    Chown(&'static str, i64, i64),
    /// Access and modification, each seconds and nanoseconds.
    Utimens(&'static str, (i64, i64), (i64, i64)),
}

/// Directories in which calls have failed: the next one that fails finds the same there.
type Standing = BTreeMap<&'static str, (PathBuf, Picture)>;

/// One row of a table.
#[derive(Clone, Debug)]
pub struct Case {
    stands: &'static str,
    call: Call,
    outcome: Outcome,
    user: Option<u32>,
    umask: u32,
}

#[derive(Clone, Debug)]
enum Outcome {
    /// Nothing has changed then, not even a time.
    Fails(i32),
    /// What stands there, and whose times have moved: `f:c .:mc`. Other times must not move.
    Gives(&'static str, &'static str),
}

/// A call that fails with this errno.
pub fn fails(errno: i32, stands: &'static str, call: Call) -> Case {
    Case { stands, call, outcome: Outcome::Fails(errno), user: None, umask: 0 }
}

/// A call that succeeds.
pub fn gives(stands: &'static str, call: Call, then: &'static str, moved: &'static str) -> Case {
    Case { stands, call, outcome: Outcome::Gives(then, moved), user: None, umask: 0 }
}

impl Case {
    /// Called by [`USER`].
    pub fn by_user(self) -> Self {
        Case { user: Some(USER), ..self }
    }

    pub fn umask(self, umask: u32) -> Self {
        Case { umask, ..self }
    }
}

/// A text of this many bytes that lives as long as the tests.
pub fn long(len: usize) -> &'static str {
    "n".repeat(len).leak()
}

/// `name` behind as many `./` as make the path this long.
pub fn padded(len: usize, name: &str) -> &'static str {
    let slashes = "/".repeat((len - name.len()) % 2);
    format!("{}{slashes}{name}", "./".repeat((len - name.len() - slashes.len()) / 2)).leak()
}

/// A directory in which cases run.
pub struct Ground {
    root: PathBuf,
    /// Made of pailfs, not of a local file system.
    pub mounted: bool,
    /// Directories may have names of 255 bytes.
    pub long_directories: bool,
}

impl Ground {
    /// A new path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// Runs `test` on a local directory and then on a mount. Other users' calls need root, as do other owners.
pub fn on_both(test: impl Fn(&Ground)) {
    // SAFETY: geteuid(2) takes nothing and can't fail.
    if unsafe { libc::geteuid() } != 0 {
        return crate::common::skipped(&crate::common::test_name(), "needs root");
    }
    let local = tempfile::tempdir().expect("a local directory");
    open_up(local.path());
    test(&Ground { root: local.path().to_owned(), mounted: false, long_directories: true });
    let server = TestServer::start();
    let mount = server.mount_with(&["allow_other"]);
    test(&Ground { long_directories: server.has(&[Capability::LongDirectories]), ..mounted(&mount) });
}

/// The ground that a mount is.
pub fn mounted(mount: &Mount) -> Ground {
    open_up(mount.local());
    Ground { root: mount.path(""), mounted: true, long_directories: false }
}

fn open_up(dir: &Path) {
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).expect("a directory that all may enter");
}

/// Runs all cases, and tells of all that went wrong at once.
pub fn run(ground: &Ground, cases: &[Case]) {
    let mut wrong = Vec::new();
    let mut standing = Standing::new();
    for (number, case) in cases.iter().enumerate() {
        let dir = ground.root.join(format!("{number}"));
        if let Err(why) = alone(|| case.check(dir, ground.mounted, &mut standing)) {
            let case = format!("{case:?}");
            wrong.push(format!("{}: {why}", &case[..case.len().min(200)]));
        }
    }
    let place = if ground.mounted { "the mount" } else { "a local directory" };
    assert!(wrong.is_empty(), "on {place} {} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Runs calls that all fail with this errno on what stands there, and change nothing.
pub fn refused(ground: &Ground, errno: i32, calls: &[Call]) {
    alone(|| {
        std::env::set_current_dir(&ground.root).expect("a directory");
        for call in calls {
            let before = picture(ground.mounted, true);
            assert_eq!(call.make().map_err(name), Err(name(errno)), "{call:?}");
            assert_eq!(before, picture(ground.mounted, true), "{call:?}");
        }
    });
}

/// On a thread that has its working directory, umask and user for itself.
pub fn alone<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let thread = move || {
        // SAFETY: unshare(2) and umask(2) take numbers; what is unshared is this thread's alone from here on.
        unsafe {
            assert_eq!(libc::unshare(libc::CLONE_FS), 0, "{}", std::io::Error::last_os_error());
            libc::umask(0);
        }
        work()
    };
    std::thread::scope(|scope| match scope.spawn(thread).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Does `work` as another user. The calls behind the C library's change one thread, not the process.
pub fn as_user<T>(user: Option<u32>, work: impl FnOnce() -> T) -> T {
    let Some(user) = user else { return work() };
    let keep: libc::c_long = -1;
    // SAFETY: the calls take numbers, and setgroups(2) no list.
    let switch = |user: u32| unsafe {
        libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>());
        libc::syscall(libc::SYS_setresgid, keep, libc::c_long::from(user), keep);
        libc::syscall(libc::SYS_setresuid, keep, libc::c_long::from(user), keep)
    };
    assert_eq!(switch(user), 0, "{}", std::io::Error::last_os_error());
    let done = work();
    // The user first, who may not change the group back.
    // SAFETY: as above.
    assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, keep, 0 as libc::c_long, keep) }, 0);
    assert_eq!(switch(0), 0);
    done
}

fn text(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).expect("no NUL in a path")
}

fn outcome(result: impl Into<i64>) -> Result<(), i32> {
    if result.into() < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(()) }
}

fn with_open(path: &str, flags: c_int, mode: u32, work: impl FnOnce(c_int) -> Result<(), i32>) -> Result<(), i32> {
    // SAFETY: the path is a terminated string that lives through the call.
    let fd = unsafe { libc::open(text(path).as_ptr(), flags, mode as c_uint) };
    outcome(fd)?;
    let done = work(fd);
    // SAFETY: the descriptor was opened above and is used by nobody else.
    outcome(unsafe { libc::close(fd) })?;
    done
}

impl Call {
    fn make(&self) -> Result<(), i32> {
        let cwd = libc::AT_FDCWD;
        // SAFETY: paths are terminated strings and times an array of two, and all live through the calls.
        unsafe {
            match *self {
                Call::Rename(from, to) => outcome(libc::rename(text(from).as_ptr(), text(to).as_ptr())),
                Call::RenameNoReplace(from, to) => {
                    let (from, to) = (text(from), text(to));
                    outcome(libc::renameat2(cwd, from.as_ptr(), cwd, to.as_ptr(), libc::RENAME_NOREPLACE))
                }
                Call::Unlink(path) => outcome(libc::unlink(text(path).as_ptr())),
                Call::Rmdir(path) => outcome(libc::rmdir(text(path).as_ptr())),
                Call::Mkdir(path, mode) => outcome(libc::mkdir(text(path).as_ptr(), mode)),
                Call::Open(path, flags, mode) => with_open(path, flags, mode, |_| Ok(())),
                Call::WriteByte(path) => {
                    with_open(path, libc::O_WRONLY, 0, |fd| outcome(libc::write(fd, c"x".as_ptr().cast(), 1) as i64))
                }
                Call::Truncate(path, size) => outcome(libc::truncate(text(path).as_ptr(), size)),
                Call::Ftruncate(path, flags, size) => {
                    with_open(path, flags, 0, |fd| outcome(libc::ftruncate(fd, size)))
                }
                Call::Chmod(path, mode) => outcome(libc::chmod(text(path).as_ptr(), mode)),
                Call::Chown(path, uid, gid) => outcome(libc::chown(text(path).as_ptr(), uid as u32, gid as u32)),
                Call::Utimens(path, atime, mtime) => {
                    let times = [atime, mtime].map(|(sec, nsec)| libc::timespec { tv_sec: sec, tv_nsec: nsec });
                    outcome(libc::utimensat(cwd, text(path).as_ptr(), times.as_ptr(), 0))
                }
            }
        }
    }
}

impl Case {
    fn check(&self, dir: PathBuf, mounted: bool, standing: &mut Standing) -> Result<(), String> {
        let is_to_fail = matches!(self.outcome, Outcome::Fails(_));
        let (dir, before) = match standing.remove(self.stands).filter(|_| is_to_fail) {
            Some((dir, before)) => (dir, Some(before)),
            None => (dir, None),
        };
        if before.is_none() {
            set_up(&dir, self.stands).map_err(|error| format!("can't be set up: {error}"))?;
        }
        std::env::set_current_dir(&dir).map_err(|error| error.to_string())?;
        let before = before.map_or_else(|| picture(mounted, false), Ok)?;
        wait_past(before.values().flat_map(|seen| [seen.mtime, seen.ctime]).max().unwrap_or_default());
        let began = now(libc::CLOCK_REALTIME_COARSE);
        // SAFETY: umask(2) takes a number and can't fail.
        unsafe { libc::umask(self.umask) };
        let result = as_user(self.user, || self.call.make());
        let after = picture(mounted, true)?;
        match (&self.outcome, result) {
            (Outcome::Fails(wanted), Err(errno)) if errno == *wanted => {
                compare(&after, self.stands)?;
                same(&before, &after)?;
                standing.insert(self.stands, (dir, after));
                Ok(())
            }
            (Outcome::Fails(wanted), result) => Err(format!("{result:?} instead of {}", name(*wanted))),
            (Outcome::Gives(..), Err(errno)) => Err(format!("fails with {}", name(errno))),
            (Outcome::Gives(then, moved), Ok(())) => {
                compare(&after, then)?;
                self.same_inodes(&before, &after)?;
                times(&before, &after, moved, began)
            }
        }
    }

    /// A rename moves the inode, and no other call gives a name another one.
    fn same_inodes(&self, before: &Picture, after: &Picture) -> Result<(), String> {
        let moved = match self.call {
            Call::Rename(from, to) | Call::RenameNoReplace(from, to) => Some((from, to)),
            _ => None,
        };
        let clean = |path: &str| path.trim_start_matches("./").trim_matches('/').to_owned();
        for (path, was) in before {
            let at = match moved {
                Some((_, to)) if clean(to) == *path => continue,
                Some((from, to)) if clean(from) == *path => clean(to),
                Some((from, to)) if path.starts_with(&(clean(from) + "/")) => {
                    format!("{}{}", clean(to), &path[clean(from).len()..])
                }
                _ => path.clone(),
            };
            if after.get(&at).is_some_and(|is| is.ino != was.ino) {
                return Err(format!("{at} has another inode number than {path} had"));
            }
        }
        Ok(())
    }
}

fn name(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}
