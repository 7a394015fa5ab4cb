//! One request, from the accepted connection to the reply: counted, struck by a fault, slowed, handed to the S3
//! service.
//!
//! Owns how faults become visible on the connection, and who may do what. What an operation means is the backend's.

use super::body::{BodyError, Flaw, Meter, ReplyBody, RequestBody};
use super::checksums::ETags;
use super::counters::Tally;
use super::faults::{FaultKind, Faults};
use super::operation::{Address, Operation};
use super::shape::{Connection, Path, Shaper};
use super::state::State;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, DATE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::service::S3Service;
use s3s::{S3Result, s3_error};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// What all requests share, and the server's handle steers.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: State,
    pub(super) faults: Faults,
    pub(super) shaper: Arc<Shaper>,
    pub(super) tally: Arc<Tally>,
    pub(super) region: String,
    pub(super) etags: ETags,
    /// Seconds that the server's clock is ahead of the machine's.
    pub(super) clock_ahead: AtomicI64,
}

/// Marks a request whose GET shall answer another range.
#[derive(Debug, Clone, Copy)]
pub(super) struct WrongRange;

/// How far the clock of a client may be off (S3 API Reference, "RequestTimeTooSkewed").
const SKEW_LIMIT: Duration = Duration::from_secs(900);

/// Answers one request; an error closes the connection without a reply.
pub(super) async fn handle(
    s3: S3Service,
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, BodyError> {
    let address = Address::read(request.method(), request.uri(), request.headers());
    let renames = is_rename(&request);
    shared.tally.request(address.operation);
    let path = Path { shaper: shared.shaper.clone(), connection };
    let meter = Meter { operation: address.operation, tally: shared.tally.clone(), path };
    let fault = shared.faults.strike(&address);

    let (parts, incoming) = request.into_parts();
    let body = RequestBody::new(incoming, meter.clone());
    let mut request = Request::from_parts(parts, s3s::Body::http_body(body.clone()));
    request.extensions_mut().insert(address);

    let mut flaw = None;
    let mut reply = match fault {
        Some(FaultKind::DropBeforeApply) => return Err("closed before the request took effect, on demand".into()),
        Some(FaultKind::Answer { status, code }) => error_reply(status, &code, &shared.region),
        None if shared.clock_ahead().unsigned_abs() > SKEW_LIMIT.as_secs() => {
            error_reply(403, "RequestTimeTooSkewed", &shared.region)
        }
        Some(FaultKind::ApplyThenDrop) => {
            s3.call(request).await?;
            return Err("closed after the request took effect, on demand".into());
        }
        Some(FaultKind::ApplyThenAnswer { status, code }) => {
            s3.call(request).await?;
            error_reply(status, &code, &shared.region)
        }
        Some(FaultKind::Silence { applied, pause }) => {
            if applied {
                s3.call(request).await?;
            }
            tokio::time::sleep(pause).await;
            return Err("closed after a silence, on demand".into());
        }
        _ if renames => error_reply(501, "NotImplemented", &shared.region),
        other => {
            flaw = other.as_ref().and_then(flaw_of);
            if other == Some(FaultKind::WrongRange) {
                request.extensions_mut().insert(WrongRange);
            }
            s3.call(request).await?
        }
    };
    if reply.status().is_client_error() || reply.status().is_server_error() {
        body.drain().await;
    }
    shared.date(&mut reply);
    let first_byte = shared.shaper.get().first_byte;
    if !first_byte.is_zero() {
        tokio::time::sleep(first_byte).await;
    }
    Ok(without_forbidden_body(reply).map(|body| ReplyBody::new(body, meter, flaw)))
}

/// A server that does not know RenameObject must not take it for a PUT of nothing.
fn is_rename(request: &Request<Incoming>) -> bool {
    request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("renameObject")))
}

fn flaw_of(kind: &FaultKind) -> Option<Flaw> {
    match *kind {
        FaultKind::CutBody { after } => Some(Flaw::Cut { after }),
        FaultKind::StallBody { after, pause } => Some(Flaw::Stall { after, pause }),
        FaultKind::CorruptBody { at } => Some(Flaw::Corrupt { at }),
        _ => None,
    }
}

/// An error as S3 writes it. A redirect names the region.
fn error_reply(status: u16, code: &str, region: &str) -> Response<s3s::Body> {
    let place = if status == 301 { format!("<Region>{region}</Region>") } else { String::new() };
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <Error><Code>{code}</Code><Message>on demand</Message>{place}</Error>"
    );
    let mut reply = Response::new(s3s::Body::from(text));
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/xml"));
    reply
}

/// 304 has no body, and says nothing about the length of one.
fn without_forbidden_body(mut reply: Response<s3s::Body>) -> Response<s3s::Body> {
    if reply.status() == StatusCode::NOT_MODIFIED {
        reply.headers_mut().remove(CONTENT_LENGTH);
        *reply.body_mut() = s3s::Body::empty();
    }
    reply
}

/// The one key pair of the server.
pub(super) struct Keys {
    pub(super) access_key: String,
    pub(super) secret_key: String,
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.access_key {
            return Ok(SecretKey::from(self.secret_key.as_str()));
        }
        Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records."))
    }
}

/// Who may do what: the holder of the keys everything that is not denied, anybody else nothing.
pub(super) struct Gate(pub(super) Arc<Shared>);

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let known = cx.credentials().is_some();
        let denied = cx.extensions_mut().get::<Address>().is_some_and(|a| self.0.faults.is_denied(a.operation, &a.key));
        if known && !denied { Ok(()) } else { Err(access_denied()) }
    }
}

pub(super) fn access_denied() -> s3s::S3Error {
    s3_error!(AccessDenied, "Access Denied")
}

impl Shared {
    fn clock_ahead(&self) -> i64 {
        self.clock_ahead.load(Ordering::SeqCst)
    }

    /// Dates an answer by the server's clock, where that is not the machine's.
    fn date(&self, reply: &mut Response<s3s::Body>) {
        let (ahead, now) = (self.clock_ahead(), SystemTime::now());
        let off = Duration::from_secs(ahead.unsigned_abs());
        let shown = if ahead < 0 { now.checked_sub(off) } else { now.checked_add(off) };
        let mut text = Vec::new();
        let Some(shown) = shown.filter(|_| ahead != 0) else { return };
        if Timestamp::from(shown).format(TimestampFormat::HttpDate, &mut text).is_ok()
            && let Ok(value) = HeaderValue::from_bytes(&text)
        {
            reply.headers_mut().insert(DATE, value);
        }
    }

    /// For what one request does beyond its own address, such as reading the source of a copy.
    pub(super) fn check_access(&self, operation: Operation, key: &str) -> S3Result {
        if self.faults.is_denied(operation, key) { Err(access_denied()) } else { Ok(()) }
    }
}
