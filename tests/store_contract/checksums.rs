//! Checksums that are asked for by name, and none: always in this process. Between the store and its server stands a
//! line that writes down what is asked and spoils what it is told to.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine;
use pailfs::config::ChecksumAlgorithm::{self, Crc32c, Crc64Nvme, Sha256};
use pailfs::demo::{Fault, FaultKind, Operation, Server};
use pailfs::error::{Error, Result};
use pailfs::store::{
    Attributes, Checksums, ObjectStore, PartSource, S3Store, StoreOptions, UploadBody, UploadedPart, connect,
};
use pailfs::types::{ByteRange, Expect, ObjectKey, PartNumber, UploadId, Version};
use sha2::Digest;

use crate::reading::crc;
use crate::world::{collect, pattern};

const PART: usize = 5 << 20;
const NAMED: [ChecksumAlgorithm; 3] = [Crc64Nvme, Crc32c, Sha256];

/// What happens to bytes on their way.
#[derive(Clone, Default)]
struct Spoil {
    /// A byte of each body that is larger than this many bytes.
    body: Option<usize>,
    /// In answers, one text is another of the same length.
    answer: Option<(String, String)>,
}

#[derive(Clone, Default)]
struct Line {
    heads: Arc<Mutex<Vec<String>>>,
    spoil: Arc<Mutex<Spoil>>,
}

impl Line {
    /// Leads to `server`; gives its own address. The threads end with their connections.
    fn to(server: &Server) -> (Line, String) {
        let line = Line::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let (beyond, shared) = (server.endpoint().replace("http://", ""), line.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(std::result::Result::ok) {
                let Ok(server) = TcpStream::connect(&beyond) else { return };
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (forth, answers) = (shared.clone(), shared.clone());
                std::thread::spawn(move || forth.requests(client, server));
                std::thread::spawn(move || answers.answers(back.0, back.1));
            }
        });
        (line, own)
    }

    fn requests(&self, mut client: TcpStream, mut server: TcpStream) -> Option<()> {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).ok()?;
                head.push(byte[0]);
            }
            server.write_all(&head).ok()?;
            let head = String::from_utf8(head).ok()?.to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            self.heads.lock().ok()?.push(head);
            let mut body = vec![0; length.unwrap_or(0)];
            client.read_exact(&mut body).ok()?;
            let least = self.spoil.lock().ok()?.body;
            if least.is_some_and(|least| body.len() > least) {
                *body.last_mut()? ^= 1;
            }
            server.write_all(&body).ok()?;
        }
    }

    fn answers(&self, mut server: TcpStream, mut client: TcpStream) -> Option<()> {
        let mut buffer = [0; 64 << 10];
        loop {
            let len = server.read(&mut buffer).ok().filter(|len| *len > 0)?;
            let mut bytes = buffer[..len].to_vec();
            if let Some((from, to)) = &self.spoil.lock().ok()?.answer {
                let found: Vec<_> = (0..len).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
                found.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to.as_bytes()));
            }
            client.write_all(&bytes).ok()?;
        }
    }

    /// Heads of requests, in small letters, since this was asked before.
    fn heads(&self) -> Vec<String> {
        std::mem::take(&mut *self.heads.lock().unwrap())
    }

    fn spoil(&self, spoil: Spoil) {
        *self.spoil.lock().unwrap() = spoil;
    }

    /// The store's answers name another sum than `sum`.
    fn misquote(&self, sum: &str) {
        let other = if sum.starts_with('A') { "B" } else { "A" };
        self.spoil(Spoil { answer: Some((sum.to_owned(), format!("{other}{}", &sum[1..]))), body: None });
    }
}

struct Case {
    server: Server,
    line: Line,
    store: S3Store,
}

/// Runs a case with a server of its own.
fn with(checksums: Checksums, case: impl AsyncFnOnce(Case)) {
    with_options(|options| options.checksums = Some(checksums), case);
}

fn with_options(change: impl FnOnce(&mut StoreOptions), case: impl AsyncFnOnce(Case)) {
    let server = crate::server::start();
    let (line, endpoint) = Line::to(&server);
    let at = crate::server::in_process(&server, "sums").options;
    let mut options = StoreOptions { endpoint_url: Some(endpoint), ..at };
    change(&mut options);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = connect(&options).await.unwrap();
        case(Case { server, line, store }).await;
    });
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::from_store(name)
}

fn in_memory(bytes: &[u8]) -> UploadBody {
    UploadBody::Memory(bytes.to_vec().into())
}

/// Of a file, whose body is not part of the signature.
fn in_file(bytes: &[u8]) -> UploadBody {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    UploadBody::File { file: Arc::new(file), range: ByteRange::new(0, bytes.len() as u64) }
}

impl Case {
    async fn put(&self, name: &str, body: UploadBody) -> Result<Version> {
        self.store.put(&key(name), body, &Attributes::default(), &Expect::Any).await
    }

    async fn begin(&self, parts: PartSource) -> Result<UploadId> {
        self.store.create_upload(&key("parts"), &Attributes::default(), parts).await
    }

    async fn part(&self, upload: &UploadId, index: u64, body: UploadBody) -> Result<UploadedPart> {
        let number = PartNumber::from_index(index).unwrap();
        self.store.upload_part(&key("parts"), upload, number, body).await
    }

    /// `sum` is the CRC-64/NVME that is known.
    async fn complete(&self, id: &UploadId, parts: &[UploadedPart], sum: Option<u64>) -> Result<Version> {
        let size = parts.iter().map(|part| part.size).sum();
        self.store.complete_upload(&key("parts"), id, parts, size, sum, &Expect::Any).await
    }

    /// Uploads `bytes` in two parts.
    async fn by_parts(&self, bytes: &[u8]) -> Result<Version> {
        let upload = self.begin(PartSource::Bodies).await?;
        let parts = [
            self.part(&upload, 0, in_file(&bytes[..PART])).await?,
            self.part(&upload, 1, in_memory(&bytes[PART..])).await?,
        ];
        self.complete(&upload, &parts, Some(crc(bytes))).await
    }

    fn kept(&self, name: &str) -> (&'static str, String) {
        self.server.bucket("sums").get(name).unwrap().checksum.unwrap()
    }
}

fn name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        Crc64Nvme => "CRC64NVME",
        Crc32c => "CRC32C",
        Sha256 => "SHA256",
    }
}

/// The sum of all bytes, in base64.
fn sum(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> String {
    let encode = |sum: &[u8]| base64::engine::general_purpose::STANDARD.encode(sum);
    match algorithm {
        Crc64Nvme => encode(&crc(bytes).to_be_bytes()),
        Crc32c => {
            let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
            encode(&u32::try_from(crc).unwrap().to_be_bytes())
        }
        Sha256 => encode(&sha2::Sha256::digest(bytes)),
    }
}

/// The sum of an object of these two parts: only CRCs are of the whole.
fn sum_of_parts(algorithm: ChecksumAlgorithm, parts: &[&[u8]]) -> String {
    if algorithm != Sha256 {
        return sum(algorithm, &parts.concat());
    }
    let sums: Vec<_> = parts.iter().map(sha2::Sha256::digest).collect();
    format!("{}-{}", sum(Sha256, &sums.concat()), parts.len())
}

#[test]
fn the_server_keeps_the_sum_that_was_asked_for() {
    for algorithm in NAMED {
        with(Checksums::Named(algorithm), async |case| {
            let bytes = pattern(PART + 1000);
            for (name_of, body) in [("memory", in_memory(&bytes)), ("file", in_file(&bytes))] {
                case.put(name_of, body).await.unwrap();
                assert_eq!(case.kept(name_of), (name(algorithm), sum(algorithm, &bytes)));
            }
            case.by_parts(&bytes).await.unwrap();
            let parts = sum_of_parts(algorithm, &[&bytes[..PART], &bytes[PART..]]);
            assert_eq!(case.kept("parts"), (name(algorithm), parts));
            for name in ["memory", "file", "parts"] {
                let read = collect(case.store.get(&key(name), None, None).await.unwrap()).await.unwrap();
                assert!(read == bytes, "{name}");
            }
        });
    }
}

#[test]
fn a_sum_that_was_asked_for_is_in_every_request_that_sends_bytes() {
    for algorithm in NAMED {
        with(Checksums::Named(algorithm), async |case| {
            let bytes = pattern(PART + 1000);
            case.put("put", in_memory(&bytes)).await.unwrap();
            case.by_parts(&bytes).await.unwrap();
            let header = format!("x-amz-checksum-{}: ", name(algorithm).to_lowercase());
            let heads = case.line.heads();
            let [put, create, first, second, complete] = heads.as_slice() else { panic!("{heads:?}") };
            for sent in [(put, &bytes[..]), (first, &bytes[..PART]), (second, &bytes[PART..])] {
                let line = format!("\r\n{header}{}\r\n", sum(algorithm, sent.1)).to_lowercase();
                assert!(sent.0.contains(&line), "{}", sent.0);
            }
            let kind = if algorithm == Sha256 { "composite" } else { "full_object" };
            let named = format!("x-amz-checksum-algorithm: {}\r\n", name(algorithm).to_lowercase());
            assert!(create.contains(&named), "{create}");
            assert!(create.contains(&format!("x-amz-checksum-type: {kind}\r\n")), "{create}");
            let whole = sum(algorithm, &bytes).to_lowercase();
            assert_eq!(complete.contains(&format!("{header}{whole}\r\n")), algorithm != Sha256, "{complete}");
        });
    }
}

#[test]
fn copied_parts_are_summed_by_the_algorithm_that_was_asked_for() {
    for algorithm in NAMED {
        with(Checksums::Named(algorithm), async |case| {
            let bytes = pattern(PART);
            let source = case.put("source", in_memory(&pattern(PART + 1))).await.unwrap();
            let copy = async |upload: &UploadId| {
                let (number, range) = (PartNumber::from_index(0).unwrap(), ByteRange::new(0, PART as u64));
                let (source, etag) = (key("source"), &source.etag);
                case.store.upload_part_copy(&key("parts"), upload, number, &source, etag, Some(range)).await
            };
            // All of a small object, which is the only part.
            let small = case.put("small", in_memory(b"small")).await.unwrap();
            let upload = case.begin(PartSource::Copies).await.unwrap();
            let (number, from) = (PartNumber::from_index(0).unwrap(), key("small"));
            let only =
                case.store.upload_part_copy(&key("parts"), &upload, number, &from, &small.etag, None).await.unwrap();
            case.store.complete_upload(&key("parts"), &upload, &[only], 5, None, &Expect::Any).await.unwrap();
            assert_eq!(case.kept("parts"), (name(algorithm), sum_of_parts(algorithm, &[b"small"])));
            let upload = case.begin(PartSource::Copies).await.unwrap();
            let parts = [copy(&upload).await.unwrap(), case.part(&upload, 1, in_memory(b"tail")).await.unwrap()];
            case.complete(&upload, &parts, None).await.unwrap();
            assert_eq!(case.kept("parts"), (name(algorithm), sum_of_parts(algorithm, &[&bytes, b"tail"])));
            // A store that tells none would leave the object without.
            let untold = ("Checksum".to_owned(), "Unknown_".to_owned());
            case.line.spoil(Spoil { answer: Some(untold), body: None });
            let upload = case.begin(PartSource::Copies).await.unwrap();
            let untold = copy(&upload).await;
            assert!(matches!(untold, Err(Error::Unsupported(_))), "the caller sends the bytes: {untold:?}");
            let refusal = FaultKind::Answer { status: 400, code: "InvalidArgument".to_owned() };
            case.server.add_fault(Fault::new(refusal).on(Operation::UploadPartCopy).once());
            let refused = copy(&upload).await;
            assert!(matches!(refused, Err(Error::Unsupported(_))), "so does he then: {refused:?}");
        });
    }
}

#[test]
fn a_body_that_is_summed_already_is_sent_with_that_sum_and_no_other() {
    with(Checksums::Named(Crc64Nvme), async |case| {
        let (bytes, crc64nvme) = (pattern(1000), crc(&pattern(1000)));
        let summed = |crc64nvme| UploadBody::Summed { bytes: bytes.clone().into(), crc64nvme };
        case.put("put", summed(crc64nvme)).await.unwrap();
        assert_eq!(case.kept("put"), (name(Crc64Nvme), sum(Crc64Nvme, &bytes)));
        let refused = case.put("other", summed(crc64nvme ^ 1)).await;
        assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
        assert_eq!(case.server.bucket("sums").keys(), ["put"]);
    });
    // Where another sum is asked for, the bytes are summed again.
    with(Checksums::Named(Sha256), async |case| {
        let bytes = pattern(1000);
        case.put("put", UploadBody::Summed { bytes: bytes.clone().into(), crc64nvme: 0 }).await.unwrap();
        assert_eq!(case.kept("put"), (name(Sha256), sum(Sha256, &bytes)));
    });
}

#[test]
fn bytes_that_are_spoilt_on_their_way_are_refused_unless_sums_are_off() {
    let spoilt = Spoil { body: Some(1 << 20), answer: None };
    for algorithm in NAMED {
        with(Checksums::Named(algorithm), async |case| {
            let bytes = pattern(PART + 1000);
            case.line.spoil(spoilt.clone());
            let refused = case.put("put", in_file(&bytes)).await;
            assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
            let upload = case.begin(PartSource::Bodies).await.unwrap();
            let refused = case.part(&upload, 0, in_file(&bytes)).await;
            assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?}");
            assert!(case.server.bucket("sums").keys().is_empty());
        });
    }
    with(Checksums::Off, async |case| {
        case.line.spoil(spoilt);
        case.put("put", in_file(&pattern(PART))).await.expect("nothing but the sum tells");
    });
}

#[test]
fn a_store_that_has_another_sum_than_was_sent_did_not_store_it() {
    for algorithm in NAMED {
        with(Checksums::Named(algorithm), async |case| {
            let bytes = pattern(PART + 1000);
            case.line.misquote(&sum(algorithm, &bytes));
            let differs = case.put("put", in_memory(&bytes)).await;
            assert!(matches!(differs, Err(Error::Corrupt(_))), "{differs:?}");
            let upload = case.begin(PartSource::Bodies).await.unwrap();
            let differs = case.part(&upload, 0, in_memory(&bytes)).await;
            assert!(matches!(differs, Err(Error::Corrupt(_))), "{differs:?}");
            case.line.misquote(&sum_of_parts(algorithm, &[&bytes[..PART], &bytes[PART..]]));
            let differs = case.by_parts(&bytes).await;
            assert!(matches!(differs, Err(Error::Corrupt(_))), "{differs:?}");
        });
    }
}

#[test]
fn a_whole_body_is_compared_with_the_sum_that_was_asked_for_unless_sums_are_off() {
    for checksums in NAMED.map(Checksums::Named).into_iter().chain([Checksums::Off]) {
        with(checksums, async |case| {
            case.put("put", in_memory(b"twelve bytes")).await.unwrap();
            case.server.add_fault(Fault::new(FaultKind::CorruptBody { at: 1 }).on(Operation::GetObject).once());
            let read = collect(case.store.get(&key("put"), None, None).await.unwrap()).await;
            match checksums {
                Checksums::Off => assert_ne!(read.unwrap(), "twelve bytes"),
                _ => assert!(matches!(read, Err(Error::Corrupt(_))), "{read:?}"),
            }
        });
    }
}

#[test]
fn a_store_that_refuses_what_was_asked_for_is_not_used_without() {
    for algorithm in NAMED {
        with(Checksums::Named(algorithm), async |case| {
            let refusal = FaultKind::Answer { status: 400, code: "InvalidRequest".to_owned() };
            for operation in [Operation::CreateMultipartUpload, Operation::PutObject] {
                case.server.add_fault(Fault::new(refusal.clone()).on(operation).once());
                let refused = match operation {
                    Operation::PutObject => case.put("put", in_memory(b"x")).await.map(drop),
                    _ => case.begin(PartSource::Bodies).await.map(drop),
                };
                assert!(matches!(refused, Err(Error::Server { status: 400, .. })), "{refused:?}");
                assert_eq!(case.server.counters().requests(operation), 1);
            }
        });
    }
}

#[test]
fn no_request_has_a_sum_when_they_are_off() {
    with(Checksums::Off, async |case| {
        let bytes = pattern(PART + 1000);
        case.put("memory", in_memory(&bytes)).await.unwrap();
        case.put("file", in_file(&bytes)).await.unwrap();
        case.by_parts(&bytes).await.unwrap();
        case.store.head(&key("parts")).await.unwrap();
        let read = collect(case.store.get(&key("parts"), None, None).await.unwrap()).await.unwrap();
        assert!(read == bytes);
        let heads = case.line.heads();
        assert_eq!(heads.len(), 8, "{heads:?}");
        for head in heads {
            let sums = ["checksum", "x-amz-trailer", "content-md5"];
            assert!(sums.iter().all(|word| !head.contains(word)), "{head}");
        }
    });
}

/// Sends a body as an object and as a part, and tells which of the two requests left it out of their signature.
fn unsigned(checksums: Checksums, payload_signing: Option<bool>) -> [bool; 2] {
    let mut left_out = [false; 2];
    let change = |options: &mut StoreOptions| {
        options.checksums = Some(checksums);
        options.payload_signing = payload_signing;
    };
    with_options(change, async |case| {
        case.put("whole", in_memory(b"bytes")).await.unwrap();
        let upload = case.begin(PartSource::Bodies).await.unwrap();
        case.line.heads();
        case.part(&upload, 0, in_memory(b"bytes")).await.unwrap();
        let part = case.line.heads();
        case.put("whole", in_memory(b"bytes")).await.unwrap();
        let whole = case.line.heads();
        left_out = [whole, part].map(|heads| {
            // Of a request without a body the head may be noted late.
            let named = |head: &&String| head.starts_with("put ") && head.contains("x-amz-content-sha256: ");
            let head = heads.iter().find(named).unwrap_or_else(|| panic!("signed requests: {heads:?}"));
            head.contains("x-amz-content-sha256: unsigned-payload")
        });
    });
    left_out
}

#[test]
fn a_summed_body_that_nobody_can_change_on_its_way_is_not_signed_too() {
    assert_eq!(unsigned(Checksums::Bodies, None), [true; 2]);
    assert_eq!(unsigned(Checksums::Off, None), [false; 2]);
    assert_eq!(unsigned(Checksums::Bodies, Some(true)), [false; 2]);
}
