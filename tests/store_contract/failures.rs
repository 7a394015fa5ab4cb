//! What refuses every request: credentials, buckets and endpoints that are not what they should be.

use std::time::Duration;

use pailfs::error::{Error, Result};
use pailfs::store::{AccessKeys, ObjectStore, S3Store, StoreOptions, UploadBody, connect};
use pailfs::types::{DirPrefix, Expect, ObjectKey};

fn ask<T>(options: StoreOptions, question: impl AsyncFnOnce(S3Store) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { question(connect(&options).await?).await })
}

fn check(options: StoreOptions) -> Result<()> {
    ask(options, async |store| store.check(&DirPrefix::normalize("")).await)
}

fn quick() -> StoreOptions {
    StoreOptions { attempt_timeout: Duration::from_secs(2), ..crate::server::for_tests().options }
}

#[test]
fn a_bucket_that_answers_is_fine() {
    check(quick()).unwrap();
}

#[test]
fn a_missing_bucket_is_told_from_a_missing_object() {
    let options = StoreOptions { bucket: "no-such-bucket-at-all".into(), ..quick() };
    let missing = check(options.clone());
    assert!(matches!(missing, Err(Error::NoSuchBucket)), "{missing:?}");
    let key = ObjectKey::from_store("a");
    let got = ask(options, async |store| store.get(&key, None, None).await);
    assert!(matches!(got, Err(Error::NoSuchBucket)), "{got:?}");
}

#[test]
fn an_endpoint_without_a_server_is_unreachable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = check(StoreOptions { endpoint_url: Some(format!("http://{free}")), ..quick() });
    assert!(matches!(refused, Err(Error::Unreachable(_))), "{refused:?}");
}

#[test]
fn a_host_that_does_not_resolve_is_told() {
    let unknown = check(StoreOptions { endpoint_url: Some("http://no-such-host.invalid:9".into()), ..quick() });
    assert!(matches!(unknown, Err(Error::UnknownHost(_))), "{unknown:?}");
}

#[test]
fn an_endpoint_that_speaks_no_tls_is_told() {
    let plain = quick().endpoint_url.unwrap();
    let tls = check(StoreOptions { endpoint_url: Some(plain.replace("http:", "https:")), ..quick() });
    assert!(matches!(tls, Err(Error::Tls(_))), "{tls:?}");
}

#[test]
fn an_endpoint_that_never_answers_times_out() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint_url = Some(format!("http://{}", silent.local_addr().unwrap()));
    let options = StoreOptions { endpoint_url, attempt_timeout: Duration::from_millis(50), ..quick() };
    let late = check(options);
    assert!(matches!(late, Err(Error::Timeout(_))), "{late:?}");
}

#[test]
fn unknown_keys_and_wrong_secrets_are_told() {
    let keys = AccessKeys { access_key: "nobody".into(), secret_key: "nothing".into() };
    let unknown = check(StoreOptions { keys: Some(keys), ..quick() });
    assert!(matches!(unknown, Err(Error::BadCredentials(_))), "{unknown:?}");
    let access_key = crate::server::for_tests().access_key;
    let keys = AccessKeys { access_key, secret_key: "wrong-secret".into() };
    let wrong = check(StoreOptions { keys: Some(keys), ..quick() });
    assert!(matches!(wrong, Err(Error::BadCredentials(_))), "{wrong:?}");
}

#[test]
fn unsigned_requests_are_refused() {
    let options = StoreOptions { no_sign_request: true, ..quick() };
    let refused = check(options.clone());
    assert!(matches!(refused, Err(Error::AccessDenied(_))), "{refused:?}");
    let key = ObjectKey::from_store("a");
    let body = UploadBody::Memory("x".into());
    let put = ask(options, async |store| store.put(&key, body, &Default::default(), &Expect::Any).await);
    assert!(matches!(put, Err(Error::AccessDenied(_))), "{put:?}");
}
