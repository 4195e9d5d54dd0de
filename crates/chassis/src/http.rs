//! The HTTP server of a service behind the gateway: the same request span, request id, access log, metrics and error format everywhere.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_codec::Framed;
use actix_http::{HttpService, Request, h1};
use actix_server::Server;
use actix_service::{IntoServiceFactory as _, Service, ServiceFactory, fn_factory, map_config};
use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use actix_web::error::{JsonPayloadError, PathError, QueryPayloadError};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpMessage as _, HttpRequest, HttpResponse, ResponseError as _, web};
use common::problem::kinds;
use common::{Problem, Trace, Verifier};
use opentelemetry::global;
use opentelemetry::trace::TraceContextExt as _;
use socket2::SockRef;
use tokio::net::TcpStream;
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::upgrade::{BrokenOff, Upgrades};

/// The header that names a request in logs, from the gateway to the last service.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bodies of JSON requests are at most this long, in bytes, unless a route says otherwise.
pub const JSON_LIMIT: usize = 64 * 1024;
/// How long an idle connection stays open. Above the 30 s after which the gateway lets go of one, so that the
/// gateway never sends a request into a connection that is just closing.
pub const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// A client that takes nothing of what was sent to it for this long is cut off: nothing else would notice that it has
/// stopped reading.
pub const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);
/// A client that has not sent a request's head by then is slow, broken or hostile.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What a service adds to its server.
pub type Routes = Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>;

/// Who sends requests to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// Anyone.
    Public,
    /// The gateway.
    Internal,
}

/// The id of the request in hand, from its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

/// How a server is run.
pub struct Options {
    /// In logs and metrics.
    pub service: &'static str,
    /// Worker threads.
    pub workers: usize,
    /// How long requests in flight may take when the server stops.
    pub drain: Duration,
}

/// A server on `listener`. It does nothing until it is awaited.
pub fn server(listener: TcpListener, options: Options, verifier: Verifier, routes: Routes) -> std::io::Result<Server> {
    let Options { service, workers, drain } = options;
    // Accepted connections inherit it.
    SockRef::from(&listener).set_tcp_user_timeout(Some(UNREAD_TIMEOUT))?;
    let builder = Server::build().workers(workers).shutdown_timeout(drain.as_secs().max(1)).disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let serve = move || {
        let stopping = stopping.clone();
        let app = || app(service, verifier.clone(), Arc::clone(&routes));
        HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(HEAD_TIMEOUT)
            // A client that closes its half has left: only so is an answer that it waits for taken back at once.
            .h1_allow_half_closed(false)
            // Without it, Nagle's algorithm holds back the last part of an answer for up to 40 ms.
            .tcp_nodelay(true)
            .upgrade(upgrades(app()))
            .finish(map_config(app(), |()| AppConfig::default()))
            .tcp()
    };
    Ok(builder.listen(service, listener, serve)?.run())
}

/// What answers requests.
fn app(
    service: &'static str,
    verifier: Verifier,
    routes: Routes,
) -> impl ServiceFactory<
    Request,
    Config = AppConfig,
    Response = ServiceResponse,
    Error = actix_web::Error,
    InitError = (),
    Service = impl Service<Request, Response = ServiceResponse, Error = actix_web::Error, Future: 'static> + 'static,
    Future: 'static,
> + 'static {
    App::new()
        .wrap(from_fn(move |request, next| observe(service, request, next)))
        .app_data(web::Data::new(verifier))
        .app_data(web::JsonConfig::default().limit(JSON_LIMIT).error_handler(|error, _| json_problem(&error).into()))
        .app_data(web::QueryConfig::default().error_handler(|error, _| query_problem(&error).into()))
        .app_data(web::PathConfig::default().error_handler(|error, request| path_problem(&error, request).into()))
        .default_service(web::to(no_such_path))
        .configure(move |config| routes(config))
        .into_factory()
}

/// What answers those that ask for an upgrade.
fn upgrades<F, S>(
    app: F,
) -> impl ServiceFactory<
    (Request, Framed<TcpStream, h1::Codec>),
    Config = (),
    Response = (),
    Error = BrokenOff,
    InitError = (),
    Service = Upgrades<S>,
    Future: 'static,
> + 'static
where
    F: ServiceFactory<Request, Config = AppConfig, Service = S, InitError = (), Future: 'static> + 'static,
    S: Service<Request, Response = ServiceResponse, Error = actix_web::Error> + 'static,
{
    fn_factory(move || {
        let app = app.new_service(AppConfig::default());
        async move { Ok(Upgrades::new(app.await?)) }
    })
}

async fn no_such_path(request: HttpRequest) -> HttpResponse {
    kinds::NO_SUCH_PATH.say(format!("nothing is at {}", request.path())).error_response()
}

fn json_problem(error: &JsonPayloadError) -> Problem {
    match error {
        JsonPayloadError::OverflowKnownLength { limit, .. } | JsonPayloadError::Overflow { limit } => {
            kinds::BODY_TOO_LARGE.say(format!("the body may have at most {limit} bytes")).with("max_bytes", limit)
        }
        JsonPayloadError::ContentType => {
            kinds::UNSUPPORTED_MEDIA_TYPE.say("send JSON, with `Content-Type: application/json`")
        }
        JsonPayloadError::Deserialize(error) => kinds::BAD_REQUEST.say(format!("the body cannot be read: {error}")),
        _ => kinds::BAD_REQUEST.say("the body did not arrive whole"),
    }
}

fn query_problem(error: &QueryPayloadError) -> Problem {
    kinds::BAD_REQUEST.say(format!("the query cannot be read: {error}"))
}

/// A path that cannot be an id names nothing, so it is not found rather than wrong.
fn path_problem(_: &PathError, request: &HttpRequest) -> Problem {
    kinds::NO_SUCH_PATH.say(format!("nothing is at {}", request.path()))
}

/// Everything that happens around each request.
async fn observe(
    service: &'static str,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse, actix_web::Error> {
    let start = Instant::now();
    let told = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let request_id = told.map_or_else(|| Trace::begin().id().to_string(), str::to_owned);
    request.extensions_mut().insert(RequestId(request_id.clone()));
    let method = request.method().clone();

    let span = tracing::info_span!("http.request", otel.kind = "server", service, request_id);
    let told = request.headers().get("traceparent").and_then(|told| told.to_str().ok());
    let trace = follow(&span, told).or_else(|| Trace::parse(told?)).unwrap_or_else(Trace::begin);

    let answered = trace.scope(next.call(request).instrument(span.clone())).await;
    let mut response = answered?.map_into_boxed_body();

    if is_bare_refusal(&response) {
        let problem =
            kinds::METHOD_NOT_ALLOWED.say(format!("{method} is not possible at {}", response.request().path()));
        let refusal = span.in_scope(|| trace.within(|| problem.error_response()));
        let allow = response.headers().get(actix_web::http::header::ALLOW).cloned();
        response = response.into_response(refusal);
        if let Some(allow) = allow {
            response.headers_mut().insert(actix_web::http::header::ALLOW, allow);
        }
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }

    let status = response.status().as_u16();
    let route = route_of(&response);
    // For traces alone: the access log says these by itself.
    span.context().span().update_name(format!("{method} {route}"));
    span.set_attribute("http.request.method", method.to_string());
    span.set_attribute("http.route", route.clone());
    span.set_attribute("http.response.status_code", i64::from(status));
    let took = start.elapsed();
    metrics::histogram!(
        "http_request_duration_seconds",
        "service" => service, "method" => label_of(&method), "route" => route.clone(), "status" => status.to_string(),
    )
    .record(took.as_secs_f64());
    let path = target_of(&response);
    let client = client_of(response.request());
    // To the head of the answer: a body may go on for hours.
    let took_ms = took.as_micros() as f64 / 1000.0;
    // The gateway has told of it at `info`.
    span.in_scope(|| {
        tracing::debug!(%method, path, route, status, took_ms, client, request_id, "request");
    });
    Ok(response)
}

/// Whether actix refused the method by itself, with an empty body.
fn is_bare_refusal(response: &ServiceResponse) -> bool {
    response.status() == StatusCode::METHOD_NOT_ALLOWED
        && matches!(response.response().body().size(), BodySize::None | BodySize::Sized(0))
}

/// The method, if it is one of those that are used: clients invent others, and a metric needs a bound.
#[must_use]
pub fn label_of(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    known.into_iter().find(|name| *name == method.as_str()).unwrap_or("other")
}

/// The pattern of the route, never the path: paths have no bound, and a metric needs one.
fn route_of(response: &ServiceResponse) -> String {
    response.request().match_pattern().unwrap_or_else(|| "none".to_owned())
}

fn target_of(response: &ServiceResponse) -> String {
    let request = response.request();
    match request.match_pattern() {
        // A part of the path is a secret.
        Some(pattern) if pattern.contains("{secret}") => redact(&pattern, request.query_string()),
        _ => redact(request.path(), request.query_string()),
    }
}

/// Where the request came from: what the gateway says, else the peer.
fn client_of(request: &HttpRequest) -> String {
    let told = request.headers().get("x-forwarded-for").and_then(|value| value.to_str().ok());
    match (told, request.peer_addr()) {
        (Some(told), _) => told.to_owned(),
        (None, Some(peer)) => peer.ip().to_string(),
        (None, None) => String::new(),
    }
}

/// Parameters that carry secrets, by the last word of their name. Who has the `sid` of a Socket.IO session has the session.
const SECRET_WORDS: &[&str] =
    &["token", "secret", "key", "ticket", "code", "password", "jwt", "signature", "auth", "sid"];

/// A path and query as they may be logged: values of parameters that carry secrets are replaced by `…`.
#[must_use]
pub fn redact(path: &str, query: &str) -> String {
    if query.is_empty() {
        return path.to_owned();
    }
    let shown: Vec<_> = query
        .split('&')
        .map(|pair| {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            let plain: String = name.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
            // A name that is itself encoded is not worth decoding: it is hidden.
            let is_secret = name.contains('%') || SECRET_WORDS.iter().any(|word| plain.ends_with(word));
            if is_secret { format!("{}=…", name.split('%').next().unwrap_or_default()) } else { pair.to_owned() }
        })
        .collect();
    format!("{path}?{}", shown.join("&"))
}

/// Makes `span` a part of the trace that `traceparent` names, and returns where that is. `None` where nobody collects traces.
fn follow(span: &tracing::Span, traceparent: Option<&str>) -> Option<Trace> {
    if let Some(traceparent) = traceparent {
        let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
        let parent = global::get_text_map_propagator(|propagator| propagator.extract(&carrier));
        // Fails only when nothing collects spans; then there is no trace to continue.
        let _ = span.set_parent(parent);
    }
    Trace::of(span)
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn secrets_in_a_query_are_not_shown() {
        let shown =
            redact("/ws", "room_id=7&sid=1.abc&token=abc&access_token=abc&streamKey=abc&t%6fken=abc&Ticket=abc");
        assert_eq!(shown, "/ws?room_id=7&sid=…&token=…&access_token=…&streamKey=…&t=…&Ticket=…");
        assert_eq!(redact("/streams", ""), "/streams");
    }
}
