//! A trace goes on in whoever handles the event that it caused.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The field and header that carries the trace (W3C Trace Context).
pub(crate) const TRACEPARENT: &str = "traceparent";

/// The current span as `traceparent`. None when nothing is traced.
pub(crate) fn current() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(TRACEPARENT)
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
