//! Listings over HTTP: pages, delimiters, odd keys, and the size of a bucket that must not matter.

use super::*;
use aws_sdk_s3::types::EncodingType;
use std::time::{Duration, Instant};

/// What a listing shows, keys first, with `>` behind a common prefix.
async fn list(f: &Fixture, prefix: &str, delimiter: Option<&str>, max: i32) -> Vec<String> {
    let (mut found, mut token) = (Vec::new(), None);
    loop {
        let page = f.client.list_objects_v2().bucket(BUCKET).prefix(prefix).max_keys(max);
        let page = page.set_delimiter(delimiter.map(str::to_owned)).encoding_type(EncodingType::Url);
        let page = page.set_continuation_token(token).send().await.expect("list");
        assert_eq!(page.key_count(), Some((page.contents().len() + page.common_prefixes().len()) as i32));
        found.extend(page.contents().iter().filter_map(|object| object.key()).map(decoded));
        found.extend(page.common_prefixes().iter().filter_map(|p| p.prefix()).map(|p| decoded(p) + ">"));
        token = page.next_continuation_token;
        if page.is_truncated != Some(true) {
            assert_eq!(token, None);
            return found;
        }
    }
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8().expect("UTF-8").into_owned()
}

#[tokio::test]
async fn odd_keys_are_put_listed_and_got_as_they_are() {
    let f = fixture();
    let long = format!("l/{}", "n".repeat(1000));
    let mut keys = [
        "a",
        "a/b",
        "a//b",
        "a/",
        "/a",
        "./x",
        "../x",
        "x/..",
        "x/./y",
        "new\nline",
        "bell\u{7}",
        "tab\t",
        "a b",
        "a+b",
        "a%20b",
        "ü",
        "u\u{308}",
        "日本/語",
        "\u{1f600}",
        "q?x=1",
        "h#x",
        "amp&<>\"'",
        "back\\slash",
        "*",
        "~",
        &long,
    ];
    for key in keys {
        f.client.put_object().bucket(BUCKET).key(key).body(key.as_bytes().to_vec().into()).send().await.expect(key);
    }
    keys.sort_unstable();
    assert_eq!(f.bucket.keys(), keys);
    assert_eq!(list(&f, "", None, 1000).await, keys);
    assert_eq!(list(&f, "", None, 3).await, keys);
    for key in keys {
        let got = f.client.get_object().bucket(BUCKET).key(key).send().await.expect(key);
        assert_eq!(bytes(got).await, key.as_bytes());
        f.client.delete_object().bucket(BUCKET).key(key).send().await.expect(key);
    }
    assert!(f.bucket.keys().is_empty());
}

#[tokio::test]
async fn a_directory_is_listed_beside_the_file_of_its_name() {
    let f = fixture();
    for key in ["a", "a/b", "a/c/d", "a//e", "a0", "dir/"] {
        f.bucket.put(key, "x");
    }
    for max in [1, 2, 1000] {
        let mut top = list(&f, "", Some("/"), max).await;
        top.sort_unstable();
        assert_eq!(top, ["a", "a/>", "a0", "dir/>"], "pages of {max}");
        let mut inside = list(&f, "a/", Some("/"), max).await;
        inside.sort_unstable();
        assert_eq!(inside, ["a//>", "a/b", "a/c/>"], "pages of {max}");
        assert_eq!(list(&f, "dir/", Some("/"), max).await, ["dir/"]);
        assert!(list(&f, "none/", Some("/"), max).await.is_empty());
    }
    let head = f.client.head_object().bucket(BUCKET).key("dir").send().await;
    assert_eq!(refusal(head).0, 404, "only what is below it is there");
}

#[tokio::test]
async fn a_listing_starts_behind_a_key_and_may_be_empty() {
    let f = fixture();
    for key in ["a", "b", "c"] {
        f.bucket.put(key, "x");
    }
    let list = || f.client.list_objects_v2().bucket(BUCKET);
    let page = list().start_after("a").send().await.expect("list");
    assert_eq!(page.contents().iter().filter_map(|o| o.key()).collect::<Vec<_>>(), ["b", "c"]);
    let none = list().max_keys(0).send().await.expect("list");
    assert_eq!((none.key_count(), none.is_truncated()), (Some(0), Some(false)));
    assert_eq!(refusal(list().continuation_token("?").send().await), refused(400, "InvalidArgument"));
    let nowhere = f.client.list_objects_v2().bucket("no-such-bucket").send().await;
    assert_eq!(refusal(nowhere), refused(404, "NoSuchBucket"));
}

#[tokio::test]
async fn an_entry_says_what_head_says() {
    let f = fixture();
    f.bucket.put("k", pattern(5));
    let page = f.client.list_objects_v2().bucket(BUCKET).send().await.expect("list");
    let [entry] = page.contents() else { panic!("{} entries", page.contents().len()) };
    let head = f.client.head_object().bucket(BUCKET).key("k").send().await.expect("head");
    assert_eq!((entry.e_tag(), entry.size()), (head.e_tag(), head.content_length()));
    assert_eq!(entry.last_modified(), head.last_modified());
    assert_eq!(entry.storage_class().map(|class| class.as_str()), Some("STANDARD"));
}

#[tokio::test]
async fn the_first_version_of_the_listing_pages_by_marker() {
    let f = fixture();
    for key in ["a/1", "a/2", "b", "c/1", "d"] {
        f.bucket.put(key, "x");
    }
    let (mut found, mut marker) = (Vec::new(), None);
    loop {
        let page = f.client.list_objects().bucket(BUCKET).delimiter("/").max_keys(1).set_marker(marker);
        let page = page.send().await.expect("list");
        found.extend(page.contents().iter().filter_map(|o| o.key().map(str::to_owned)));
        found.extend(page.common_prefixes().iter().filter_map(|p| p.prefix().map(|p| format!("{p}>"))));
        marker = page.next_marker;
        if page.is_truncated != Some(true) {
            break;
        }
    }
    assert_eq!(found, ["a/>", "b", "c/>", "d"]);
}

#[tokio::test]
async fn the_size_of_a_bucket_costs_nothing_behind_a_common_prefix() {
    let f = fixture();
    for i in 0..100_000 {
        f.bucket.put(&format!("big/{i:06}"), "");
    }
    f.bucket.put("last", "");
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(list(&f, "", Some("/"), 1000).await, ["last", "big/>"]);
    }
    let rolled_up = start.elapsed();
    let start = Instant::now();
    assert_eq!(list(&f, "big/", Some("/"), 1000).await.len(), 100_000);
    let all = start.elapsed();
    assert!(rolled_up < all, "twenty times two entries took {rolled_up:?}, all keys once {all:?}");
    assert!(all < Duration::from_secs(60), "100 pages took {all:?}");
}
