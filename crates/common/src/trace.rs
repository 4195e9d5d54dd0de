//! The trace that a request belongs to, also where nothing collects traces: every error and every log line carries its id.

use std::cell::RefCell;
use std::fmt;

use opentelemetry::trace::TraceContextExt as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::task::futures::TaskLocalFuture;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Where in a trace we are, as W3C Trace Context has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    pub trace_id: u128,
    pub span_id: u64,
    /// Whether somebody records it.
    pub is_sampled: bool,
}

tokio::task_local! {
    static CURRENT: Trace;
}

thread_local! {
    // Ids need to be unlike each other, not secret: the operating system is asked once a thread, not once a request.
    static RANDOM: RefCell<fastrand::Rng> = RefCell::new(fastrand::Rng::with_seed(seed()));
}

fn seed() -> u64 {
    let mut seed = [0; 8];
    match SystemRandom::new().fill(&mut seed) {
        Ok(()) => u64::from_le_bytes(seed),
        Err(_) => fastrand::u64(..),
    }
}

impl Trace {
    /// A new trace, which nobody records.
    #[must_use]
    pub fn begin() -> Self {
        RANDOM.with_borrow_mut(|random| Self {
            // Neither may be 0, which stands for none.
            trace_id: random.u128(1..),
            span_id: random.u64(1..),
            is_sampled: false,
        })
    }

    /// That of `span`, if something makes ids for spans.
    #[must_use]
    pub fn of(span: &tracing::Span) -> Option<Self> {
        let context = span.context();
        let span = context.span();
        let context = span.span_context();
        context.is_valid().then(|| Self {
            trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(context.span_id().to_bytes()),
            is_sampled: context.is_sampled(),
        })
    }

    /// The trace in hand: that of the current span where spans are collected, else that of the task.
    #[must_use]
    pub fn current() -> Option<Self> {
        Self::of(&tracing::Span::current()).or_else(|| CURRENT.try_get().ok())
    }

    /// Runs `future` as a part of this trace.
    pub fn scope<F: Future>(self, future: F) -> TaskLocalFuture<Self, F> {
        CURRENT.scope(self, future)
    }

    /// Runs `work` as a part of this trace.
    pub fn within<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, work)
    }

    /// What the header `traceparent` says, if it says something.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version.len() != 2 || version == "ff" || trace_id.len() != 32 || span_id.len() != 16 || flags.len() != 2 {
            return None;
        }
        let trace = Self {
            trace_id: u128::from_str_radix(trace_id, 16).ok()?,
            span_id: u64::from_str_radix(span_id, 16).ok()?,
            is_sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        };
        (trace.trace_id != 0 && trace.span_id != 0).then_some(trace)
    }

    /// The id of the trace: 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> Hex<32> {
        Hex::of(&self.trace_id.to_be_bytes())
    }
}

/// So many hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hex<const DIGITS: usize>([u8; DIGITS]);

impl<const DIGITS: usize> Hex<DIGITS> {
    fn of(bytes: &[u8]) -> Self {
        let mut digits = [b'0'; DIGITS];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair[0] = DIGITS_OF[usize::from(byte >> 4)];
            pair[1] = DIGITS_OF[usize::from(byte & 15)];
        }
        Self(digits)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        // They are digits, so they are text.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

const DIGITS_OF: &[u8; 16] = b"0123456789abcdef";

impl<const DIGITS: usize> fmt::Display for Hex<DIGITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// As the header `traceparent`.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        f.write_str(self.id().as_str())?;
        f.write_str("-")?;
        f.write_str(Hex::<16>::of(&self.span_id.to_be_bytes()).as_str())?;
        f.write_str(if self.is_sampled { "-01" } else { "-00" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_trace_is_there_for_as_long_as_its_scope() {
        let trace = Trace::begin();
        assert_eq!(trace.scope(async { Trace::current() }).await, Some(trace));
        assert_eq!(Trace::current(), None);
    }

    #[test]
    fn traceparent_is_written_as_w3c_has_it() {
        let trace = Trace { trace_id: 0xabc, span_id: 0xdef, is_sampled: true };
        assert_eq!(trace.to_string(), "00-00000000000000000000000000000abc-0000000000000def-01");
        assert_eq!(trace.id().to_string(), "00000000000000000000000000000abc");
        assert_eq!(Trace::parse(&trace.to_string()), Some(trace));
        for wrong in [
            "",
            "00-0-0-0",
            "ff-00000000000000000000000000000abc-0000000000000def-01",
            "00-00000000000000000000000000000000-0000000000000def-01",
        ] {
            assert_eq!(Trace::parse(wrong), None, "{wrong}");
        }
    }
}
