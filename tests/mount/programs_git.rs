//! git, with its locks by exclusive create, renames over existing names, mapped packs and read-only files.

use crate::common::{TestServer, has_program};

/// Identity and calm for git in tests.
const GIT: &str = "git config --global user.name T; git config --global user.email t@example.com; \
                   git config --global init.defaultBranch main; git config --global --add safe.directory '*';";

#[test]
fn git_works_in_a_repository_in_the_mount() {
    if !has_program("git") {
        return;
    }
    let server = TestServer::start();
    let mut mount = server.mount();
    mount.sh(&format!(
        "{GIT} git init -q repo; cd repo
         for n in 1 2 3; do for f in a b c; do echo $n $f >> $f; done; git add .; git commit -qm $n; done
         git checkout -qb side HEAD~1; echo side > side; git add side; git commit -qm side
         git checkout -q main; git merge -qm merged side; git status --porcelain > $LOCAL/status"
    ));
    assert_eq!(mount.sh("cat $LOCAL/status"), "");
    mount.remount();
    assert_eq!(mount.sh("cd repo; git status --porcelain; git log --oneline | wc -l; cat a"), "5\n1 a\n2 a\n3 a");
    mount.sh("cd repo; git gc -q; git fsck --full --strict; git log -p > $LOCAL/log; git stash list");
    mount.sh("git clone -q repo clone; cd clone; git fsck --full; diff -r --exclude=.git ../repo .");
    mount.remount();
    mount.sh(
        "cd clone; echo more >> a; git commit -qam more; git push -q origin HEAD:refs/heads/new; git -C ../repo fsck",
    );
    mount.sh("git clone -q repo $LOCAL/out; diff -r --exclude=.git repo $LOCAL/out");
    let head = server.objects().text("repo/.git/HEAD");
    assert_eq!(head, "ref: refs/heads/main\n");
    assert!(!server.objects().list().iter().any(|key| key.ends_with(".lock")), "no lock file is left");
}

#[test]
fn git_clones_a_larger_repository_into_the_mount() {
    if !has_program("git") {
        return;
    }
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh(&format!(
        "{GIT} git init -q $LOCAL/origin; cd $LOCAL/origin
         for i in $(seq 200); do mkdir -p d$((i % 10)); head -c $((i * 100)) /dev/urandom > d$((i % 10))/f$i; done
         git add .; git commit -qm all; cd - > /dev/null
         git clone -q --no-local $LOCAL/origin here; git -C here fsck; diff -r --exclude=.git $LOCAL/origin here
         git -C here repack -adq; git -C here fsck; git -C here status --porcelain > $LOCAL/status"
    ));
    assert_eq!(mount.sh("cat $LOCAL/status"), "");
}
