//! What options become, alone and together.

use super::*;
use crate::config::EncryptionPolicy;

fn config(list: &str) -> Result<Config, UsageError> {
    let mut given = Given::new(false, None);
    given.list(list)?;
    given.config("s3://bucket/p", Path::new("/mnt"))
}

fn good(list: &str) -> Config {
    config(list).unwrap_or_else(|e| panic!("{list}: {e}"))
}

fn refused(list: &str) -> String {
    config(list).map(|_| ()).expect_err(list).to_string()
}

#[test]
fn without_options_the_defaults_of_the_table_hold() {
    let config = good("");
    assert_eq!(config.fs.freshness, Freshness::default());
    assert_eq!((config.fs.fmask, config.fs.dmask), (0o022, 0o022));
    assert_eq!((config.fs.metadata, config.fs.setattr), (MetadataMode::Posix, SetattrPolicy::Refuse));
    assert_eq!((config.fs.conflict, config.fs.rename_dir_limit), (ConflictPolicy::Fail, 100_000));
    assert_eq!((config.fs.transfer.part_size, config.fs.transfer.concurrency), (8 << 20, 8));
    assert_eq!((config.store.path_style, config.log.filter, config.audience), (None, None, Audience::Owner));
    assert_eq!(config.drain_timeout, Duration::from_secs(75));
    assert!(!config.fs.read_only && !config.foreground && !config.nonempty);
}

#[test]
fn what_the_mount_helper_hands_on_is_accepted() {
    let config = good("rw,noexec,nodev,nosuid,relatime,allow_other,uid=5,_netdev,nofail,user,x-a=1,comment=x");
    assert_eq!((config.audience, config.fs.uid), (Audience::Everyone, 5));
    assert!(config.kernel.names().contains(&"noexec"));
}

#[test]
fn the_last_of_ro_and_rw_wins() {
    for (list, read_only) in [("ro", true), ("ro,rw", false), ("rw,ro", true), ("ro=false", false)] {
        let config = good(list);
        assert_eq!((config.fs.read_only, config.kernel.read_only()), (read_only, read_only), "{list}");
    }
}

#[test]
fn a_mask_of_its_own_wins_over_umask_in_any_order() {
    for list in ["umask=077,fmask=0177", "fmask=0177,umask=077"] {
        let fs = good(list).fs;
        assert_eq!((fs.fmask, fs.dmask), (0o177, 0o077), "{list}");
    }
}

#[test]
fn commit_modes_have_their_words() {
    assert_eq!(good("ro").fs.commit, CommitMode::Close);
    assert_eq!(good("commit=close").fs.commit, CommitMode::Close);
    assert_eq!(good("commit=async").fs.commit, CommitMode::Async);
    assert!(refused("commit=never").contains("async"));
}

#[test]
fn checksums_have_their_words() {
    for (list, policy) in [
        ("ro", ChecksumPolicy::Auto),
        ("checksum=auto", ChecksumPolicy::Auto),
        ("checksum=crc64nvme", ChecksumPolicy::Named(ChecksumAlgorithm::Crc64Nvme)),
        ("checksum=CRC32C", ChecksumPolicy::Named(ChecksumAlgorithm::Crc32c)),
        ("checksum=sha256", ChecksumPolicy::Named(ChecksumAlgorithm::Sha256)),
        ("checksum=off", ChecksumPolicy::Off),
    ] {
        assert_eq!(good(list).store.checksum, policy, "{list}");
    }
    let sentence = "option checksum is one of auto, crc64nvme, crc32c, sha256, off, not 'md5'";
    assert_eq!(refused("checksum=md5"), sentence);
}

#[test]
fn encryptions_have_their_words() {
    let managed = |algorithm, key: Option<&str>| EncryptionPolicy::Managed { algorithm, key: key.map(str::to_owned) };
    for (list, policy) in [
        ("ro", EncryptionPolicy::Bucket),
        ("sse=bucket", EncryptionPolicy::Bucket),
        ("sse=aes256", managed("AES256", None)),
        ("sse=aws:kms", managed("aws:kms", None)),
        ("sse=aws:kms:dsse,sse_kms_key_id=alias/k", managed("aws:kms:dsse", Some("alias/k"))),
        ("sse_c_key_file=/k", EncryptionPolicy::CustomerKey("/k".into())),
    ] {
        assert_eq!(good(list).store.encryption, policy, "{list}");
    }
    assert!(refused("sse=rot13").contains("aws:kms"));
    for list in ["sse_kms_key_id=k", "sse=AES256,sse_kms_key_id=k"] {
        assert!(refused(list).contains("sse_kms_key_id needs sse=aws:kms"), "{list}");
    }
    assert!(refused("sse_c_key_file=/k,sse=AES256").contains("contradicts sse"));
}

#[test]
fn conflict_policies_have_their_words() {
    for (word, policy) in [
        ("fail", ConflictPolicy::Fail),
        ("keep-both", ConflictPolicy::KeepBoth),
        ("overwrite", ConflictPolicy::Overwrite),
    ] {
        assert_eq!(good(&format!("conflict={word}")).fs.conflict, policy);
    }
    assert!(refused("conflict=win").contains("keep-both"));
}

#[test]
fn freshness_follows_nfs() {
    let times = |list: &str| {
        let f = good(list).fs.freshness;
        [f.file_min, f.file_max, f.dir_min, f.dir_max, f.negative].map(|time| time.as_secs())
    };
    assert_eq!(times("actimeo=10"), [10, 10, 10, 10, 3]);
    assert_eq!(times("acregmax=20,actimeo=10"), [10, 20, 10, 10, 3]);
    assert_eq!(times("acregmin=120"), [120, 120, 3, 60, 3]);
    assert_eq!(times("acdirmax=1"), [3, 60, 1, 1, 3]);
    assert_eq!(times("noac"), [0, 0, 0, 0, 0]);
    assert!(refused("acregmin=9,acregmax=8").contains("acregmin (9 s) is more than acregmax (8 s)"));
    assert!(refused("noac,actimeo=1").contains("contradicts"));
}

#[test]
fn contradictions_and_unknown_options_are_refused_with_a_way_out() {
    assert!(refused("remount,rw").contains("unmount and mount again"));
    assert!(refused("allow_other,allow_root").contains("leave allow_root out"));
    assert_eq!(refused("regoin=x"), "unknown option 'regoin'; did you mean 'region'?");
    assert!(refused("frobnicate").contains("pailfs help mount"));
    assert!(refused("noatime=3").contains("unknown option"));
    assert!(refused("no_sign_request,profile=x").contains("leave profile out"));
    assert!(refused("storage_class=a/b").contains("storage_class"));
}

#[test]
fn sloppy_ignores_what_is_unknown_but_not_what_is_wrong() {
    let mut given = Given::new(true, None);
    given.list("frobnicate=1,ro").expect("ignored");
    assert!(given.list("part_size=1").is_err());
    assert!(given.config("s3://bucket", Path::new("/mnt")).expect("a config").fs.read_only);
}

#[test]
fn limits_of_the_cache_need_its_directory() {
    assert_eq!(good("").cache, None);
    let cache = good("cache_dir=/c,cache_limit=1G,cache_min_free=0").cache.expect("a cache");
    assert_eq!((cache.dir, cache.limit, cache.min_free), ("/c".into(), 1 << 30, 0));
    let defaults = good("cache_dir=/c").cache.expect("a cache");
    assert_eq!((defaults.limit, defaults.min_free), (10 << 30, 1 << 30));
    assert!(refused("cache_limit=1G").contains("cache_limit needs cache_dir"));
    assert!(refused("cache_min_free=1G").contains("cache_min_free needs cache_dir"));
}

#[test]
fn limits_of_the_stage_are_none_and_its_own_unless_they_are_given() {
    let limits = |list| {
        let stage = good(list).stage;
        (stage.limit, stage.min_free)
    };
    assert_eq!(limits(""), (None, None));
    assert_eq!(limits("stage_limit=2G,stage_min_free=0"), (Some(2 << 30), Some(0)));
    assert!(refused("stage_limit=1").contains("stage_limit is from 1MiB"));
}

#[test]
fn the_identity_tells_endpoints_buckets_and_prefixes_apart() {
    let identities = ["", "endpoint_url=http://h:1", "endpoint_url=http://h:2"].map(|list| good(list).identity());
    assert_eq!(identities[0], "aws s3://bucket/p/");
    assert_eq!(identities[1], "http://h:1 s3://bucket/p/");
    assert_ne!(identities[1], identities[2]);
}
