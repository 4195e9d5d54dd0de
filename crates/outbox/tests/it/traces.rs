//! A trace goes on in whoever handles the event.

use events::Envelope;
use opentelemetry::trace::{TraceContextExt, TraceId, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use outbox::{Handler, HandlerError};
use tokio::sync::mpsc;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::house::{House, soon};

on_both_transports!(the_handler_belongs_to_the_trace_of_the_change);

/// Tells in which trace it runs, and which trace the event names.
struct Trace(mpsc::UnboundedSender<(TraceId, Option<String>)>);

impl Handler for Trace {
    async fn handle(&self, _: &mut diesel_async::AsyncPgConnection, envelope: &Envelope) -> Result<(), HandlerError> {
        self.0.send((trace_of(&Span::current()), envelope.traceparent.clone())).unwrap();
        Ok(())
    }
}

async fn the_handler_belongs_to_the_trace_of_the_change(house: House) {
    record_traces();
    let (send, mut handled) = mpsc::unbounded_channel();
    house.relay();
    house.consume_with(Trace(send));

    let request = tracing::info_span!("request");
    house.publish([1]).instrument(request.clone()).await;
    house.publish([2]).await;

    let (trace_id, traceparent) = soon("an event is handled", handled.recv()).await.unwrap();
    assert_eq!(trace_id, trace_of(&request));
    assert_ne!(trace_id, TraceId::INVALID);
    assert!(traceparent.unwrap().starts_with(&format!("00-{trace_id}-")));

    let (other_trace_id, traceparent) = soon("an event is handled", handled.recv()).await.unwrap();
    assert_ne!(other_trace_id, trace_id);
    assert_eq!(traceparent, None);
    house.close().await;
}

fn trace_of(span: &Span) -> TraceId {
    span.context().span().span_context().trace_id()
}

fn record_traces() {
    let tracer = SdkTracerProvider::builder().build().tracer("test");
    // Where tests share a process the first of them has done it.
    let _ = tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(tracer)).try_init();
}
