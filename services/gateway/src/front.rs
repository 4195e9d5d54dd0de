//! The way of a request through the gateway: admitted, passed on, answered, noted.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_http::{Request, Response};
use actix_service::Service;
use actix_service::boxed::RcService;
use actix_web::body::{BodySize, BoxBody, MessageBody as _};
use actix_web::dev::{Payload, RequestHead};
use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode, Uri, Version};
use actix_web::{HttpResponse, ResponseError as _};
use bytes::Bytes;
use chassis::access_log::Entry;
use chassis::http::{REQUEST_ID, label_of, redact};
use common::{Trace, Verified};
use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use opentelemetry::trace::TraceContextExt as _;
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::admit::{Admitted, Notes, Refusal, admit, identify};
use crate::answer::Answer;
use crate::headers::Inbound;
use crate::rate::Verdict;
use crate::strict::{Answering, Turn};
use crate::unread::Unread;
use crate::upstream::{self, RequestBuilder, RequestFraming};
use crate::worker::Worker;
use crate::{origin, problems};

/// The most of a body, in bytes, that is read only to be thrown away, so that a refused client's connection lives on.
const DRAIN: usize = 64 * 1024;
/// How long a client may take to send it.
const DRAIN_WAIT: Duration = Duration::from_secs(1);

/// Pages that the gateway serves itself.
pub type Pages = RcService<Request, Response<BoxBody>, actix_web::Error>;

/// Answers every request of a worker thread that does not ask for a WebSocket.
#[derive(Clone)]
pub struct Front {
    worker: Rc<Worker>,
    pages: Pages,
    /// How clients reach us, if no proxy says otherwise.
    scheme: &'static str,
}

impl Front {
    #[must_use]
    pub fn new(worker: Rc<Worker>, pages: Pages, scheme: &'static str) -> Self {
        Self { worker, pages, scheme }
    }
}

impl Service<Request> for Front {
    type Response = Response<Answering<Answer>>;
    type Error = Response<BoxBody>;
    type Future = Handled;

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&self, request: Request) -> Self::Future {
        let Self { worker, pages, scheme } = self.clone();
        let began = Began::now(&worker);
        let (trace, span) = (began.trace, began.span.clone());
        let answer = Box::pin(async move {
            let mut notes = Notes::new(&worker.gateway, request.head(), scheme);
            let (method, uri) = (request.method().clone(), request.uri().clone());
            let turn = request.conn_data::<Turn>().cloned();
            let answer = respond(&worker, &pages, request, &mut notes, trace).await;
            let answer = answer.map_body(|_, body| Answering::new(body, turn));
            Ok(began.finish(&worker, &method, &uri, &notes, answer))
        });
        Handled { trace, span, answer }
    }
}

/// A request in hand, as a part of its trace.
///
/// The trace is entered with each poll: a future around the future would hold it twice, and it is large.
pub struct Handled {
    trace: Trace,
    span: Option<tracing::Span>,
    answer: LocalBoxFuture<'static, Result<Response<Answering<Answer>>, Response<BoxBody>>>,
}

impl Future for Handled {
    type Output = Result<Response<Answering<Answer>>, Response<BoxBody>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let _entered = this.span.as_ref().map(tracing::Span::enter);
        this.trace.within(|| this.answer.as_mut().poll(cx))
    }
}

/// When a request came, and the trace it belongs to.
pub(crate) struct Began {
    at: Instant,
    pub(crate) trace: Trace,
    /// Only where traces are collected: a span costs as much as passing on a request.
    span: Option<tracing::Span>,
}

impl Began {
    pub(crate) fn now(worker: &Worker) -> Self {
        let is_traced = worker.gateway.config.is_traced;
        let span = is_traced.then(|| tracing::info_span!("http.request", otel.kind = "server", service = "gateway"));
        // Nobody outside chooses our trace ids.
        let trace = span.as_ref().and_then(Trace::of).unwrap_or_else(Trace::begin);
        Self { at: Instant::now(), trace, span }
    }

    pub(crate) async fn within<F: Future>(&self, work: F) -> F::Output {
        match &self.span {
            Some(span) => self.trace.scope(work.instrument(span.clone())).await,
            None => self.trace.scope(work).await,
        }
    }

    /// Adds what every answer has, and tells log and metrics.
    pub(crate) fn finish<B>(
        &self,
        worker: &Worker,
        method: &Method,
        uri: &Uri,
        notes: &Notes,
        mut answer: Response<B>,
    ) -> Response<B> {
        let id = self.trace.id();
        let headers = answer.headers_mut();
        if let Ok(id) = HeaderValue::from_str(id.as_str()) {
            headers.insert(REQUEST_ID, id);
        }
        protect(headers, notes.client.scheme);
        origin::allow(&notes.origin, notes.is_embeddable, headers);
        if let Some(rate) = notes.rate {
            tell_rate(headers, rate);
        }

        let status = answer.status().as_u16();
        let took = self.at.elapsed();
        worker.metrics.record(notes.route, label_of(method), status, took);
        if let Some(span) = &self.span {
            span.context().span().update_name(format!("{method} {}", notes.route));
            span.set_attribute("http.request.method", method.to_string());
            span.set_attribute("http.route", notes.route);
            span.set_attribute("http.response.status_code", i64::from(status));
        }
        if worker.gateway.access_log.is_read() {
            let path = match (&notes.target, uri.query()) {
                (Some(target), _) => Cow::Borrowed(&**target),
                (None, None) => Cow::Borrowed(uri.path()),
                (None, Some(query)) => Cow::Owned(redact(uri.path(), query)),
            };
            worker.gateway.access_log.write(&Entry {
                at: worker.gateway.clock.now(),
                method: method.as_str(),
                path: &path,
                route: notes.route,
                status,
                took,
                client: notes.client.address,
                request_id: id.as_str(),
            });
        }
        answer
    }
}

/// Headers that keep browsers from doing with an answer what it was not made for. Pages add what is for pages.
fn protect(headers: &mut HeaderMap, scheme: &str) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if scheme == "https" {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
}

/// Tells a client that is near its rate how near: one that is far from it need not care.
fn tell_rate(headers: &mut HeaderMap, rate: Verdict) {
    const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
    const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
    const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
    if rate.remaining > rate.limit / 2 {
        return;
    }
    headers.insert(LIMIT, rate.limit.into());
    headers.insert(REMAINING, rate.remaining.into());
    headers.insert(RESET, (rate.reset.as_secs_f64().ceil() as u64).into());
}

/// The answer to a request, whoever gives it.
async fn respond(
    worker: &Worker,
    pages: &Pages,
    mut request: Request,
    notes: &mut Notes,
    trace: Trace,
) -> Response<Answer> {
    let (payload, unread) = match request.head().headers.contains_key(header::TRANSFER_ENCODING) {
        true => {
            let (payload, unread) = Unread::share(request.take_payload());
            (payload, Some(unread))
        }
        false => (request.take_payload(), None),
    };
    let answer = respond_to(worker, pages, request, payload, notes, trace).await;
    match unread {
        Some(unread) => unread.held_by(answer),
        None => answer,
    }
}

async fn respond_to(
    worker: &Worker,
    pages: &Pages,
    request: Request,
    mut payload: Payload,
    notes: &mut Notes,
    trace: Trace,
) -> Response<Answer> {
    let gateway = &worker.gateway;
    let head = request.head();
    let (admitted, verified) = match admit(gateway, head, notes) {
        Ok(admitted) => match identify(gateway, head, &admitted, None, notes) {
            Ok(verified) => (admitted, verified),
            Err(problem) => {
                drain(head, &mut payload).await;
                return own(problem.error_response());
            }
        },
        // What the table does not know may be a page of ours.
        Err(Refusal::NoSuchPath(_)) if is_read(&head.method) => {
            return match pages.call(request).await {
                Ok(answer) => {
                    if answer.status() != StatusCode::NOT_FOUND {
                        notes.route = "pages";
                    }
                    answer.map_body(|_, body| Answer::Own(body))
                }
                Err(error) => own(error.error_response()),
            };
        }
        Err(refusal) => {
            drain(head, &mut payload).await;
            return own(refusal.answer(head));
        }
    };
    pass_on(worker, head, admitted, payload, notes, trace, verified).await
}

async fn pass_on(
    worker: &Worker,
    head: &RequestHead,
    admitted: Admitted<'_>,
    payload: Payload,
    notes: &Notes,
    trace: Trace,
    verified: Option<Verified>,
) -> Response<Answer> {
    let route = admitted.found.route;
    let framing = admitted.framing;
    let upstream = match worker.upstream(route.service) {
        Ok(upstream) => upstream,
        Err(problem) => return own(problem.error_response()),
    };
    let payload = match framing {
        RequestFraming::Chunked => at_most(route.max_body, payload),
        _ => payload,
    };
    let mut outbound = outbound(upstream.host(), head, &admitted, notes, trace).body(framing, payload);
    if route.is_sticky {
        outbound = outbound.to_instance(instance_of(head));
    }
    if let Some(patience) = route.patience {
        outbound = outbound.answer_within(patience);
    }
    match upstream.send(outbound).await {
        Ok(response) => {
            let upstream::Response { status, headers, body } = response;
            let mut answer = Response::with_body(status, body);
            answer.head_mut().headers = headers;
            frame(head, &mut answer);
            answer.map_body(|head, body| {
                let gateway = &worker.gateway;
                let answer = Answer::read_by(verified.as_ref(), &gateway.verifier, body);
                let kind = head.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
                let is_endless = kind.starts_with(b"text/event-stream");
                if is_endless { answer.until(&gateway.stopping) } else { answer }
            })
        }
        Err(error) => own(problems::of_upstream(route, error).error_response()),
    }
}

/// The request as the service sees it, up to its body.
pub(crate) fn outbound(
    host: &str,
    head: &RequestHead,
    admitted: &Admitted<'_>,
    notes: &Notes,
    trace: Trace,
) -> RequestBuilder {
    let mut outbound = RequestBuilder::new(&head.method, &admitted.found.path, head.uri.query(), host);
    for (name, value) in Inbound::new(&head.headers, admitted.found.route).iter() {
        outbound.header(name, value);
    }
    if let Some(address) = notes.client.address {
        outbound.header_of_address("x-forwarded-for", address);
    }
    outbound.header("x-forwarded-proto", notes.client.scheme.as_bytes());
    if let Some(host) = head.headers.get(header::HOST) {
        outbound.header("x-forwarded-host", host.as_bytes());
    } else if let Some(authority) = head.uri.authority() {
        outbound.header("x-forwarded-host", authority.as_str().as_bytes());
    }
    outbound.header(REQUEST_ID.as_str(), trace.id().as_str().as_bytes());
    outbound.header_of("traceparent", &trace);
    outbound
}

/// The instance that a session of Socket.IO lives in: its `sid` has the instance's name in front, as 16 hexadecimal digits
/// and a dot.
pub(crate) fn instance_of(head: &RequestHead) -> Option<u64> {
    let sid = head.uri.query()?.split('&').find_map(|pair| pair.strip_prefix("sid="))?;
    let (name, _) = sid.split_once('.').filter(|(name, _)| name.len() == 16)?;
    u64::from_str_radix(name, 16).ok().filter(|name| *name != 0)
}

/// Says how the body of a service's answer ends for a client that does not take chunks, or takes another protocol.
fn frame(head: &RequestHead, answer: &mut Response<upstream::Body>) {
    let has_length = answer.body().size() != BodySize::Stream;
    // A client that speaks HTTP/1.0 reads until we close, and takes no chunks.
    if head.version < Version::HTTP_11 && !has_length {
        answer.head_mut().no_chunking(true);
        answer.head_mut().set_connection_type(ConnectionType::Close);
    }
    // It wanted another protocol, and may go on in that.
    if head.upgrade() {
        answer.head_mut().set_connection_type(ConnectionType::Close);
    }
}

/// An answer of our own.
pub(crate) fn own(answer: HttpResponse) -> Response<Answer> {
    Response::from(answer).map_body(|_, body| Answer::Own(body))
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// `payload`, which fails when it has more than `max_body` bytes.
fn at_most(max_body: u64, payload: Payload) -> Payload {
    let mut left = max_body;
    let pieces = payload.map(move |piece| {
        let piece: Bytes = piece?;
        left = left.checked_sub(piece.len() as u64).ok_or(PayloadError::Overflow)?;
        Ok(piece)
    });
    Payload::Stream { payload: Box::pin(pieces) }
}

/// Reads a small body and throws it away: with a body unread the server could only close the connection, and would wait
/// for the client to close first. A client that reads until we close, as media servers do, would wait with it.
async fn drain(head: &RequestHead, payload: &mut Payload) {
    // What follows these has no end but the connection's.
    if head.upgrade() || head.method == Method::CONNECT {
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
