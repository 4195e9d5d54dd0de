//! An OpenTelemetry collector that keeps what it is sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use actix_web::{App, HttpResponse, HttpServer, web};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;

/// A span that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The process that sent it.
    pub process: String,
    pub name: String,
    pub trace_id: String,
    pub span_id: String,
    /// Empty at the beginning of a trace.
    pub parent_id: String,
}

/// A collector on a port of its own, for OTLP over HTTP.
pub struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    pub url: String,
}

impl Collector {
    /// Starts it. It ends with the test's process.
    #[must_use]
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let spans = Arc::new(Mutex::new(Vec::new()));
        let data = web::Data::from(Arc::clone(&spans));
        thread::spawn(move || {
            let server = HttpServer::new(move || {
                App::new()
                    .app_data(data.clone())
                    .app_data(web::PayloadConfig::new(16 * 1024 * 1024))
                    .route("/v1/traces", web::post().to(receive))
            });
            let server = server.workers(1).disable_signals().listen(listener).expect("the port is ours").run();
            actix_web::rt::System::new().block_on(server)
        });
        Self { spans, url }
    }

    /// What it was sent so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn receive(spans: web::Data<Mutex<Vec<Span>>>, body: web::Bytes) -> HttpResponse {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return HttpResponse::BadRequest().finish() };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut kept = spans.lock().unwrap_or_else(PoisonError::into_inner);
    for resource in request.resource_spans {
        let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let name = attributes.into_iter().find(|attribute| attribute.key == "service.name");
        let process = name.and_then(|name| name.value).map(|value| format!("{value:?}")).unwrap_or_default();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            kept.push(Span {
                process: process.clone(),
                name: span.name,
                trace_id: hex(&span.trace_id),
                span_id: hex(&span.span_id),
                parent_id: hex(&span.parent_span_id),
            });
        }
    }
    HttpResponse::Ok().content_type("application/x-protobuf").finish()
}
