//! rename(2), as POSIX and, where POSIX leaves a choice, Linux have it.

use libc::{EACCES, EBUSY, EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EPERM};

use crate::posix_table::Call::{Rename, RenameNoReplace};
use crate::posix_table::{Case, PATH_MAX, fails, gives, long, on_both, padded, run};

fn files() -> Vec<Case> {
    vec![
        gives("f=abc", Rename("f", "g"), "g=abc", "g:c .:mc"),
        gives("f:4750:1001:1002=abc", Rename("f", "g"), "g:4750:1001:1002=abc", "g:c .:mc"),
        gives("f", Rename("f", "g"), "g", "g:c .:mc"),
        gives("f=abc d/", Rename("f", "d/g"), "d/ d/g=abc", "d/g:c d:mc .:mc"),
        gives("d/ d/f=abc", Rename("d/f", "f"), "d/ f=abc", "f:c d:mc .:mc"),
        gives("a/ b/ a/f=abc", Rename("a/f", "b/f"), "a/ b/ b/f=abc", "b/f:c a:mc b:mc"),
        gives("f=abc g:600:7:8=older", Rename("f", "g"), "g=abc", "g:c .:mc"),
        gives("f=abc d/ d/g=older", Rename("f", "d/g"), "d/ d/g=abc", "d/g:c d:mc .:mc"),
        // One name twice: nothing is done.
        gives("f=abc", Rename("f", "f"), "f=abc", ""),
        gives("f=abc", Rename("f", "./f"), "f=abc", ""),
        gives("f=abc", RenameNoReplace("f", "g"), "g=abc", "g:c .:mc"),
        fails(EEXIST, "f=abc g", RenameNoReplace("f", "g")),
        fails(EEXIST, "f=abc", RenameNoReplace("f", "f")),
        fails(EEXIST, "f=abc d/", RenameNoReplace("f", "d")),
        fails(ENOENT, "", Rename("f", "g")),
        fails(ENOENT, "g", Rename("f", "g")),
        fails(ENOENT, "f", Rename("f", "no/g")),
        fails(ENOENT, "f", Rename("no/f", "g")),
        fails(ENOENT, "f", Rename("", "g")),
        fails(ENOENT, "f", Rename("f", "")),
        fails(ENOTDIR, "f g", Rename("f/x", "h")),
        fails(ENOTDIR, "f g", Rename("g", "f/x")),
        fails(ENOTDIR, "f", Rename("f/", "g")),
        fails(ENOTDIR, "f", Rename("f", "g/")),
        fails(EISDIR, "f d/", Rename("f", "d")),
        fails(EISDIR, "f d/ d/x", Rename("f", "d")),
        fails(ENOTEMPTY, "d/ d/f", Rename("d/f", "d/../d")),
        gives(
            "f=abc",
            Rename("f", long(255)),
            format!("{}=abc", long(255)).leak(),
            format!("{}:c .:mc", long(255)).leak(),
        ),
        fails(ENAMETOOLONG, "f", Rename("f", long(256))),
        fails(ENAMETOOLONG, "f", Rename(long(256), "g")),
        fails(ENAMETOOLONG, "f", Rename("f", long(1025))),
        gives("f=abc", Rename(padded(PATH_MAX - 1, "f"), "g"), "g=abc", "g:c .:mc"),
        fails(ENAMETOOLONG, "f", Rename(padded(PATH_MAX, "f"), "g")),
        fails(ENAMETOOLONG, "f", Rename("f", padded(PATH_MAX, "g"))),
    ]
}

fn directories() -> Vec<Case> {
    vec![
        gives("d/", Rename("d", "e"), "e/", "e:c .:mc"),
        gives("d/ d/x=1", Rename("d", "e"), "e/ e/x=1", "e:c .:mc"),
        gives("d/:1770:7:8 d/x:600:7:8=1", Rename("d", "e"), "e/:1770:7:8 e/x:600:7:8=1", "e:c .:mc"),
        gives("d/ d/e/ d/e/x=1 b/", Rename("d", "b/d"), "b/ b/d/ b/d/e/ b/d/e/x=1", "b/d:c b:mc .:mc"),
        gives("d/ d/x=1 e/", Rename("d", "e"), "e/ e/x=1", "e:c .:mc"),
        gives("d/ e/:700:7:8", Rename("d", "e"), "e/", "e:c .:mc"),
        gives("d/ d/x=1", Rename("d/", "e/"), "e/ e/x=1", "e:c .:mc"),
        gives("d/ d/x=1", Rename("d", "d"), "d/ d/x=1", ""),
        gives("d/ d/e/ d/e/x=1", Rename("d/e", "e"), "d/ e/ e/x=1", "e:c d:mc .:mc"),
        gives("d/", RenameNoReplace("d", "e"), "e/", "e:c .:mc"),
        fails(EEXIST, "d/ e/", RenameNoReplace("d", "e")),
        fails(ENOTEMPTY, "d/ e/ e/x", Rename("d", "e")),
        fails(ENOTEMPTY, "d/ e/ e/s/", Rename("d", "e")),
        fails(ENOTEMPTY, "d/ d/e/", Rename("d/e", "d")),
        fails(ENOTDIR, "d/ f", Rename("d", "f")),
        fails(ENOTDIR, "d/ d/x f=1", Rename("d", "f")),
        fails(EINVAL, "d/", Rename("d", "d/x")),
        fails(EINVAL, "d/ d/e/", Rename("d", "d/e")),
        fails(EINVAL, "d/ d/e/", Rename("d", "d/e/x")),
        fails(ENOENT, "d/", Rename("no", "d")),
        fails(ENOENT, "d/", Rename("d", "no/e")),
        fails(EBUSY, "d/", Rename(".", "x")),
        fails(EBUSY, "d/", Rename("d/.", "x")),
        fails(EBUSY, "d/", Rename("d/..", "x")),
        fails(EBUSY, "d/ e/", Rename("e", "d/.")),
        fails(EBUSY, "d/ e/", Rename("e", "d/..")),
        fails(ENAMETOOLONG, "d/", Rename("d", long(256))),
    ]
}

fn others() -> Vec<Case> {
    let cases = vec![
        gives("d/:777 d/f:600=abc", Rename("d/f", "d/g"), "d/:777 d/g:600=abc", "d/g:c d:mc"),
        gives("d/:1777 d/f:600:1001=abc", Rename("d/f", "d/g"), "d/:1777 d/g:600:1001=abc", "d/g:c d:mc"),
        gives("d/:1777:1001 d/f d/g:600:7=x", Rename("d/f", "d/g"), "d/:1777:1001 d/g", "d/g:c d:mc"),
        fails(EACCES, "f:666 e/:777", Rename("f", "e/f")),
        fails(EACCES, "e/:777 e/f:666", Rename("e/f", "f")),
        fails(EACCES, "f:666", Rename("f", "g")),
        fails(EACCES, "d/:700 d/f:666 e/:777", Rename("d/f", "e/f")),
        fails(EACCES, "d/:700 e/:777 e/f:666", Rename("e/f", "d/f")),
        fails(EACCES, "d/:776 d/f:666 e/:777", Rename("d/f", "e/f")),
        // The directory's `..` changes, which is a write to it.
        fails(EACCES, "a/:777 b/:777 a/d/:755", Rename("a/d", "b/d")),
        gives("a/:777 a/d/:755", Rename("a/d", "a/e"), "a/:777 a/e/:755", "a/e:c a:mc"),
        fails(EPERM, "d/:1777 d/f:666", Rename("d/f", "d/g")),
        fails(EPERM, "d/:1777 e/:777 d/f:666", Rename("d/f", "e/f")),
        fails(EPERM, "d/:1777 d/s/:777", Rename("d/s", "d/t")),
        fails(EPERM, "d/:1777 d/f:644:1001 d/g:666", Rename("d/f", "d/g")),
        fails(EPERM, "d/:1777 d/s/:777:1001 d/t/:777", Rename("d/s", "d/t")),
    ];
    cases.into_iter().map(Case::by_user).collect()
}

#[test]
fn rename_does_what_posix_says() {
    on_both(|ground| run(ground, &[files(), directories(), others()].concat()));
}
