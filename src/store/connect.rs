//! From what was asked to a store that can be used.
//!
//! Owns: the credentials chain, the endpoint, the addressing style, the region of the bucket, timeouts and
//! retries. Whether the bucket may be used is not asked here: see [`S3Store::check`].

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{self, TlsContext, rustls_provider::CryptoMode};
use aws_smithy_runtime::client::dns::TokioDnsResolver;
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime::client::retries::{RetryPartition, TokenBucket};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::service_config::ServiceConfigKey;

use super::region::{HOME_REGION, RegionSource, find_region, region_in_name};
use super::renew::Renewing;
use super::s3::{Attempts, Sealing};
use super::signing::{BodySigning, is_protected};
use super::{CustomerKey, Requested, S3Store, trust};
use crate::config::ChecksumAlgorithm;
use crate::error::{Error, Result};

/// A TCP and TLS handshake that takes longer is not going to come: three lost SYNs are 7 s, two are 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// First try and retries, with exponential backoff and jitter between them.
const ATTEMPTS: u32 = 6;

/// First try and retry of a request for whose answer a user waits, while nothing is known to be there at all.
const FIRST_ATTEMPTS: u32 = 2;

/// Longest pause between two attempts, so that a short outage ends for us soon after it ends.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// Tokens for retries; one retry costs 5 to 10 (the SDK's prices).
const RETRY_TOKENS: usize = 1000;

/// About four retries per second for ever, so that a long outage keeps being tried and is not hammered.
const RETRY_TOKENS_PER_SECOND: f32 = 20.0;

/// Which checksums go with requests: CRC-64/NVME, where none is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// None, for stores that do not know them.
    Off,
    /// All bytes that are sent are summed, in one body or in parts, and what the store knows of whole objects is
    /// compared when they are read. Uploads made of copies name no algorithm: MinIO refuses to copy parts into an
    /// upload that names one ("checksum missing"), and versitygw gives such a part the sum of its whole source.
    Bodies,
    /// Uploads made of copies are summed too.
    Whole,
    /// As `Whole`, by this algorithm; and a store that refuses it is not asked without.
    Named(ChecksumAlgorithm),
}

/// An access key and its secret. Debug output shows neither.
#[derive(Clone)]
pub struct AccessKeys {
    /// `AWS_ACCESS_KEY_ID`
    pub access_key: String,
    /// `AWS_SECRET_ACCESS_KEY`
    pub secret_key: String,
}

impl std::fmt::Debug for AccessKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKeys").finish_non_exhaustive()
    }
}

/// What `connect` needs to know.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Name of the bucket, or ARN or alias of an access point.
    pub bucket: String,
    /// Region; found out when it is not given.
    pub region: Option<String>,
    /// Base address of the store; AWS when neither this nor `AWS_ENDPOINT_URL` (or `_S3`) is given.
    pub endpoint_url: Option<String>,
    /// Profile of the shared configuration files.
    pub profile: Option<String>,
    /// The bucket in the path instead of the host name. `None`: with a custom endpoint.
    pub path_style: Option<bool>,
    /// Keys to sign with, instead of those that the credentials chain finds.
    pub keys: Option<AccessKeys>,
    /// Whether requests that send a body sign it too. `None`: those that carry no checksum, and over http to other machines all.
    pub payload_signing: Option<bool>,
    /// Requests carry no signature.
    pub no_sign_request: bool,
    /// The requester pays (`x-amz-request-payer`).
    pub requester_pays: bool,
    /// The encryption that is asked for all that is written; `None` is the bucket's.
    pub encryption: Option<Requested>,
    /// File with the key that the store encrypts with (SSE-C); with it no `encryption` is asked for.
    pub customer_key_file: Option<PathBuf>,
    /// Which checksums go with requests. `None`: [`Checksums::Whole`] on AWS, [`Checksums::Bodies`] elsewhere,
    /// [`Checksums::Off`] with `AWS_REQUEST_CHECKSUM_CALCULATION=when_required`.
    pub checksums: Option<Checksums>,
    /// Most requests at once that move bytes, bodies included, and most others; for [`super::Limited`].
    pub max_requests: usize,
    /// Longest wait for the answer of one attempt that sends no large body and asks for no copy.
    pub attempt_timeout: Duration,
    /// How long a body, either way, may stand still before its request is given up. A reader that asks for no
    /// more bytes is no such case.
    pub stall_timeout: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            bucket: String::new(),
            region: None,
            endpoint_url: None,
            profile: None,
            keys: None,
            path_style: None,
            payload_signing: None,
            no_sign_request: false,
            requester_pays: false,
            encryption: None,
            customer_key_file: None,
            checksums: None,
            max_requests: 64,
            attempt_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(20),
        }
    }
}

/// Makes a store for the bucket. Credentials are looked for when the first request is signed.
///
/// # Errors
/// `NoSuchBucket` and transport errors from the request that asks AWS for the bucket's region; it is sent
/// when the region is neither given nor part of the bucket's name. `Tls` for a bad `AWS_CA_BUNDLE`. `CustomerKey` for a key file
/// that can't be used, and for an endpoint to which its key would go in the open.
pub async fn connect(options: &StoreOptions) -> Result<S3Store> {
    let trust = trust::of_environment()?;
    let customer_key = options.customer_key_file.as_deref().map(CustomerKey::read).transpose()?;
    let sdk = load(options, trust.clone()).await;
    let mut builder = Builder::from(&sdk).retry_partition(retry_partition());
    if sdk.credentials_provider().is_some() && options.keys.is_none() {
        let options = options.clone();
        let credentials = Renewing::new(move || {
            let (options, trust) = (options.clone(), trust.clone());
            async move { load(&options, trust).await.credentials_provider() }
        });
        // It keeps them itself.
        builder = builder.identity_cache(IdentityCache::no_cache()).retry_classifier(credentials.clone());
        builder = builder.credentials_provider(credentials);
    }
    let endpoint = custom_endpoint(&sdk);
    let custom = endpoint.is_some();
    refuse_open_way(customer_key.as_ref(), endpoint.as_deref())?;
    let path_style = options.path_style.unwrap_or(custom && !options.bucket.starts_with("arn:"));
    let checksums = options.checksums.unwrap_or(match sdk.request_checksum_calculation() {
        Some(RequestChecksumCalculation::WhenRequired) => Checksums::Off,
        _ if custom => Checksums::Bodies,
        _ => Checksums::Whole,
    });
    let mut builder = builder
        .force_path_style(path_style)
        // Only what is asked for by name: `s3::body` makes the sums, `s3::read` asks for them.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if options.no_sign_request {
        builder = builder.allow_no_auth();
    }
    let given = options.region.clone().map(|region| (region, RegionSource::Given));
    let known = given.or_else(|| Some((region_in_name(&options.bucket)?, RegionSource::Name)));
    let configured = sdk.region().map(|region| (region.as_ref().to_owned(), RegionSource::configured()));
    let (region, region_source) = match known {
        Some(region) => region,
        None if custom => configured.unwrap_or_else(|| (HOME_REGION.to_owned(), RegionSource::Default)),
        None => find_region(&sdk, &options.bucket, configured).await?,
    };
    let attempts = Attempts::default();
    let config = builder.region(Region::new(region.clone())).interceptor(attempts.clone()).build();
    Ok(S3Store {
        client: Client::from_conf(config),
        bucket: options.bucket.clone(),
        region,
        region_source,
        endpoint: endpoint.clone(),
        requester_pays: options.requester_pays,
        is_aws: !custom,
        checksums,
        body_signing: BodySigning::of(options.payload_signing, endpoint.as_deref()),
        refuses_sums: AtomicBool::new(false),
        told_of_copies: AtomicBool::new(false),
        sealing: Sealing::new(options.encryption.clone(), customer_key),
        attempts,
        attempt_timeout: options.attempt_timeout,
    })
}

/// A customer's key goes with each request: S3 refuses it over http, and others would let it be read on the way.
fn refuse_open_way(key: Option<&CustomerKey>, endpoint: Option<&str>) -> Result<()> {
    match endpoint.filter(|endpoint| key.is_some() && !is_protected(endpoint)) {
        Some(endpoint) => Err(Error::CustomerKey(format!(
            "the key of sse_c_key_file goes with each request, so that {endpoint} must begin with https://"
        ))),
        None => Ok(()),
    }
}

pub(super) async fn load(options: &StoreOptions, trust: Option<TlsContext>) -> SdkConfig {
    // Environment and profile only: the default chain would go on to ask the instance metadata service, which
    // off EC2 takes seconds to fail.
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &options.profile {
        profile = profile.profile_name(name);
    }
    let region = RegionProviderChain::first_try(options.region.clone().map(Region::new))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(profile.build());
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(options.attempt_timeout)
        .build();
    let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS).with_max_backoff(LONGEST_BACKOFF);
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client(trust))
        .region(region)
        .timeout_config(timeouts)
        .retry_config(retries)
        .stalled_stream_protection(
            StalledStreamProtectionConfig::enabled().grace_period(options.stall_timeout).build(),
        );
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(endpoint) = &options.endpoint_url {
        loader = loader.endpoint_url(endpoint);
    }
    if options.no_sign_request {
        loader = loader.no_credentials();
    } else if let Some(keys) = &options.keys {
        loader = loader.credentials_provider(Credentials::new(&keys.access_key, &keys.secret_key, None, None, "given"));
    }
    loader.load().await
}

/// Retries of all requests together are bounded by tokens; those of the SDK's default come back with successes
/// alone, so that after an outage the first hiccups would not be retried at all. These come back with time too.
fn retry_partition() -> RetryPartition {
    let tokens = TokenBucket::builder().capacity(RETRY_TOKENS).refill_rate(RETRY_TOKENS_PER_SECOND).build();
    RetryPartition::custom("pailfs").token_bucket(tokens).build()
}

/// The SDK's own HTTPS client, with a resolver whose failures have a type of their own: those of the default
/// one can be told from a refused connection by their text alone.
fn http_client(trust: Option<TlsContext>) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder().tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc));
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        if let Some(trust) = &trust {
            builder.set_tls_context(trust.clone());
        }
        builder.set_proxy_config(Some(ProxyConfig::from_env()));
        builder.build_with_resolver(TokioDnsResolver::new())
    })
}

/// Where requests go if not to AWS: by option, by `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_S3` or the
/// profile. The SDK finds the same address by the same rules.
pub(super) fn custom_endpoint(sdk: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let for_s3 = key.ok().and_then(|key| sdk.service_config()?.load_config(key));
    for_s3.or_else(|| sdk.endpoint_url().map(str::to_owned))
}

/// Asks what a user waits for before there is a mount: what can't be reached at all is told after two tries, and what is
/// only busy is asked with the patience of any other request.
pub(super) async fn ask_first<T>(ask: impl AsyncFn(Builder) -> Result<T>) -> Result<T> {
    let few = RetryConfig::standard().with_max_attempts(FIRST_ATTEMPTS);
    match ask(Builder::new().retry_config(few)).await {
        Err(Error::Unavailable(_) | Error::Timeout(_)) => ask(Builder::new()).await,
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::JoinHandle;

    use super::*;
    use crate::store::ObjectStore;
    use crate::types::ObjectKey;

    /// Answers one request with `answer` and gives back what it was, in lower case.
    fn answering(answer: &'static str) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let request = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"\r\n\r\n") {
                let len = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..len]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap().to_lowercase()
        });
        (endpoint, request)
    }

    fn at(endpoint: String) -> StoreOptions {
        let keys = AccessKeys { access_key: "key".into(), secret_key: "secret".into() };
        StoreOptions {
            bucket: "data".into(),
            endpoint_url: Some(endpoint),
            keys: Some(keys),
            ..StoreOptions::default()
        }
    }

    fn configured(region: &str) -> Option<(String, RegionSource)> {
        Some((region.to_owned(), RegionSource::Environment))
    }

    async fn region_by(answer: &'static str, configured: Option<(String, RegionSource)>) -> Result<String> {
        let (endpoint, request) = answering(answer);
        let found = find_region(&load(&at(endpoint), None).await, "data", configured).await;
        let request = request.join().unwrap();
        assert!(request.starts_with("head /data"), "{request}");
        assert!(!request.contains("authorization:"), "{request}");
        found.map(|(region, _)| region)
    }

    #[tokio::test]
    async fn any_answer_that_names_the_region_will_do() {
        for answer in [
            "HTTP/1.1 200 OK\r\nx-amz-bucket-region: eu-west-3\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 301 Moved Permanently\r\nx-amz-bucket-region: eu-west-3\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 403 Forbidden\r\nx-amz-bucket-region: eu-west-3\r\ncontent-length: 0\r\n\r\n",
        ] {
            assert_eq!(region_by(answer, configured("us-west-2")).await.unwrap(), "eu-west-3");
        }
    }

    #[tokio::test]
    async fn an_answer_without_a_region_leaves_the_configured_one() {
        let silent = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(region_by(silent, configured("us-west-2")).await.unwrap(), "us-west-2");
        assert!(matches!(region_by(silent, None).await, Err(Error::AccessDenied(_))));
        let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        assert!(matches!(region_by(missing, configured("us-west-2")).await, Err(Error::NoSuchBucket)));
    }

    #[tokio::test]
    async fn a_region_that_nobody_can_be_asked_for_is_asked_for_twice() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        std::thread::spawn(move || listener.incoming().for_each(|_| _ = counted.fetch_add(1, Ordering::SeqCst)));
        let sdk = load(&at(endpoint), None).await;
        let found = find_region(&sdk, "data", None).await;
        assert!(matches!(found, Err(Error::Unreachable(_))), "{found:?}");
        assert_eq!(tries.swap(0, Ordering::SeqCst), 2);
        assert_eq!(find_region(&sdk, "data", configured("us-west-2")).await.unwrap(), configured("us-west-2").unwrap());
        assert_eq!(tries.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn the_requester_says_that_it_pays() {
        let (endpoint, request) = answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        let store = connect(&StoreOptions { requester_pays: true, ..at(endpoint) }).await.unwrap();
        assert!(store.head(&ObjectKey::from_store("a")).await.is_err());
        let request = request.join().unwrap();
        assert!(request.contains("x-amz-request-payer: requester"), "{request}");
        assert!(request.contains("authorization: aws4-hmac-sha256"), "{request}");
    }

    #[tokio::test]
    async fn a_key_of_ones_own_goes_no_open_way() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, [7; 32]).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        for (endpoint, open) in [("http://h:9", true), ("https://h:9", false), ("http://127.0.0.1:9", false)] {
            let at = at(endpoint.to_owned());
            let refused = connect(&StoreOptions { customer_key_file: Some(file.clone()), ..at.clone() }).await.err();
            assert_eq!(refused.is_some_and(|error| error.to_string().contains("must begin with https://")), open);
            assert!(connect(&at).await.is_ok(), "{endpoint}");
        }
    }

    #[tokio::test]
    async fn another_region_is_named_by_the_refusal() {
        let answer = "HTTP/1.1 301 Moved Permanently\r\nx-amz-bucket-region: eu-west-3\r\ncontent-length: 0\r\n\r\n";
        let (endpoint, request) = answering(answer);
        let store = connect(&at(endpoint)).await.unwrap();
        let refused = store.head(&ObjectKey::from_store("a")).await;
        assert!(matches!(&refused, Err(Error::WrongRegion(Some(region))) if region == "eu-west-3"), "{refused:?}");
        request.join().unwrap();
    }
}
