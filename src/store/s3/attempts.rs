//! How often a request was sent: what callers ask for once may go over the wire several times. And by which clock the
//! answers were dated.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextRef, BeforeSerializationInterceptorContextRef,
    BeforeTransmitInterceptorContextRef,
};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;

/// Counts what the SDK sends.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Attempts(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    requests: AtomicU64,
    attempts: AtomicU64,
    /// Seconds; [`UNDATED`] before there was a dated answer.
    ahead: AtomicI64,
}

/// No clock is so far ahead.
const UNDATED: i64 = i64::MAX;

impl Default for Counters {
    fn default() -> Self {
        Counters { requests: AtomicU64::new(0), attempts: AtomicU64::new(0), ahead: AtomicI64::new(UNDATED) }
    }
}

impl Attempts {
    /// Attempts beyond the first of each request.
    pub(in crate::store) fn retries(&self) -> u64 {
        // A request is counted before its first attempt: in this order none is missed.
        let attempts = self.0.attempts.load(Ordering::SeqCst);
        attempts.saturating_sub(self.0.requests.load(Ordering::SeqCst))
    }

    /// How far the store's clock is ahead, in seconds, by its last dated answer.
    pub(in crate::store) fn clock_ahead(&self) -> Option<i64> {
        Some(self.0.ahead.load(Ordering::SeqCst)).filter(|ahead| *ahead != UNDATED)
    }
}

impl Intercept for Attempts {
    fn name(&self) -> &'static str {
        "Attempts"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.attempts.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|now| i64::try_from(now.as_secs()).ok());
        if let (Some(date), Some(now)) = (date, now) {
            self.0.ahead.store(date.secs().saturating_sub(now), Ordering::SeqCst);
        }
        Ok(())
    }
}
