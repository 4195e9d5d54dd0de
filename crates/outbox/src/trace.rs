//! A trace goes on in whoever handles the event that it caused.

use std::collections::HashMap;

use common::Trace;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The field and header that carries the trace (W3C Trace Context).
pub(crate) const TRACEPARENT: &str = "traceparent";

/// The trace in hand as `traceparent`. None where there is none.
pub(crate) fn current() -> Option<String> {
    Trace::current().map(|trace| trace.to_string())
}

/// Make `span` a child of the span that `traceparent` names. Does nothing when either is not traced.
pub(crate) fn follow(span: &Span, traceparent: Option<&str>) {
    if let Some(traceparent) = traceparent {
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
        let parent = TraceContextPropagator::new().extract(&carrier);
        // It fails only for a span that nobody records: then there is nothing to join.
        let _ = span.set_parent(parent);
    }
}
