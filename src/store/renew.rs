//! Credentials that are renewed: some time before they expire, and when the store says that they have.
//!
//! Owns when the credentials chain is asked again. It is built anew each time, so that files and variables that changed
//! are read again. What the chain consists of is `connect`'s business.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};

/// Credentials are renewed so long before they expire, or after three quarters of a shorter life.
const EARLY: Duration = Duration::from_secs(60);

/// Pause between two tries to renew credentials that still work.
const AGAIN: Duration = Duration::from_secs(5);

/// What may have another cause than their age is taken for it only of credentials that are older: they worked before. HEAD is
/// refused without a word of why.
const UNSPOKEN: Duration = Duration::from_secs(60);

/// What S3 says of credentials that worked before (S3 API Reference, "Error responses").
const EXPIRED: [&[u8]; 2] = [b"<Code>ExpiredToken</Code>", b"<Code>TokenRefreshRequired</Code>"];

/// What S3 says of keys that were never there, or are no more: they were replaced by others.
const UNKNOWN: &[u8] = b"<Code>InvalidAccessKeyId</Code>";

type Chain = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Option<SharedCredentialsProvider>> + Send>> + Send + Sync>;

/// The credentials of a mount.
#[derive(Clone)]
pub(super) struct Renewing {
    chain: Arc<Chain>,
    held: Arc<Mutex<Option<Held>>>,
    /// Held by who asks the chain; the others wait for what comes.
    renewal: Arc<tokio::sync::Mutex<()>>,
}

struct Held {
    credentials: Credentials,
    since: Instant,
    renew_at: Option<SystemTime>,
    tried: Option<Instant>,
    refused: bool,
}

impl std::fmt::Debug for Renewing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewing").finish_non_exhaustive()
    }
}

impl Renewing {
    /// Asks what `chain` makes, when credentials are needed first.
    pub(super) fn new<F>(chain: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<SharedCredentialsProvider>> + Send + 'static,
    {
        let chain: Chain = Box::new(move || Box::pin(chain()));
        Renewing { chain: Arc::new(chain), held: Arc::default(), renewal: Arc::default() }
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn good(&self) -> Option<Credentials> {
        let held = self.held();
        held.as_ref().filter(|held| held.is_good()).map(|held| held.credentials.clone())
    }

    async fn current(&self) -> provider::Result {
        if let Some(credentials) = self.good() {
            return Ok(credentials);
        }
        let _alone = self.renewal.lock().await;
        if let Some(credentials) = self.good() {
            return Ok(credentials);
        }
        let renewed = match (self.chain)().await {
            Some(chain) => chain.provide_credentials().await,
            None => Err(CredentialsError::not_loaded_no_source()),
        };
        let mut held = self.held();
        match (renewed, held.as_mut()) {
            (Ok(credentials), _) => {
                *held = Some(Held::new(credentials.clone()));
                Ok(credentials)
            }
            (Err(error), Some(old)) if old.still_works() => {
                tracing::warn!(%error, "the credentials will expire soon, and no new ones are to be had");
                old.tried = Some(Instant::now());
                Ok(old.credentials.clone())
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The store refused a request that was signed so. True when trying it again may help.
    fn refuse(&self, authorization: Option<&str>, spoken: bool) -> bool {
        let mut held = self.held();
        let Some(held) = held.as_mut() else { return true };
        let credential = format!("Credential={}/", held.credentials.access_key_id());
        if authorization.is_some_and(|header| !header.contains(&credential)) {
            // By others, which were renewed meanwhile.
            return true;
        }
        let expired = spoken || held.since.elapsed() >= UNSPOKEN;
        held.refused |= expired;
        expired
    }
}

impl Held {
    fn new(credentials: Credentials) -> Self {
        let now = SystemTime::now();
        let renew_at = credentials.expiry().map(|expiry| {
            let life = expiry.duration_since(now).unwrap_or_default();
            expiry - EARLY.min(life / 4)
        });
        Held { credentials, since: Instant::now(), renew_at, tried: None, refused: false }
    }

    fn is_good(&self) -> bool {
        let due = self.renew_at.is_some_and(|at| SystemTime::now() >= at);
        let waits = self.tried.is_some_and(|at| at.elapsed() < AGAIN);
        !self.refused && (!due || (waits && self.still_works()))
    }

    fn still_works(&self) -> bool {
        !self.refused && self.credentials.expiry().is_none_or(|expiry| SystemTime::now() < expiry)
    }
}

impl ProvideCredentials for Renewing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.current())
    }
}

impl ClassifyRetry for Renewing {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let Some(response) = context.response() else { return RetryAction::NoActionIndicated };
        let body = response.body().bytes().unwrap_or_default();
        let says = |code: &[u8]| body.windows(code.len()).any(|part| part == code);
        let spoken = EXPIRED.iter().any(|code| says(code));
        let without_a_word = response.status().as_u16() == 400 && body.is_empty();
        if !spoken && !without_a_word && !says(UNKNOWN) {
            return RetryAction::NoActionIndicated;
        }
        let authorization = context.request().and_then(|request| request.headers().get("authorization"));
        if self.refuse(authorization, spoken) { RetryAction::transient_error() } else { RetryAction::NoActionIndicated }
    }

    fn name(&self) -> &'static str {
        "expired credentials"
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Credentials that live so long, a new key each time they are asked for; `works` says how many times there are any.
    fn renewing(life: Option<Duration>, works: u64) -> (Renewing, Arc<AtomicU64>) {
        let asked = Arc::new(AtomicU64::new(0));
        let count = asked.clone();
        let renewing = Renewing::new(move || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let expiry = life.map(|life| SystemTime::now() + life);
            let made = Credentials::new(format!("key{number}"), "secret", None, expiry, "test");
            async move { (number < works).then(|| SharedCredentialsProvider::new(made)) }
        });
        (renewing, asked)
    }

    async fn key(renewing: &Renewing) -> Option<String> {
        renewing.provide_credentials().await.ok().map(|credentials| credentials.access_key_id().to_owned())
    }

    #[tokio::test]
    async fn good_credentials_are_asked_for_once() {
        for life in [None, Some(Duration::from_secs(3600))] {
            let (renewing, asked) = renewing(life, 9);
            for _ in 0..3 {
                assert_eq!(key(&renewing).await.as_deref(), Some("key0"));
            }
            assert_eq!(asked.load(Ordering::Relaxed), 1);
        }
    }

    #[tokio::test]
    async fn credentials_about_to_expire_are_renewed_and_used_on_where_there_are_no_new_ones() {
        let (renewing, asked) = renewing(Some(Duration::from_secs(600)), 1);
        assert_eq!(key(&renewing).await.as_deref(), Some("key0"));
        renewing.held().as_mut().expect("credentials").renew_at = Some(SystemTime::now());
        for _ in 0..3 {
            assert_eq!(key(&renewing).await.as_deref(), Some("key0"), "they still work");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2, "a try for each request");
    }

    #[tokio::test]
    async fn expired_credentials_are_never_used() {
        let (renewing, _) = renewing(Some(Duration::ZERO), 2);
        assert_eq!(key(&renewing).await.as_deref(), Some("key0"), "what the chain gives is tried");
        assert_eq!(key(&renewing).await.as_deref(), Some("key1"));
        assert_eq!(key(&renewing).await, None);
    }

    #[tokio::test]
    async fn refused_credentials_are_renewed_and_later_refusals_of_the_old_ones_change_nothing() {
        let (renewing, asked) = renewing(None, 9);
        let old = Some("AWS4-HMAC-SHA256 Credential=key0/20260101/us-east-1/s3/aws4_request, Signature=0");
        assert_eq!(key(&renewing).await.as_deref(), Some("key0"));
        assert!(renewing.refuse(old, true));
        for _ in 0..3 {
            assert_eq!(key(&renewing).await.as_deref(), Some("key1"));
            assert!(renewing.refuse(old, true), "what was signed with the old ones is tried again");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    /// What is made of an answer to a request of ten minutes, or of a moment, after the credentials came.
    fn is_tried_again(status: u16, body: &'static str, old: bool) -> bool {
        use aws_smithy_runtime_api::client::interceptors::context::Input;
        use aws_smithy_runtime_api::http::{Response, StatusCode};
        use aws_smithy_types::body::SdkBody;

        let (renewing, _) = renewing(None, 9);
        let mut held = Held::new(Credentials::new("key0", "secret", None, None, "test"));
        if old {
            held.since = Instant::now().checked_sub(UNSPOKEN).expect("the machine is up for longer");
        }
        *renewing.held() = Some(held);
        let mut context = InterceptorContext::new(Input::erase(()));
        let status = StatusCode::try_from(status).expect("a status");
        context.set_response(Response::new(status, SdkBody::from(body)));
        let action = renewing.classify_retry(&context);
        assert_eq!(renewing.good().is_none(), action != RetryAction::NoActionIndicated, "renewed, and not tried again");
        action != RetryAction::NoActionIndicated
    }

    #[test]
    fn keys_that_were_replaced_are_asked_for_anew() {
        const GONE: &str = "<Error><Code>InvalidAccessKeyId</Code></Error>";
        assert!(is_tried_again(403, GONE, true));
        assert!(!is_tried_again(403, GONE, false), "keys that never worked fail at once");
        assert!(is_tried_again(400, "<Error><Code>ExpiredToken</Code></Error>", false));
        assert!(!is_tried_again(403, "<Error><Code>AccessDenied</Code></Error>", true));
        assert!(!is_tried_again(403, "", true));
        assert!(is_tried_again(400, "", true));
        assert!(!is_tried_again(400, "", false));
    }

    #[tokio::test]
    async fn a_refusal_without_a_word_is_expiry_only_of_old_credentials() {
        let (renewing, _) = renewing(None, 9);
        assert_eq!(key(&renewing).await.as_deref(), Some("key0"));
        assert!(!renewing.refuse(None, false));
        let long_ago = Instant::now().checked_sub(UNSPOKEN).expect("the machine is up for longer");
        renewing.held().as_mut().expect("credentials").since = long_ago;
        assert!(renewing.refuse(None, false));
        assert_eq!(key(&renewing).await.as_deref(), Some("key1"));
    }
}
