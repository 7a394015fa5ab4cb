//! Whole objects: reads, writes, conditions, checksums, copies, tags, limits.

use super::*;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, Delete, MetadataDirective, ObjectIdentifier, StorageClass, Tag, Tagging,
};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

#[tokio::test]
async fn what_is_put_is_what_is_got() {
    let f = fixture();
    let data = pattern(3_000_000);
    let put = f.client.put_object().bucket(BUCKET).key("a/b c+é").metadata("colour", "blue").content_type("text/x");
    let put = put.body(data.clone().into()).send().await.expect("put");
    let got = f.client.get_object().bucket(BUCKET).key("a/b c+é").send().await.expect("get");
    assert_eq!(got.e_tag(), put.e_tag());
    assert_eq!(got.content_type(), Some("text/x"));
    assert_eq!(got.metadata().and_then(|m| m.get("colour")).map(String::as_str), Some("blue"));
    assert_eq!(got.content_length(), Some(3_000_000));
    assert!(got.storage_class().is_none(), "S3 leaves the default class out");
    assert_eq!(bytes(got).await, data);
    assert_eq!(f.bucket.get("a/b c+é").expect("stored").body, data);
}

#[tokio::test]
async fn a_stream_is_stored_without_its_framing() {
    let f = fixture();
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), pattern(2_000_000)).expect("write");
    let body = ByteStream::from_path(file.path()).await.expect("stream");
    f.client.put_object().bucket(BUCKET).key("k").body(body).send().await.expect("put");
    let stored = f.bucket.get("k").expect("stored");
    assert_eq!(stored.body, pattern(2_000_000));
    assert_eq!(stored.content_encoding, None);
    assert_eq!(stored.checksum.map(|(name, _)| name), Some("CRC32"), "the trailer's sum is kept");
}

#[tokio::test]
async fn only_the_right_keys_get_in() {
    let f = fixture();
    let get = |client: Client| async move { refusal(client.get_object().bucket(BUCKET).key("k").send().await) };
    assert_eq!(get(client(&f.server, "nobody", "demo-secret")).await, refused(403, "InvalidAccessKeyId"));
    assert_eq!(get(client(&f.server, "demo", "wrong")).await, refused(403, "SignatureDoesNotMatch"));
    assert_eq!(get(f.client.clone()).await, refused(404, "NoSuchKey"));
    let anonymous = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(f.server.endpoint())
        .force_path_style(true)
        .allow_no_auth();
    assert_eq!(get(Client::from_conf(anonymous.build())).await, refused(403, "AccessDenied"));
}

#[tokio::test]
async fn ranges_are_cut_at_the_end_and_refused_behind_it() {
    let f = fixture();
    f.bucket.put("k", pattern(1000));
    f.bucket.put("empty", "");
    let get =
        |key: &'static str, range: &'static str| f.client.get_object().bucket(BUCKET).key(key).range(range).send();
    for (range, expected, header) in [
        ("bytes=0-9", 0..10, "bytes 0-9/1000"),
        ("bytes=990-2000", 990..1000, "bytes 990-999/1000"),
        ("bytes=500-", 500..1000, "bytes 500-999/1000"),
        ("bytes=-10", 990..1000, "bytes 990-999/1000"),
        ("bytes=-5000", 0..1000, "bytes 0-999/1000"),
    ] {
        let got = get("k", range).await.expect(range);
        assert_eq!(got.content_range(), Some(header));
        assert_eq!(bytes(got).await, pattern(1000)[expected], "{range}");
    }
    assert_eq!(refusal(get("k", "bytes=1000-").await), refused(416, "InvalidRange"));
    assert_eq!(refusal(get("empty", "bytes=0-0").await), refused(416, "InvalidRange"));
    assert_eq!(refusal(get("empty", "bytes=-1").await), refused(416, "InvalidRange"));
    assert_eq!(bytes(f.client.get_object().bucket(BUCKET).key("empty").send().await.expect("get")).await, b"");
}

#[tokio::test]
async fn reads_are_conditional_on_etag_and_time() {
    let f = fixture();
    f.bucket.put("k", "data");
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    f.bucket.set_modified("k", then);
    let etag = format!("\"{}\"", f.bucket.get("k").expect("stored").etag);
    let get = || f.client.get_object().bucket(BUCKET).key("k");
    let head = || f.client.head_object().bucket(BUCKET).key("k");
    let (at, before) = (DateTime::from_secs(1_700_000_000), DateTime::from_secs(1_699_999_999));

    assert_eq!(bytes(get().if_match(&etag).send().await.expect("get")).await, b"data");
    assert_eq!(refusal(get().if_match("\"0\"").send().await), refused(412, "PreconditionFailed"));
    assert_eq!(refusal(get().if_none_match(&etag).send().await).0, 304);
    assert_eq!(refusal(head().if_none_match(&etag).send().await).0, 304);
    assert_eq!(refusal(head().if_match("\"0\"").send().await).0, 412);
    assert!(get().if_none_match("\"0\"").send().await.is_ok());
    assert_eq!(refusal(get().if_modified_since(at).send().await).0, 304);
    assert!(get().if_modified_since(before).send().await.is_ok());
    assert_eq!(refusal(get().if_unmodified_since(before).send().await).0, 412);
    assert!(get().if_unmodified_since(at).send().await.is_ok());
    assert!(get().if_match(&etag).if_unmodified_since(before).send().await.is_ok(), "the ETag decides");
}

#[tokio::test]
async fn of_sixteen_creators_one_wins() {
    let f = fixture();
    for round in 0..8 {
        let key = format!("race-{round}");
        let creators: Vec<_> = (0..16)
            .map(|i| {
                let put = f.client.put_object().bucket(BUCKET).key(&key).if_none_match("*");
                tokio::spawn(put.body(vec![i; 20_000].into()).send())
            })
            .collect();
        let mut winners = Vec::new();
        for (i, creator) in creators.into_iter().enumerate() {
            match creator.await.expect("task") {
                Ok(_) => winners.push(i as u8),
                lost => assert_eq!(refusal(lost), refused(412, "PreconditionFailed")),
            }
        }
        let [winner] = winners[..] else { panic!("{} winners", winners.len()) };
        assert_eq!(f.bucket.get(&key).expect("stored").body, vec![winner; 20_000]);
    }
}

#[tokio::test]
async fn no_update_is_lost_among_writers_that_compare() {
    let f = fixture();
    f.bucket.put("n", "0");
    let writers = (0..8).map(|_| {
        let client = f.client.clone();
        tokio::spawn(async move {
            let mut written = 0;
            while written < 5 {
                let got = client.get_object().bucket(BUCKET).key("n").send().await.expect("get");
                let etag = got.e_tag().expect("etag").to_owned();
                let n: u64 = String::from_utf8(bytes(got).await).expect("text").parse().expect("number");
                let put = client.put_object().bucket(BUCKET).key("n").if_match(etag);
                written += u64::from(put.body((n + 1).to_string().into_bytes().into()).send().await.is_ok());
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("task");
    }
    assert_eq!(f.bucket.get("n").expect("stored").body, "40");
}

#[tokio::test]
async fn a_write_over_what_is_not_there_finds_no_key() {
    let f = fixture();
    let put = f.client.put_object().bucket(BUCKET).key("k").if_match("\"0\"").body("x".to_owned().into_bytes().into());
    assert_eq!(refusal(put.send().await), refused(404, "NoSuchKey"));
    assert!(f.bucket.keys().is_empty());
    let elsewhere = f.client.put_object().bucket("no-such-bucket").key("k").send().await;
    assert_eq!(refusal(elsewhere), refused(404, "NoSuchBucket"));
}

#[tokio::test]
async fn a_delete_is_conditional_and_a_missing_key_is_no_error() {
    let f = fixture();
    f.bucket.put("k", "x");
    let delete = || f.client.delete_object().bucket(BUCKET).key("k");
    assert_eq!(refusal(delete().if_match("\"0\"").send().await), refused(412, "PreconditionFailed"));
    assert_eq!(f.bucket.keys(), ["k"]);
    let etag = format!("\"{}\"", f.bucket.get("k").expect("stored").etag);
    delete().if_match(etag).send().await.expect("delete");
    assert!(f.bucket.keys().is_empty());
    delete().send().await.expect("a missing key is deleted, too");
}

#[tokio::test]
async fn a_batch_deletes_what_it_may_and_tells_the_rest() {
    let f = fixture();
    for key in ["a", "b", "c", "secret/d"] {
        f.bucket.put(key, key.to_owned());
    }
    f.server.deny(None, "secret/");
    let object = |key: &str| ObjectIdentifier::builder().key(key);
    let delete = Delete::builder()
        .objects(object("a").build().expect("key"))
        .objects(object("b").e_tag("\"0\"").build().expect("key"))
        .objects(object("missing").build().expect("key"))
        .objects(object("secret/d").build().expect("key"))
        .build()
        .expect("delete");
    let output = f.client.delete_objects().bucket(BUCKET).delete(delete).send().await.expect("batch");
    let errors: Vec<_> = output.errors().iter().map(|e| (e.key().unwrap_or(""), e.code().unwrap_or(""))).collect();
    assert_eq!(errors, [("b", "PreconditionFailed"), ("secret/d", "AccessDenied")]);
    assert_eq!(output.deleted().len(), 2);
    assert_eq!(f.bucket.keys(), ["b", "c", "secret/d"]);
}

#[tokio::test]
async fn each_checksum_is_kept_and_given_back() {
    let f = fixture();
    for algorithm in ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"] {
        let algorithm = ChecksumAlgorithm::from(algorithm);
        let put = f.client.put_object().bucket(BUCKET).key("k").checksum_algorithm(algorithm.clone());
        put.body(pattern(100_000).into()).send().await.expect("put");
        let (name, sum) = f.bucket.get("k").expect("stored").checksum.expect("sum");
        assert_eq!(name, algorithm.as_str());
        let head = f.client.head_object().bucket(BUCKET).key("k").checksum_mode(ChecksumMode::Enabled);
        let head = head.send().await.expect("head");
        let sums = [
            head.checksum_crc32(),
            head.checksum_crc32_c(),
            head.checksum_crc64_nvme(),
            head.checksum_sha1(),
            head.checksum_sha256(),
        ];
        assert_eq!(sums.into_iter().flatten().collect::<Vec<_>>(), [sum.as_str()], "{name}");
        let got = f.client.get_object().bucket(BUCKET).key("k").send().await.expect("get");
        assert_eq!(bytes(got).await, pattern(100_000), "{name}: the SDK compares the sum");
    }
    let silent = f.client.head_object().bucket(BUCKET).key("k").send().await.expect("head");
    assert_eq!(silent.checksum_sha256(), None, "sums are given to those who ask");
}

#[tokio::test]
async fn a_body_of_another_sum_is_not_published() {
    let f = fixture();
    f.bucket.put("k", "old");
    let put = || f.client.put_object().bucket(BUCKET).key("k").body("new".to_owned().into_bytes().into());
    assert_eq!(refusal(put().checksum_crc32("AAAAAA==").send().await), refused(400, "BadDigest"));
    assert_eq!(refusal(put().checksum_crc64_nvme("AAAAAAAAAAA=").send().await), refused(400, "BadDigest"));
    assert_eq!(refusal(put().content_md5("1B2M2Y8AsgTpgAmY7PhCfg==").send().await), refused(400, "BadDigest"));
    assert_eq!(f.bucket.get("k").expect("stored").body, "old");
    put().checksum_crc32("+w4O8A==").send().await.expect_err("a sum that is well formed and wrong");
    assert_eq!(f.bucket.get("k").expect("stored").body, "old");
}

#[tokio::test]
async fn a_copy_keeps_or_replaces_what_stands_beside_the_bytes() {
    let f = fixture();
    f.bucket.put_with("a b+c", "data", [("colour".to_owned(), "blue".to_owned())].into());
    let source = format!("{BUCKET}/a%20b%2Bc");
    let copy = |key: &str| f.client.copy_object().bucket(BUCKET).key(key).copy_source(&source);
    copy("kept").send().await.expect("copy");
    assert_eq!(f.bucket.get("kept").expect("copy").metadata["colour"], "blue");
    let replace =
        copy("new").metadata_directive(MetadataDirective::Replace).metadata("size", "big").content_type("t/t");
    replace.send().await.expect("copy");
    let new = f.bucket.get("new").expect("copy");
    assert_eq!((new.metadata.get("colour"), new.content_type.as_deref()), (None, Some("t/t")));
    assert_eq!(new.etag, f.bucket.get("a b+c").expect("source").etag);
    assert_eq!(new.body, "data");

    assert_eq!(refusal(copy("a b+c").send().await), refused(400, "InvalidRequest"));
    copy("a b+c").metadata_directive(MetadataDirective::Replace).send().await.expect("a copy onto itself that changes");
    copy("a b+c").storage_class(StorageClass::StandardIa).send().await.expect("another class");
    assert_eq!(f.bucket.get("a b+c").expect("stored").storage_class, "STANDARD_IA");
}

#[tokio::test]
async fn a_copy_is_conditional_on_both_ends() {
    let f = fixture();
    f.bucket.put("a", "data");
    f.bucket.put("b", "there");
    let source = format!("\"{}\"", f.bucket.get("a").expect("stored").etag);
    let target = format!("\"{}\"", f.bucket.get("b").expect("stored").etag);
    let copy = |key: &str| f.client.copy_object().bucket(BUCKET).key(key).copy_source(format!("{BUCKET}/a"));
    let failed = refused(412, "PreconditionFailed");
    assert_eq!(refusal(copy("c").copy_source_if_match("\"0\"").send().await), failed);
    assert_eq!(refusal(copy("c").copy_source_if_none_match(&source).send().await), failed);
    assert_eq!(refusal(copy("b").if_none_match("*").send().await), failed);
    assert_eq!(refusal(copy("b").if_match("\"0\"").send().await), failed);
    assert_eq!(f.bucket.get("b").expect("stored").body, "there");
    copy("c").copy_source_if_match(&source).if_none_match("*").send().await.expect("a new name");
    copy("b").if_match(target).send().await.expect("over the version it knows");
    assert_eq!(f.bucket.get("b").expect("stored").body, "data");
    let missing = f.client.copy_object().bucket(BUCKET).key("c").copy_source(format!("{BUCKET}/missing")).send().await;
    assert_eq!(refusal(missing), refused(404, "NoSuchKey"));
}

#[tokio::test]
async fn an_archived_object_is_seen_but_not_read_until_it_is_restored() {
    let f = fixture();
    f.bucket.put("k", "cold");
    f.bucket.archive("k");
    let head = f.client.head_object().bucket(BUCKET).key("k").send().await.expect("head");
    assert_eq!(head.storage_class(), Some(&StorageClass::Glacier));
    let get = || f.client.get_object().bucket(BUCKET).key("k").send();
    assert_eq!(refusal(get().await), refused(403, "InvalidObjectState"));
    f.client.restore_object().bucket(BUCKET).key("k").send().await.expect("restore");
    assert_eq!(bytes(get().await.expect("get")).await, b"cold");
}

#[tokio::test]
async fn tags_stay_with_the_object() {
    let f = fixture();
    f.client.put_object().bucket(BUCKET).key("k").tagging("a=1&b=two%20words").send().await.expect("put");
    let tags = || async {
        let output = f.client.get_object_tagging().bucket(BUCKET).key("k").send().await.expect("tags");
        output.tag_set().iter().map(|t| format!("{}={}", t.key(), t.value())).collect::<Vec<_>>()
    };
    assert_eq!(tags().await, ["a=1", "b=two words"]);
    let tag = Tag::builder().key("c").value("3").build().expect("tag");
    let tagging = Tagging::builder().tag_set(tag).build().expect("tagging");
    f.client.put_object_tagging().bucket(BUCKET).key("k").tagging(tagging).send().await.expect("tag");
    assert_eq!(tags().await, ["c=3"]);
    f.client.delete_object_tagging().bucket(BUCKET).key("k").send().await.expect("untag");
    assert!(tags().await.is_empty());
}

#[tokio::test]
async fn keys_and_metadata_have_limits() {
    let f = fixture();
    let put = |key: String| f.client.put_object().bucket(BUCKET).key(key);
    put("k".repeat(1024)).send().await.expect("1024 bytes");
    assert_eq!(refusal(put("k".repeat(1025)).send().await), refused(400, "KeyTooLongError"));
    put("m".into()).metadata("m", "x".repeat(2047)).send().await.expect("2048 bytes");
    assert_eq!(refusal(put("m".into()).metadata("m", "x".repeat(2048)).send().await), refused(400, "MetadataTooLarge"));
}

#[tokio::test]
async fn buckets_come_and_go() {
    let f = fixture();
    f.client.create_bucket().bucket("other").send().await.expect("create");
    let listed = f.client.list_buckets().send().await.expect("list");
    assert_eq!(listed.buckets().iter().filter_map(|b| b.name()).collect::<Vec<_>>(), ["other", BUCKET]);
    let head = f.client.head_bucket().bucket("other").send().await.expect("head");
    assert_eq!(head.bucket_region(), Some("us-east-1"));
    f.server.bucket("other").put("k", "x");
    assert_eq!(refusal(f.client.delete_bucket().bucket("other").send().await), refused(409, "BucketNotEmpty"));
    f.server.bucket("other").delete("k");
    f.client.delete_bucket().bucket("other").send().await.expect("delete");
    assert_eq!(refusal(f.client.head_bucket().bucket("other").send().await).0, 404);
}

#[tokio::test]
async fn opaque_etags_tell_versions_apart_and_nothing_of_their_bytes() {
    let f = fixture_with(ServerOptions { opaque_etags: true, ..ServerOptions::default() });
    let mut etags = BTreeSet::new();
    for _ in 0..2 {
        let put = f.client.put_object().bucket(BUCKET).key("same").body(ByteStream::from_static(b"same"));
        etags.insert(put.send().await.expect("put").e_tag.expect("an ETag"));
    }
    f.bucket.put("same", "same");
    etags.insert(format!("\"{}\"", f.bucket.get("same").expect("stored").etag));
    assert_eq!(etags.len(), 3, "two versions have one ETag: {etags:?}");
    let wrong = f.client.put_object().bucket(BUCKET).key("same").body(ByteStream::from_static(b"same"));
    assert_eq!(refusal(wrong.content_md5("1B2M2Y8AsgTpgAmY7PhCfg==").send().await), refused(400, "BadDigest"));
}
