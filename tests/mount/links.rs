//! Symbolic links as programs make, follow, copy and remove them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use pailfs::demo::Operation;

use crate::common::{Capability, TestServer, eventually, has_program};

/// Metadata of a symbolic link as AWS tools write it.
const LINK: [(&str, &str); 1] = [("file-permissions", "0120777")];

#[test]
fn a_symbolic_link_is_an_object_with_its_target_and_its_type() {
    let server = TestServer::start();
    let mut mount = server.mount();
    mount.sh("ln -s ../some/target l");
    let head = server.objects().head("l").expect("the object");
    assert_eq!(server.objects().text("l"), "../some/target");
    assert_eq!(head.metadata.get("file-permissions").map(String::as_str), Some("0120777"), "{:?}", head.metadata);
    assert!(head.metadata.contains_key("file-mtime") && head.metadata.contains_key("file-owner"));
    let before = mount.sh("stat -c '%F %s %a %u %g %.9Y %N' l");
    assert!(before.starts_with("symbolic link 14 777 "), "{before}");
    mount.remount();
    assert_eq!(mount.sh("stat -c '%F %s %a %u %g %.9Y %N' l"), before);
}

#[test]
fn links_are_followed_to_files_and_directories_also_out_of_the_mount() {
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh("mkdir -p d/e; echo inside > d/e/f; echo outside > $LOCAL/o
         ln -s d/e/f file; ln -s d dir; ln -s \"$PWD/d/e\" absolute; ln -s $LOCAL/o out; ln -s ../file d/up
         grep -x inside file; grep -x inside dir/e/f; grep -x inside absolute/f; grep -x outside out
         grep -x inside d/up; grep -x inside dir/up; test \"$(realpath dir/up)\" = \"$(realpath d/e/f)\"
         echo more >> file; grep -x more d/e/f; echo new > dir/e/g; grep -x new d/e/g
         ls -L dir/ | grep -x e; test \"$(readlink file)\" = d/e/f; (cd dir/e; grep -x new g)");
    assert_eq!(server.objects().text("d/e/f"), "inside\nmore\n");
    assert_eq!(server.objects().text("file"), "d/e/f");
}

#[test]
fn links_to_nothing_and_loops_are_what_they_are_elsewhere() {
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh("ln -s missing dangling; test -L dangling; ! test -e dangling; ! cat dangling 2> /dev/null
         ln -s b a; ln -s a b; ! cat a 2> $LOCAL/why; grep -i 'too many levels' $LOCAL/why; rm a b
         echo made > dangling; grep -x made missing; test -L dangling
         ! ln -s x dangling 2> $LOCAL/why; grep -i 'exists' $LOCAL/why; test \"$(readlink dangling)\" = missing
         ln -sf other dangling; test \"$(readlink dangling)\" = other; ln -sfn d dangling; rm dangling; cat missing");
    assert_eq!(server.objects().list(), ["missing"]);
}

#[test]
fn any_target_up_to_4095_bytes_is_kept_byte_for_byte() {
    let server = TestServer::start();
    let mut mount = server.mount();
    let odd = OsStr::from_bytes(b" \xff\xfe spaces \n");
    let long = "x".repeat(4095);
    symlink(odd, mount.path("odd")).expect("a link");
    symlink(&long, mount.path("long")).expect("the longest link");
    let errno = |target: &str| symlink(target, mount.path("no")).expect_err("no link").raw_os_error();
    assert_eq!(errno(""), Some(libc::ENOENT));
    assert_eq!(errno(&format!("{long}x")), Some(libc::ENAMETOOLONG));
    mount.remount();
    assert_eq!(std::fs::read_link(mount.path("odd")).expect("a target"), Path::new(odd));
    assert_eq!(std::fs::read_link(mount.path("long")).expect("a target"), Path::new(&long));
    assert_eq!(server.objects().get("odd").as_deref(), Some(odd.as_bytes()));
}

#[test]
fn links_of_aws_tools_and_s3fs_are_links() {
    let server = TestServer::start();
    server.objects().put_with("aws", "target", &LINK);
    // s3fs writes the mode in decimal: 41471 is 0120777.
    server.objects().put_with(
        "s3fs",
        "target",
        &[("mode", "41471"), ("uid", "5"), ("gid", "6"), ("mtime", "1000000000")],
    );
    server.objects().put("target", "bytes");
    let mount = server.mount();
    assert_eq!(
        mount.sh("readlink aws s3fs; cat aws s3fs; stat -c '%u %g %Y' s3fs"),
        "target\ntarget\nbytesbytes5 6 1000000000"
    );
}

#[test]
fn owner_and_times_of_a_link_are_its_own() {
    let server = TestServer::start();
    let mut mount = server.mount();
    mount.sh("echo x > f; touch -d @7 f; ln -s f l; touch -h -d @1000000000.123456789 l");
    // SAFETY: geteuid(2) takes nothing and can't fail.
    let root = unsafe { libc::geteuid() == 0 };
    if root {
        mount.sh("chown -h 1234:2345 l");
    }
    mount.remount();
    let link = std::fs::symlink_metadata(mount.path("l")).expect("the link");
    assert_eq!((link.mtime(), link.mtime_nsec(), link.mode()), (1_000_000_000, 123_456_789, 0o120777));
    assert!(!root || (link.uid(), link.gid()) == (1234, 2345));
    let file = std::fs::metadata(mount.path("l")).expect("the file");
    assert_eq!((file.mtime(), file.mode() & libc::S_IFMT), (7, libc::S_IFREG));
    assert_eq!(mount.sh("readlink l; chmod 600 l; stat -c %a f; readlink l"), "f\n600\nf");
}

#[test]
fn links_are_renamed_and_removed_as_names_of_their_own() {
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh("echo x > f; ln -s f l; mv l m; test \"$(readlink m)\" = f; ! test -L l; grep -x x m
         ln -s g n; mv n m; test \"$(readlink m)\" = g; echo y > over; mv m over; test \"$(readlink over)\" = g
         ln -s z there; mv -n over there; test \"$(readlink there)\" = z; test -L over
         echo file > plain; mv plain there; grep -x file there; ! test -L there
         mkdir d; mv over d; mv d e; test \"$(readlink e/over)\" = g; ! rmdir e 2> /dev/null
         ln -s e todir; ! rmdir todir 2> /dev/null; rm todir; test -d e; rm -r e");
    assert_eq!(server.objects().list(), ["f", "there"]);
    assert_eq!(server.objects().text("f"), "x\n");
}

#[test]
fn copies_and_archives_keep_links() {
    let server = TestServer::start();
    let mut mount = server.mount();
    mount.sh("mkdir -p s/d; echo x > s/d/f; ln -s d/f s/l; ln -s missing s/d/dangling; ln -s d s/dir
         touch -h -d @1000000000 s/l; cp -a s copied; mkdir tarred; tar -C s -c . | tar -C tarred -xp
         cp -a s $LOCAL/out; cp -a $LOCAL/out back");
    mount.remount();
    let shown = |mount: &crate::common::Mount, dir: &str| {
        mount.sh(&format!("cd {dir}; find . -printf '%P %y %l %s\\n' | grep -v '^ d' | sed 's/ d .*/ d/' | sort"))
    };
    let source = shown(&mount, "s");
    assert!(source.contains("l l d/f 3") && source.contains("d/dangling l missing 7"), "{source}");
    for dir in ["copied", "tarred", "back"] {
        assert_eq!(shown(&mount, dir), source, "{dir}");
    }
    assert_eq!(mount.sh("stat -c %Y copied/l tarred/l back/l"), "1000000000\n1000000000\n1000000000");
}

#[test]
fn a_second_rsync_of_links_transfers_nothing() {
    if !has_program("rsync") {
        return;
    }
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh("mkdir -p $LOCAL/s/d; echo x > $LOCAL/s/d/f; ln -s d/f $LOCAL/s/l; ln -s gone $LOCAL/s/d/dangling
         rsync -a $LOCAL/s/ t/; test \"$(readlink t/l t/d/dangling)\" = \"$(printf 'd/f\\ngone')\"");
    assert_eq!(mount.sh("rsync -ai $LOCAL/s/ t/"), "");
}

#[test]
fn git_keeps_a_link_in_its_tree() {
    if !has_program("git") {
        return;
    }
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh("git init -q r; cd r; git config user.email t@example.com; git config user.name t
         echo x > f; ln -s f l; git add .; git commit -qm one; test -z \"$(git status --porcelain)\"
         git ls-files -s l | grep ^120000; rm l; git checkout -q l; test \"$(readlink l)\" = f
         ln -sf g l; git status --porcelain | grep -x ' M l'; git clone -q . ../c; test \"$(readlink ../c/l)\" = f");
}

#[test]
fn a_listing_tells_links_from_files_whatever_was_asked_before() {
    let server = TestServer::start();
    let Some(_) = server.has(&[Capability::Simulation]).then_some(()) else { return };
    // More names than the first answer, which has all attributes, takes.
    for number in 0..400 {
        match number % 4 {
            0 => server.objects().put_with(&format!("d/{number:04}"), "target", &LINK),
            _ => server.objects().put(&format!("d/{number:04}"), "small"),
        }
    }
    let mut mount = server.mount();
    server.demo().reset_counters();
    assert_eq!(mount.sh("ls -f d | wc -l"), "402");
    // The first answer has attributes, by the kernel's choice; the others cost a listing.
    let heads = server.demo().counters().requests(Operation::HeadObject);
    assert!(heads < 200, "{heads} files were asked for their metadata");
    mount.remount();
    assert_eq!(mount.sh("find d -type l | wc -l; find d -type f | wc -l"), "100\n300");
    mount.remount();
    assert_eq!(mount.sh("find d -type f | wc -l; rm -r d; ls"), "300");
}

#[test]
fn an_object_that_can_not_be_a_target_shows_and_can_be_removed() {
    let server = TestServer::start();
    server.objects().put_with("large", vec![b'x'; 5000], &LINK);
    server.objects().put_with("nul", "a\0b", &LINK);
    let mount = server.mount();
    assert_eq!(mount.sh("stat -c '%F %s' large nul; wc -c < large"), "regular file 5000\nsymbolic link 3\n5000");
    let errno = std::fs::read_link(mount.path("nul")).expect_err("no target").raw_os_error();
    assert_eq!(errno, Some(libc::EIO));
    mount.sh("rm large nul");
    assert!(server.objects().list().is_empty());
}

#[test]
fn another_clients_change_between_file_and_link_is_seen() {
    let server = TestServer::start();
    server.objects().put("x", "bytes");
    server.objects().put("f", "of the target");
    let mount = server.mount_with(&["actimeo=0"]);
    assert_eq!(mount.sh("cat x"), "bytes");
    server.objects().put_with("x", "f", &LINK);
    eventually("the link", || std::fs::symlink_metadata(mount.path("x")).is_ok_and(|meta| meta.is_symlink()));
    assert_eq!(mount.sh("cat x; echo; readlink x"), "of the target\nf");
    server.objects().put("x", "bytes again");
    eventually("the file", || std::fs::symlink_metadata(mount.path("x")).is_ok_and(|meta| meta.is_file()));
    assert_eq!(mount.sh("cat x"), "bytes again");
}

#[test]
fn links_are_refused_with_basic_metadata_where_they_show_as_files() {
    let server = TestServer::start();
    server.objects().put_with("l", "target", &LINK);
    let mount = server.mount_with(&["metadata=basic"]);
    assert_eq!(symlink("x", mount.path("new")).expect_err("refused").raw_os_error(), Some(libc::ENOTSUP));
    assert_eq!(mount.sh("stat -c %F l; cat l; find . -type l"), "regular file\ntarget");
    assert_eq!(server.objects().list(), ["l"]);
}

#[test]
fn another_client_that_makes_the_name_first_keeps_it() {
    let server = TestServer::start();
    let mount = server.mount_with(&["negative_ttl=600"]);
    assert!(!mount.path("l").exists());
    // The mount believes for ten minutes that there is no such name.
    server.objects().put("l", "theirs");
    assert_eq!(symlink("ours", mount.path("l")).expect_err("it is there").raw_os_error(), Some(libc::EEXIST));
    assert_eq!(server.objects().text("l"), "theirs");
    assert_eq!(mount.sh("cat l"), "theirs");
}

#[test]
fn a_link_costs_one_request_to_make_and_one_to_read() {
    let server = TestServer::start();
    if !server.has(&[Capability::Simulation]) {
        return;
    }
    for number in 0..100 {
        server.objects().put_with(&format!("d/{number:03}"), "target", &LINK);
    }
    let mount = server.mount();
    mount.sh("ls -a > /dev/null; mkdir new; ls -a new");
    let counts = || {
        let counters = server.demo().counters();
        [Operation::PutObject, Operation::GetObject, Operation::HeadObject]
            .map(|operation| counters.requests(operation))
    };
    let before = counts();
    symlink("target", mount.path("new/l")).expect("a link");
    assert_eq!(counts(), [before[0] + 1, before[1], before[2]]);
    let before = counts();
    assert_eq!(mount.sh("ls -l d | grep -c ' -> target$'"), "100");
    assert_eq!(counts(), [before[0], before[1] + 100, before[2] + 100]);
    mount.sh("ls -l d > /dev/null");
    assert_eq!(counts()[1], before[1] + 100);
}
