//! Multipart uploads: parts, sums, order, conditions, copies of ranges, listings.

use super::*;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart};

const MIB: usize = 1 << 20;

/// An open upload and the parts it has so far, as Complete wants them.
struct Upload<'a> {
    fixture: &'a Fixture,
    key: &'static str,
    id: String,
    parts: Vec<CompletedPart>,
}

impl<'a> Upload<'a> {
    async fn new(fixture: &'a Fixture, key: &'static str, algorithm: Option<ChecksumAlgorithm>) -> Self {
        let create = fixture.client.create_multipart_upload().bucket(BUCKET).key(key);
        let output = create.set_checksum_algorithm(algorithm).send().await.expect("create");
        Self { fixture, key, id: output.upload_id().expect("id").to_owned(), parts: Vec::new() }
    }

    async fn part(&mut self, number: i32, data: Vec<u8>, algorithm: Option<ChecksumAlgorithm>) {
        let part = self.fixture.client.upload_part().bucket(BUCKET).key(self.key).upload_id(&self.id);
        let part = part.part_number(number).body(data.into()).set_checksum_algorithm(algorithm);
        let output = part.send().await.expect("part");
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(output.e_tag)
            .set_checksum_crc32(output.checksum_crc32)
            .set_checksum_crc32_c(output.checksum_crc32_c)
            .set_checksum_crc64_nvme(output.checksum_crc64_nvme)
            .set_checksum_sha256(output.checksum_sha256);
        self.parts.push(part.build());
    }

    fn complete(
        &self,
        parts: Vec<CompletedPart>,
    ) -> aws_sdk_s3::operation::complete_multipart_upload::builders::CompleteMultipartUploadFluentBuilder {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = self.fixture.client.complete_multipart_upload().bucket(BUCKET).key(self.key);
        complete.upload_id(&self.id).multipart_upload(parts)
    }
}

fn bare(part: &CompletedPart) -> CompletedPart {
    CompletedPart::builder().set_part_number(part.part_number()).set_e_tag(part.e_tag.clone()).build()
}

#[tokio::test]
async fn parts_become_one_object_with_the_sum_of_its_bytes() {
    let f = fixture();
    let data = pattern(11 * MIB + 17);
    for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc64Nvme, ChecksumAlgorithm::Sha256] {
        let mut upload = Upload::new(&f, "big", Some(algorithm.clone())).await;
        // With gaps, out of order, and one part sent twice.
        upload.part(9, data[10 * MIB..].to_vec(), Some(algorithm.clone())).await;
        upload.part(2, vec![1; 10], Some(algorithm.clone())).await;
        upload.part(2, data[..5 * MIB].to_vec(), Some(algorithm.clone())).await;
        upload.part(5, data[5 * MIB..10 * MIB].to_vec(), Some(algorithm.clone())).await;
        assert_eq!(f.bucket.uploads(), [("big".to_owned(), upload.id.clone())]);
        let mut parts = upload.parts.split_off(2);
        parts.push(upload.parts.remove(0));
        let done = upload.complete(parts).send().await.expect("complete");
        assert!(done.e_tag().is_some_and(|etag| etag.ends_with("-3\"")), "{:?}", done.e_tag());
        assert!(f.bucket.uploads().is_empty());
        let stored = f.bucket.get("big").expect("stored");
        assert_eq!(stored.body, data);
        assert_eq!(stored.parts, [5 * MIB as u64, 5 * MIB as u64, MIB as u64 + 17]);
        let (name, sum) = stored.checksum.expect("sum");
        assert_eq!(name, algorithm.as_str());
        assert_eq!(sum.ends_with("-3"), algorithm != ChecksumAlgorithm::Crc64Nvme, "{sum}");
        let got = f.client.get_object().bucket(BUCKET).key("big").send().await.expect("get");
        assert_eq!(bytes(got).await, data, "the SDK compares a sum of the whole");
    }
}

#[tokio::test]
async fn sums_are_repeated_exactly_if_they_were_asked_for() {
    let f = fixture();
    let crc = Some(ChecksumAlgorithm::Crc32);
    let mut named = Upload::new(&f, "named", crc.clone()).await;
    named.part(1, pattern(100), crc.clone()).await;
    let silent = named.complete(vec![bare(&named.parts[0])]).send().await;
    assert_eq!(refusal(silent), refused(400, "InvalidPart"), "named at the start and not repeated");
    named.complete(named.parts.clone()).send().await.expect("repeated");

    let mut unnamed = Upload::new(&f, "unnamed", None).await;
    unnamed.part(1, pattern(100), crc).await;
    assert!(unnamed.parts[0].checksum_crc32().is_some());
    let repeated = unnamed.complete(unnamed.parts.clone()).send().await;
    assert_eq!(refusal(repeated), refused(400, "InvalidPart"), "not named at the start and repeated");
    unnamed.complete(vec![bare(&unnamed.parts[0])]).send().await.expect("left out");
    let (name, _) = f.bucket.get("unnamed").expect("stored").checksum.expect("sum");
    assert_eq!(name, "CRC64NVME", "what S3 computes by itself");
}

#[tokio::test]
async fn a_part_of_another_algorithm_is_refused() {
    let f = fixture();
    let upload = Upload::new(&f, "k", Some(ChecksumAlgorithm::Sha256)).await;
    let part = f.client.upload_part().bucket(BUCKET).key("k").upload_id(&upload.id).part_number(1);
    let part = part.checksum_algorithm(ChecksumAlgorithm::Crc32).body(pattern(10).into()).send().await;
    assert_eq!(refusal(part), refused(400, "InvalidRequest"));
    let full = f.client.create_multipart_upload().bucket(BUCKET).key("k").checksum_algorithm(ChecksumAlgorithm::Sha256);
    let full = full.checksum_type(ChecksumType::FullObject).send().await;
    assert_eq!(refusal(full), refused(400, "InvalidRequest"));
}

#[tokio::test]
async fn a_full_object_sum_of_crc32_is_the_sum_of_one_put() {
    let f = fixture();
    let data = pattern(6 * MIB);
    let create = f.client.create_multipart_upload().bucket(BUCKET).key("k");
    let create = create.checksum_algorithm(ChecksumAlgorithm::Crc32).checksum_type(ChecksumType::FullObject);
    let id = create.send().await.expect("create").upload_id.expect("id");
    let mut upload = Upload { fixture: &f, key: "k", id, parts: Vec::new() };
    upload.part(1, data[..5 * MIB].to_vec(), Some(ChecksumAlgorithm::Crc32)).await;
    upload.part(2, data[5 * MIB..].to_vec(), Some(ChecksumAlgorithm::Crc32)).await;
    let wrong = upload.complete(upload.parts.clone()).checksum_crc32("AAAAAA==").send().await;
    assert_eq!(refusal(wrong), refused(400, "BadDigest"));
    upload.complete(upload.parts.clone()).send().await.expect("complete");
    let put = f.client.put_object().bucket(BUCKET).key("one").body(data.into());
    let put = put.checksum_algorithm(ChecksumAlgorithm::Crc32).send().await.expect("put");
    let head = f.client.head_object().bucket(BUCKET).key("k").checksum_mode(ChecksumMode::Enabled);
    let head = head.send().await.expect("head");
    assert_eq!(head.checksum_crc32(), put.checksum_crc32());
    assert_eq!(head.checksum_type(), Some(&ChecksumType::FullObject));
}

#[tokio::test]
async fn what_can_not_be_completed_leaves_the_upload_open() {
    let f = fixture();
    let mut upload = Upload::new(&f, "k", None).await;
    upload.part(1, pattern(5 * MIB - 1), None).await;
    upload.part(2, pattern(10), None).await;
    let parts: Vec<_> = upload.parts.iter().map(bare).collect();
    let wrong = CompletedPart::builder().part_number(1).e_tag("\"0\"").build();
    let missing = CompletedPart::builder().part_number(7).set_e_tag(parts[0].e_tag.clone()).build();
    let complete = |parts: Vec<CompletedPart>| upload.complete(parts).send();
    assert_eq!(refusal(complete(parts.clone()).await), refused(400, "EntityTooSmall"));
    let turned: Vec<_> = parts.iter().cloned().rev().collect();
    assert_eq!(refusal(complete(turned).await), refused(400, "InvalidPartOrder"));
    assert_eq!(refusal(complete(vec![wrong]).await), refused(400, "InvalidPart"));
    assert_eq!(refusal(complete(vec![missing]).await), refused(400, "InvalidPart"));
    assert!(f.bucket.keys().is_empty());
    complete(vec![parts[1].clone()]).await.expect("a last part may be small");
    assert_eq!(f.bucket.get("k").expect("stored").body, pattern(10));
}

#[tokio::test]
async fn completing_is_conditional_and_can_be_repeated() {
    let f = fixture();
    f.bucket.put("k", "there");
    let mut upload = Upload::new(&f, "k", None).await;
    upload.part(1, pattern(10), None).await;
    let parts: Vec<_> = upload.parts.iter().map(bare).collect();
    let complete = || upload.complete(parts.clone());
    assert_eq!(refusal(complete().if_none_match("*").send().await), refused(412, "PreconditionFailed"));
    assert_eq!(refusal(complete().if_match("\"0\"").send().await), refused(412, "PreconditionFailed"));
    assert_eq!(f.bucket.get("k").expect("stored").body, "there");
    let etag = format!("\"{}\"", f.bucket.get("k").expect("stored").etag);
    let first = complete().if_match(etag).send().await.expect("complete");
    let again = complete().send().await.expect("complete again");
    assert_eq!(first.e_tag(), again.e_tag());
    assert_eq!(f.bucket.get("k").expect("stored").body, pattern(10));
}

#[tokio::test]
async fn an_aborted_upload_is_gone() {
    let f = fixture();
    let mut upload = Upload::new(&f, "k", None).await;
    upload.part(1, pattern(10), None).await;
    let abort = || f.client.abort_multipart_upload().bucket(BUCKET).key("k").upload_id(&upload.id).send();
    abort().await.expect("abort");
    assert_eq!(refusal(abort().await), refused(404, "NoSuchUpload"));
    let part = f.client.upload_part().bucket(BUCKET).key("k").upload_id(&upload.id).part_number(1).send().await;
    assert_eq!(refusal(part), refused(404, "NoSuchUpload"));
    let complete = upload.complete(vec![bare(&upload.parts[0])]).send().await;
    assert_eq!(refusal(complete), refused(404, "NoSuchUpload"));
    assert!(f.bucket.keys().is_empty());
}

#[tokio::test]
async fn ranges_of_an_object_are_parts_of_another() {
    let f = fixture();
    let data = pattern(12 * MIB);
    f.bucket.put("source", data.clone());
    let mut upload = Upload::new(&f, "k", Some(ChecksumAlgorithm::Crc64Nvme)).await;
    let copy = |number: i32, range: String| {
        let copy = f.client.upload_part_copy().bucket(BUCKET).key("k").upload_id(&upload.id).part_number(number);
        copy.copy_source(format!("{BUCKET}/source")).copy_source_range(range)
    };
    let last = data.len() - 1;
    let outside = copy(1, format!("bytes=0-{}", data.len())).send().await;
    assert_eq!(refusal(outside), refused(400, "InvalidArgument"));
    let stale = copy(1, "bytes=0-9".into()).copy_source_if_match("\"0\"").send().await;
    assert_eq!(refusal(stale), refused(412, "PreconditionFailed"));
    f.bucket.put("small", pattern(5 * MIB));
    let small = copy(1, "bytes=0-9".into()).copy_source(format!("{BUCKET}/small")).send().await;
    assert_eq!(refusal(small), refused(400, "InvalidRequest"));
    let copied = copy(1, format!("bytes={}-{last}", 6 * MIB)).send().await.expect("copy");
    let result = copied.copy_part_result().expect("result");
    let part = CompletedPart::builder().part_number(1).set_e_tag(result.e_tag.clone());
    let part = part.set_checksum_crc64_nvme(result.checksum_crc64_nvme.clone()).build();
    upload.part(2, b"and new bytes".to_vec(), Some(ChecksumAlgorithm::Crc64Nvme)).await;
    let parts = vec![part, upload.parts[0].clone()];
    upload.complete(parts).send().await.expect("complete");
    let expected = [&data[6 * MIB..], b"and new bytes"].concat();
    assert_eq!(f.bucket.get("k").expect("stored").body, expected);
    let got = f.client.get_object().bucket(BUCKET).key("k").send().await.expect("get");
    assert_eq!(bytes(got).await, expected, "the SDK compares the combined sum");

    let second = f.client.get_object().bucket(BUCKET).key("k").part_number(2).send().await.expect("get");
    assert_eq!(second.parts_count(), Some(2));
    assert_eq!(bytes(second).await, b"and new bytes");

    let whole = f.client.copy_object().bucket(BUCKET).key("whole").copy_source(format!("{BUCKET}/k"));
    let whole = whole.send().await.expect("copy").copy_object_result.expect("result");
    f.bucket.put("plain", expected);
    let plain = f.bucket.get("plain").expect("stored").etag;
    assert_eq!(whole.e_tag, Some(format!("\"{plain}\"")), "a copy has the plain sum");
}

#[tokio::test]
async fn parts_and_uploads_are_listed_page_by_page() {
    let f = fixture();
    let mut first = Upload::new(&f, "dir/a", None).await;
    for number in [3, 1, 7] {
        first.part(number, pattern(number as usize), None).await;
    }
    let mut numbers = Vec::new();
    let mut marker = None;
    loop {
        let list = f.client.list_parts().bucket(BUCKET).key("dir/a").upload_id(&first.id).max_parts(2);
        let page = list.set_part_number_marker(marker).send().await.expect("list");
        numbers.extend(page.parts().iter().map(|part| (part.part_number().unwrap_or(0), part.size().unwrap_or(0))));
        marker = page.next_part_number_marker;
        if page.is_truncated != Some(true) {
            break;
        }
    }
    assert_eq!(numbers, [(1, 1), (3, 3), (7, 7)]);

    for key in ["b", "dir/a", "dir/c"] {
        Upload::new(&f, key, None).await;
    }
    let list = f.client.list_multipart_uploads().bucket(BUCKET);
    let all = list.clone().prefix("dir/").send().await.expect("list");
    let keys: Vec<_> = all.uploads().iter().filter_map(|upload| upload.key()).collect();
    assert_eq!(keys, ["dir/a", "dir/a", "dir/c"]);
    let page = list.clone().max_uploads(2).send().await.expect("list");
    let next = list.set_key_marker(page.next_key_marker).set_upload_id_marker(page.next_upload_id_marker);
    let next = next.send().await.expect("list");
    let keys: Vec<_> = next.uploads().iter().filter_map(|upload| upload.key()).collect();
    assert_eq!(keys, ["dir/a", "dir/c"]);
}
