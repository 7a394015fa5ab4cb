//! Modes, owners and times: what is kept in object metadata, what is read of other tools' keys, and `metadata=basic`.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::common::{Capability, TestServer, eventually};

fn root() -> bool {
    // SAFETY: geteuid(2) takes nothing and can't fail.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn mode_owner_and_time_are_kept_under_the_keys_of_aws_tools() {
    let server = TestServer::start();
    let mut mount = server.mount();
    server.objects().put("f", "bytes");
    mount.sh("chmod 640 f; touch -d @1000000000.123456789 f");
    if root() {
        mount.sh("chown 1234:2345 f");
    }
    let metadata = server.objects().head("f").expect("the object").metadata;
    assert_eq!(metadata.get("file-permissions").map(String::as_str), Some("0100640"), "{metadata:?}");
    assert_eq!(metadata.get("file-mtime").map(String::as_str), Some("1000000000123456789ns"), "{metadata:?}");
    if root() {
        assert_eq!(metadata.get("file-owner").map(String::as_str), Some("1234"), "{metadata:?}");
        assert_eq!(metadata.get("file-group").map(String::as_str), Some("2345"), "{metadata:?}");
    }
    assert_eq!(server.objects().text("f"), "bytes");
    mount.remount();
    let stat = std::fs::metadata(mount.path("f")).expect("the file");
    assert_eq!((stat.mode(), stat.mtime(), stat.mtime_nsec()), (0o100640, 1_000_000_000, 123_456_789));
    if root() {
        assert_eq!((stat.uid(), stat.gid()), (1234, 2345));
    }
}

#[test]
fn attributes_of_a_dirty_file_go_with_its_bytes() {
    let server = TestServer::start();
    let mount = server.mount();
    mount.sh("exec 3> f; echo bytes >&3; chmod 604 f; touch -d @5 f; exec 3>&-");
    let head = server.objects().head("f").expect("the object");
    assert_eq!(head.metadata.get("file-permissions").map(String::as_str), Some("0100604"));
    assert_eq!(head.size, 6);
}

#[test]
fn a_new_file_keeps_the_mode_it_was_made_with() {
    let server = TestServer::start();
    let mut mount = server.mount();
    mount.sh("umask 027; echo x > f; mkdir d; umask 077; echo y > d/g");
    mount.remount();
    assert_eq!(mount.sh("stat -c '%a %n' f d d/g"), "640 f\n750 d\n600 d/g");
}

#[test]
fn a_write_changes_the_time_that_was_set() {
    let server = TestServer::start();
    let mut mount = server.mount();
    mount.sh("echo a > f; touch -d @1000000000 f; echo b >> f");
    mount.remount();
    let age = std::fs::metadata(mount.path("f")).and_then(|stat| stat.modified()).expect("a time").elapsed();
    assert!(
        age.as_ref().is_ok_and(|age| age.as_secs() < 600),
        "the time of the write, not the one set before: {age:?}"
    );
}

#[test]
fn directories_keep_their_modes_in_their_markers() {
    let server = TestServer::start();
    let mut mount = server.mount();
    mount.sh("mkdir -m 700 made; mkdir -p implicit; chmod 711 implicit");
    let marker = server.objects().head("made/").expect("a marker object");
    assert_eq!(marker.metadata.get("file-permissions").map(String::as_str), Some("0040700"));
    assert_eq!(marker.size, 0);
    mount.remount();
    assert_eq!(mount.sh("stat -c '%a %F' made implicit"), "700 directory\n711 directory");
}

#[test]
fn keys_of_s3fs_are_read() {
    let server = TestServer::start();
    // 33152 is 0100600: s3fs writes the mode in decimal.
    let keys = [("mode", "33152"), ("uid", "1234"), ("gid", "2345"), ("mtime", "1000000000")];
    server.objects().put_with("f", "x", &keys);
    let mount = server.mount();
    assert_eq!(mount.sh("stat -c '%a %u %g %Y' f"), "600 1234 2345 1000000000");
}

#[test]
fn the_time_key_of_rclone_is_read() {
    let server = TestServer::start();
    server.objects().put_with("f", "x", &[("mtime", "1000000000.123456789")]);
    let mount = server.mount();
    assert_eq!(mount.sh("stat -c '%.9Y' f"), "1000000000.123456789");
}

#[test]
fn metadata_that_makes_no_sense_is_ignored() {
    let server = TestServer::start();
    let keys =
        [("file-permissions", "rwxr-x"), ("file-mtime", "yesterday"), ("file-owner", "-7"), ("mode", "99999999999")];
    server.objects().put_with("f", "x", &keys);
    server.objects().put_with("dev", "x", &[("file-permissions", "0060644")]);
    let mount = server.mount();
    assert_eq!(mount.sh("cat f dev; stat -c '%a %F' f dev"), "xx644 regular file\n644 regular file");
}

#[test]
fn basic_refuses_what_would_change_something() {
    let server = TestServer::start();
    let mount = server.mount_with(&["metadata=basic"]);
    mount.sh("echo x > f; chmod 644 f");
    let path = mount.path("f");
    let refused = std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).map_err(|e| e.raw_os_error());
    assert_eq!(refused, Err(Some(libc::ENOTSUP)));
    let refused = std::os::unix::fs::chown(&path, Some(1234), None).map_err(|e| e.raw_os_error());
    assert_eq!(refused, Err(Some(libc::ENOTSUP)));
    mount
        .sh("! touch -d @5 f 2> $LOCAL/why; grep -i 'not supported' $LOCAL/why; cat f | grep -x x; touch new; cat new");
    let metadata = server.objects().head("f").expect("the object").metadata;
    assert!(metadata.is_empty(), "{metadata:?}");
}

#[test]
fn basic_can_ignore_changes_instead() {
    let server = TestServer::start();
    let mount = server.mount_with(&["metadata=basic", "setattr=ignore"]);
    mount.sh("echo x > f; chmod 600 f; touch -d @5 f; cp -a f g; tar -cf t.tar f; rm f; tar -xf t.tar");
    assert_eq!(mount.sh("stat -c %a f"), "644");
    assert_eq!(server.objects().head("f").expect("the object").metadata.len(), 0);
}

#[test]
fn masks_and_owner_apply_to_objects_without_metadata() {
    let server = TestServer::start();
    server.objects().put("d/f", "x");
    let mount = server.mount_with(&["uid=1234", "gid=2345", "fmask=137", "dmask=027", "allow_other"]);
    assert_eq!(mount.sh("stat -c '%a %u %g' d d/f"), "750 1234 2345\n640 1234 2345");
}

#[test]
fn chmod_keeps_what_other_tools_stored() {
    let server = TestServer::start();
    server.objects().put_with("f", "bytes", &[("team", "blue")]);
    let mount = server.mount();
    mount.sh("chmod 600 f");
    let head = server.objects().head("f").expect("the object");
    assert_eq!(head.metadata.get("team").map(String::as_str), Some("blue"));
    assert_eq!(server.objects().text("f"), "bytes");
}

#[test]
fn a_change_of_mode_by_another_mount_is_seen() {
    let server = TestServer::start();
    let (one, two) = (server.mount(), server.mount_with(&["acregmax=1", "acregmin=1"]));
    one.sh("echo x > f");
    eventually("the file is there", || two.path("f").exists());
    one.sh("chmod 600 f");
    eventually("the mode is seen", || std::fs::metadata(two.path("f")).is_ok_and(|stat| stat.mode() & 0o777 == 0o600));
}

#[test]
fn tags_of_an_object_survive_a_rewrite() {
    let server = TestServer::start();
    let tags = [("team", "blue + green"), ("stage", "test=1")];
    let owned = tags.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for name in ["appended", "renamed", "chmodded", "truncated", "large"] {
        let size = if name == "large" { 20 << 20 } else { 5 };
        server.objects().put(name, vec![b'x'; size]);
        server.objects().tag(name, &tags);
    }
    let mount = server.mount();
    mount.sh("echo more >> appended; mv renamed moved; chmod 600 chmodded; echo new > truncated; echo more >> large");
    for name in ["appended", "moved", "chmodded", "truncated", "large"] {
        let mut found = server.objects().tags(name);
        found.sort_by_key(|(name, _)| name != "team");
        assert_eq!(found, owned, "{name}");
    }
    assert_eq!(server.objects().text("appended"), "xxxxxmore\n");
    assert_eq!(server.objects().head("large").expect("the object").size, (20 << 20) + 5);
}

#[test]
fn the_encryption_of_an_object_survives_a_rewrite() {
    // Other servers know no such key.
    let Some(server) = TestServer::with(&[Capability::Simulation]) else { return };
    for name in ["appended", "renamed", "chmodded", "d/moved", "large"] {
        let size = if name == "large" { 20 << 20 } else { 5 };
        server.objects().put_encrypted(name, vec![b'x'; size], "a-key");
    }
    let mount = server.mount();
    mount.sh("echo more >> appended; mv renamed moved; chmod 600 chmodded; mv d e; echo more >> large");
    for name in ["appended", "moved", "chmodded", "e/moved", "large"] {
        let head = server.objects().head(name).expect("the object");
        assert_eq!(head.kms_key.as_deref(), Some("a-key"), "{name}");
    }
}
