//! What goes wrong on demand: faults, denials, slowness, and the counts that prove what was asked.

use super::*;
use pailfs::demo::{Fault, FaultKind, Operation, Shape};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

impl Fixture {
    async fn get(&self, key: &str) -> Result<Vec<u8>, String> {
        let got =
            self.client.get_object().bucket(BUCKET).key(key).send().await.map_err(|error| format!("{error:?}"))?;
        got.body.collect().await.map(|body| body.to_vec()).map_err(|error| format!("{error:?}"))
    }

    async fn put(&self, key: &str, body: &str) -> Result<(), (u16, String)> {
        let put = self.client.put_object().bucket(BUCKET).key(key).body(body.to_owned().into_bytes().into());
        let result = put.send().await;
        if result.is_ok() { Ok(()) } else { Err(refusal(result)) }
    }
}

#[tokio::test]
async fn an_error_on_demand_has_no_effect_and_ends() {
    let f = fixture();
    let slow_down = FaultKind::Answer { status: 503, code: "SlowDown".into() };
    f.server.add_fault(Fault::new(slow_down).on(Operation::PutObject).key("k").skip(1).times(2));
    assert_eq!(f.put("k", "1").await, Ok(()));
    assert_eq!(f.put("other", "1").await, Ok(()));
    assert_eq!(f.put("k", "2").await, Err(refused(503, "SlowDown")));
    assert_eq!(f.put("k", "3").await, Err(refused(503, "SlowDown")));
    assert_eq!(f.bucket.get("k").expect("stored").body, "1");
    assert_eq!(f.put("k", "4").await, Ok(()));
    assert_eq!(f.server.faults_fired(), 2);
}

#[tokio::test]
async fn an_error_on_demand_is_read_even_while_a_large_body_is_sent() {
    let f = fixture();
    f.server.add_fault(Fault::new(FaultKind::Answer { status: 503, code: "SlowDown".into() }));
    assert_eq!(f.put("k", &"x".repeat(8 << 20)).await, Err(refused(503, "SlowDown")));
}

#[tokio::test]
async fn a_lost_request_and_a_lost_reply_look_alike_but_are_not() {
    let f = fixture();
    f.server.add_fault(Fault::new(FaultKind::DropBeforeApply).key("before").once());
    f.server.add_fault(Fault::new(FaultKind::ApplyThenDrop).key("after").once());
    assert_eq!(f.put("before", "x").await, Err(refused(0, "")), "no reply");
    assert_eq!(f.put("after", "x").await, Err(refused(0, "")), "no reply");
    assert_eq!(f.bucket.keys(), ["after"]);
    let answer = FaultKind::ApplyThenAnswer { status: 500, code: "InternalError".into() };
    f.server.add_fault(Fault::new(answer).key("answered").once());
    assert_eq!(f.put("answered", "x").await, Err(refused(500, "InternalError")));
    assert_eq!(f.bucket.keys(), ["after", "answered"]);
}

#[tokio::test]
async fn a_request_that_meets_silence_has_its_effect_or_not_and_gets_no_reply() {
    let f = fixture();
    let pause = Duration::from_millis(300);
    for (key, applied) in [("not applied", false), ("applied", true)] {
        f.server.add_fault(Fault::new(FaultKind::Silence { applied, pause }).once());
        let start = Instant::now();
        assert_eq!(f.put(key, "x").await, Err(refused(0, "")), "no reply");
        assert!(start.elapsed() >= pause, "{key}");
    }
    assert_eq!(f.bucket.keys(), ["applied"]);
}

#[tokio::test]
async fn a_body_is_cut_stalled_or_corrupted_where_it_was_asked_for() {
    let f = fixture();
    f.bucket.put("k", pattern(100_000));
    f.server.add_fault(Fault::new(FaultKind::CutBody { after: 70_000 }).on(Operation::GetObject).once());
    let mut cut = f.client.get_object().bucket(BUCKET).key("k").send().await.expect("the head comes");
    assert_eq!(cut.content_length(), Some(100_000));
    let mut received = Vec::new();
    let end = loop {
        match cut.body.next().await {
            Some(Ok(bytes)) => received.extend_from_slice(&bytes),
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(_))), "the body ends in an error: {end:?}");
    assert_eq!(received, pattern(100_000)[..70_000]);

    let pause = Duration::from_millis(300);
    f.server.add_fault(Fault::new(FaultKind::StallBody { after: 10, pause }).once());
    let start = Instant::now();
    assert_eq!(f.get("k").await, Ok(pattern(100_000)));
    assert!(start.elapsed() >= pause);

    f.server.add_fault(Fault::new(FaultKind::CorruptBody { at: 50_001 }).once());
    let range = f.client.get_object().bucket(BUCKET).key("k").range("bytes=0-99998").send().await.expect("get");
    let corrupt = bytes(range).await;
    let right = pattern(100_000);
    let wrong: Vec<_> = (0..corrupt.len()).filter(|i| corrupt[*i] != right[*i]).collect();
    assert_eq!(wrong, [50_001]);
    assert_eq!(f.get("k").await, Ok(pattern(100_000)), "it is over");
}

#[tokio::test]
async fn another_range_than_the_asked_one_says_so() {
    let f = fixture();
    f.bucket.put("k", pattern(1000));
    f.server.add_fault(Fault::new(FaultKind::WrongRange).on(Operation::GetObject).times(2));
    let got = f.client.get_object().bucket(BUCKET).key("k").range("bytes=10-19").send().await.expect("get");
    assert_eq!(got.content_range(), Some("bytes 11-20/1000"));
    assert_eq!(bytes(got).await, pattern(1000)[11..21]);
    let tail = f.client.get_object().bucket(BUCKET).key("k").range("bytes=990-").send().await.expect("get");
    assert_eq!(tail.content_range(), Some("bytes 989-998/1000"));
}

#[tokio::test]
async fn a_denied_operation_is_denied_to_the_holder_of_the_keys() {
    let f = fixture();
    f.bucket.put("secret/k", "x");
    f.bucket.put("open", "x");
    f.server.deny(Some(Operation::GetObject), "secret/");
    f.server.deny(Some(Operation::ListObjectsV2), "");
    let get = f.client.get_object().bucket(BUCKET).key("secret/k").send().await;
    assert_eq!(refusal(get), refused(403, "AccessDenied"));
    assert!(f.client.head_object().bucket(BUCKET).key("secret/k").send().await.is_ok());
    assert!(f.get("open").await.is_ok());
    let list = f.client.list_objects_v2().bucket(BUCKET).send().await;
    assert_eq!(refusal(list), refused(403, "AccessDenied"));
    let copy = f.client.copy_object().bucket(BUCKET).key("c").copy_source(format!("{BUCKET}/secret/k")).send().await;
    assert_eq!(refusal(copy), refused(403, "AccessDenied"), "a copy reads its source");
    f.server.allow_all();
    assert!(f.get("secret/k").await.is_ok());
}

#[tokio::test]
async fn a_slow_server_takes_its_time() {
    let f = fixture();
    f.bucket.put("k", pattern(200_000));
    f.server.set_shape(Shape { first_byte: Duration::from_millis(150), ..Shape::default() });
    let start = Instant::now();
    f.client.head_object().bucket(BUCKET).key("k").send().await.expect("head");
    assert!(start.elapsed() >= Duration::from_millis(150));

    f.server.set_shape(Shape { per_connection: Some(400_000), ..Shape::default() });
    let start = Instant::now();
    assert_eq!(f.get("k").await, Ok(pattern(200_000)));
    assert!(start.elapsed() >= Duration::from_millis(450), "200 kB at 400 kB/s took {:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(f.put("up", &"x".repeat(200_000)).await, Ok(()));
    assert!(start.elapsed() >= Duration::from_millis(450), "the way in took {:?}", start.elapsed());

    f.server.set_shape(Shape { total: Some(400_000), ..Shape::default() });
    let start = Instant::now();
    let (a, b) = tokio::join!(f.get("k"), f.get("k"));
    assert!(a.is_ok() && b.is_ok());
    assert!(start.elapsed() >= Duration::from_millis(900), "two of 200 kB together took {:?}", start.elapsed());
}

#[tokio::test]
async fn each_request_is_counted_with_its_bytes() {
    let f = fixture();
    f.put("k", &"x".repeat(5000)).await.expect("put");
    f.get("k").await.expect("get");
    f.get("missing").await.expect_err("missing");
    f.client.get_object().bucket(BUCKET).key("k").range("bytes=0-99").send().await.expect("get");
    f.client.list_objects_v2().bucket(BUCKET).send().await.expect("list");
    let counters = f.server.counters();
    assert_eq!(counters.requests(Operation::PutObject), 1);
    assert_eq!(counters.of(Operation::PutObject).bytes_in, 5000);
    assert_eq!(counters.requests(Operation::GetObject), 3);
    assert!(counters.of(Operation::GetObject).bytes_out >= 5100);
    assert_eq!(counters.requests(Operation::ListObjectsV2), 1);
    assert_eq!(counters.requests(Operation::HeadObject), 0);
    assert_eq!(counters.total().requests, 5);
    f.server.reset_counters();
    assert_eq!(f.server.counters().total().requests, 0);
}

#[tokio::test]
async fn an_upload_that_is_cut_publishes_nothing() {
    let f = fixture();
    f.bucket.put("k", "old");
    let body = vec![b'x'; 200_000];
    let presigned = aws_sdk_s3::presigning::PresigningConfig::expires_in(Duration::from_secs(60)).expect("config");
    let url = f.client.put_object().bucket(BUCKET).key("k").presigned(presigned).await.expect("presign");
    let address = f.server.endpoint().trim_start_matches("http://").to_owned();
    let path = url.uri().split_once(&address).expect("the endpoint").1.to_owned();
    let send = |bytes: &[u8]| {
        let mut socket = TcpStream::connect(&address).expect("connect");
        let mut request = format!("PUT {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in url.headers().filter(|(name, _)| !name.eq_ignore_ascii_case("content-length")) {
            request += &format!("{name}: {value}\r\n");
        }
        socket.write_all((request + "Connection: close\r\n\r\n").as_bytes()).expect("head");
        socket.write_all(bytes).expect("body");
        if bytes.len() < body.len() {
            socket.shutdown(std::net::Shutdown::Write).expect("shutdown");
        }
        let mut reply = String::new();
        let _ = socket.read_to_string(&mut reply);
        reply
    };
    let cut = send(&body[..100_000]);
    assert!(!cut.starts_with("HTTP/1.1 200"), "{cut}");
    assert_eq!(f.bucket.get("k").expect("stored").body, "old");
    let whole = send(&body);
    assert!(whole.starts_with("HTTP/1.1 200"), "{whole}");
    assert_eq!(f.bucket.get("k").expect("stored").body, body);
}

#[test]
fn a_dropped_server_is_gone_at_once() {
    let f = fixture();
    let address = f.server.endpoint().trim_start_matches("http://").to_owned();
    assert!(TcpStream::connect(&address).is_ok());
    drop(f.server);
    assert!(TcpStream::connect(&address).is_err());
}
