//! The way of a request through the gateway: route, token, headers, upstream, answer.

use std::time::Duration;

use actix_web::body::{BodySize, MessageBody as _};
use actix_web::dev::Payload;
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode, Version};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, ResponseError as _, web};
use chassis::http::{LoggedTarget, REQUEST_ID, RequestId, RoutePattern, redact, traceparent};
use common::Problem;
use common::problem::kinds;
use futures_util::StreamExt as _;

use crate::headers::Inbound;
use crate::path;
use crate::problems::{self, CROOKED_PATH, CROOKED_UPGRADE};
use crate::router::Found;
use crate::table::Methods;
use crate::unread::Unread;
use crate::upstream::{RequestBuilder, RequestFraming, Response};
use crate::worker::Worker;

/// The most of a body, in bytes, that is read only to be thrown away, so that a refused client's connection lives on.
const DRAIN: usize = 64 * 1024;
/// How long a client may take to send it.
const DRAIN_WAIT: Duration = Duration::from_secs(1);
/// How many segments of an unknown path are logged: what comes later may be a secret that was sent to the wrong place.
const LOGGED_SEGMENTS: usize = 2;

/// Passes a request on to the service of its route, and the answer back.
///
/// Answers 400 to a path, a body or an upgrade with two meanings, 404 to an unknown path, 405 to a method that the route
/// does not take, and 401 without a valid token where one is needed; then no service is asked. 503 if the service cannot
/// be reached, 504 if it is silent, 502 if it breaks off; 408 if the client stops in the middle of its body.
pub async fn forward(request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let worker = Worker::of(&request)?;
    let payload = payload.into_inner();
    if !request.headers().contains_key(header::TRANSFER_ENCODING) {
        return pass_on(worker, &request, payload).await;
    }
    let (payload, unread) = Unread::share(payload);
    let answer = pass_on(worker, &request, payload).await.unwrap_or_else(|problem| problem.error_response());
    Ok(unread.held_by(answer))
}

async fn pass_on(worker: &Worker, request: &HttpRequest, mut payload: Payload) -> Result<HttpResponse, Problem> {
    let (found, framing) = match admit(worker, request) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            drain(request, &mut payload).await;
            return Ok(refusal.answer());
        }
    };
    let service = found.route.service;
    let upstream = worker.upstream(service);
    let mut outbound = RequestBuilder::new(request.method(), &found.path, request.uri().query(), upstream.host());
    for (name, value) in Inbound::new(request.headers(), found.route).iter() {
        outbound.header(name, value);
    }
    say_who_asks(&mut outbound, worker.scheme, request);
    match upstream.send(outbound.body(framing, payload)).await {
        Ok(response) => Ok(answer(request, framing, response)),
        Err(error) => Err(problems::of_upstream(service.name(), error)),
    }
}

/// Why no service hears of a request.
struct Refusal {
    problem: Problem,
    /// What the route lets through, where the method was at fault.
    allowed: Option<Methods>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, allowed: None }
    }
}

impl Refusal {
    fn answer(self) -> HttpResponse {
        let mut answer = self.problem.error_response();
        if let Some(methods) = self.allowed {
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods.allow()));
        }
        answer
    }
}

/// Everything that is checked before a service hears of the request. Names the route for logs and metrics.
fn admit<'a>(worker: &Worker, request: &'a HttpRequest) -> Result<(Found<'a>, RequestFraming), Refusal> {
    let path = request.uri().path();
    let log_as = |shown: &str| {
        request.extensions_mut().insert(LoggedTarget(redact(shown, request.query_string())));
    };
    path::check(path).map_err(|crooked| {
        log_as(&beginning(path));
        CROOKED_PATH.say(crooked)
    })?;
    let found = worker.router.find(path).ok_or_else(|| {
        log_as(&beginning(path));
        kinds::NO_SUCH_PATH.say(format!("nothing is at {path}"))
    })?;
    if let Some(logged) = &found.logged {
        log_as(logged);
    }
    request.extensions_mut().insert(RoutePattern(found.pattern.into()));
    let method = request.method();
    if !found.route.methods.contains(method) {
        let problem = kinds::METHOD_NOT_ALLOWED.say(format!("{method} is not possible at {}", found.pattern));
        return Err(Refusal { problem, allowed: Some(found.route.methods) });
    }
    let framing = framing(request)?;
    if found.route.access.needs_token(method) {
        worker.verifier.caller(request, found.route.token_in_query).map_err(Problem::from)?;
    }
    Ok((found, framing))
}

/// The first segments of a path that nobody knows.
fn beginning(path: &str) -> String {
    match path.match_indices('/').nth(LOGGED_SEGMENTS) {
        Some((end, _)) => format!("{}/…", &path[..end]),
        None => path.to_owned(),
    }
}

/// How the body goes on to the service: as it came, but framed anew.
fn framing(request: &HttpRequest) -> Result<RequestFraming, Problem> {
    let headers = request.headers();
    let has_body = headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    if asks_for_websocket(request) {
        // The server takes whatever follows such a head as it comes, so it has to be a handshake and nothing else.
        let is_handshake =
            request.method() == Method::GET && request.version() == Version::HTTP_11 && request.head().upgrade();
        if !is_handshake || has_body {
            return Err(
                CROOKED_UPGRADE.say("a WebSocket begins with GET in HTTP/1.1, `Connection: Upgrade` and no body")
            );
        }
        return Ok(RequestFraming::Upgrade);
    }
    // The server has refused requests with both, with either twice, or with a length that is not plain. It refuses other
    // codings too, but a service must never be told of chunks that the server did not read as such: so they are checked.
    if let Some(encoding) = headers.get(header::TRANSFER_ENCODING) {
        let is_chunked = request.version() == Version::HTTP_11 && encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
        return if is_chunked {
            Ok(RequestFraming::Chunked)
        } else {
            Err(kinds::BAD_REQUEST.say("a body comes with `Content-Length`, or in HTTP/1.1 as `chunked`"))
        };
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.trim().parse().ok());
    Ok(length.map_or(RequestFraming::None, RequestFraming::Length))
}

fn asks_for_websocket(request: &HttpRequest) -> bool {
    request
        .headers()
        .get_all(header::UPGRADE)
        .any(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

/// Adds what the service may believe of the client.
///
/// Its address is that of the TCP peer: behind a load balancer, the load balancer's. `X-Forwarded-For` of a request is
/// believed from nobody yet.
fn say_who_asks(outbound: &mut RequestBuilder, scheme: &str, request: &HttpRequest) {
    if let Some(peer) = request.peer_addr() {
        outbound.header("x-forwarded-for", peer.ip().to_string().as_bytes());
    }
    outbound.header("x-forwarded-proto", scheme.as_bytes());
    if let Some(host) = request.headers().get(header::HOST) {
        outbound.header("x-forwarded-host", host.as_bytes());
    }
    if let Some(RequestId(id)) = request.extensions().get() {
        outbound.header(REQUEST_ID.as_str(), id.as_bytes());
    }
    if let Some(traceparent) = traceparent() {
        outbound.header("traceparent", traceparent.as_bytes());
    }
}

/// The service's answer for the client.
fn answer(request: &HttpRequest, framing: RequestFraming, response: Response) -> HttpResponse {
    let Response { status, headers, body } = response;
    let has_length = body.size() != BodySize::Stream;
    let mut answer = HttpResponse::with_body(status, body.boxed());
    let head = answer.head_mut();
    head.headers = headers;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        head.set_connection_type(ConnectionType::Upgrade);
        return answer;
    }
    // A client that wanted to upgrade and may not, or that speaks HTTP/1.0, reads until we close: neither takes chunks.
    let is_unchunked = framing == RequestFraming::Upgrade || request.version() < Version::HTTP_11;
    if is_unchunked && !has_length {
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
    if request.head().upgrade() {
        head.set_connection_type(ConnectionType::Close);
    }
    answer
}

/// Reads a small body and throws it away: with a body unread the server could only close the connection, and would wait
/// for the client to close first. A client that reads until we close, as media servers do, would wait with it.
async fn drain(request: &HttpRequest, payload: &mut Payload) {
    // What follows these has no end but the connection's.
    if request.head().upgrade() || request.method() == Method::CONNECT {
        return;
    }
    let read = async {
        let mut size = 0;
        while let Some(Ok(piece)) = payload.next().await {
            size += piece.len();
            if size > DRAIN {
                return;
            }
        }
    };
    // Past the limits the connection closes, which is all that can be done.
    let _ = tokio::time::timeout(DRAIN_WAIT, read).await;
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn only_plain_chunks_in_http_1_1_are_passed_on_as_chunks() {
        for (version, encoding, expected) in [
            (Version::HTTP_11, "chunked", Some(RequestFraming::Chunked)),
            (Version::HTTP_11, "Chunked", Some(RequestFraming::Chunked)),
            (Version::HTTP_11, "identity", None),
            (Version::HTTP_11, "gzip, chunked", None),
            (Version::HTTP_10, "chunked", None),
        ] {
            let request = TestRequest::post().version(version).insert_header(("transfer-encoding", encoding));
            assert_eq!(framing(&request.to_http_request()).ok(), expected, "{version:?} {encoding}");
        }
    }

    #[test]
    fn an_unknown_path_is_logged_by_its_beginning() {
        for (path, shown) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/webhook/stream-events/hunter2", "/webhook/stream-events/…"),
            ("/a//hunter2/", "/a//…"),
            ("*", "*"),
        ] {
            assert_eq!(beginning(path), shown);
        }
    }
}
