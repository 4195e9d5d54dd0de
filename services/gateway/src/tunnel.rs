//! WebSockets: once both sides have agreed, bytes go through as they come, and all else that served the request is freed.
//!
//! A tunnel that is idle holds two sockets and no buffer.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_codec::Framed;
use actix_http::{BoxedPayloadStream, Request, Response, h1};
use actix_service::Service;
use actix_web::ResponseError as _;
use actix_web::body::{BodySize, BoxBody, MessageBody as _};
use actix_web::dev::{Payload, RequestHead};
use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, StatusCode};
use actix_web::rt;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use common::problem::kinds;
use common::{Problem, SessionWatch, Trace};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::admit::{Notes, Refusal, admit, identify};
use crate::answer::Answer;
use crate::config::Service as Upstreams;
use crate::front::{Began, instance_of, outbound, own};
use crate::problems;
use crate::upstream::{InFlight, RequestBuilder, RequestFraming, Upgraded};
use crate::worker::Worker;

/// How long the service may take to say goodbye by itself when a session has ended, before both sides are cut off.
const GOODBYE: Duration = Duration::from_millis(400);
/// How long a client may take to close after the service has.
const LINGER: Duration = Duration::from_secs(5);
/// How long a client may take to read why its WebSocket was refused.
const REFUSAL_WAIT: Duration = Duration::from_secs(10);
/// The largest answer of auth to a ticket, in bytes.
const MAX_REDEEMED: usize = 16 * 1024;

/// Answers every request of a worker thread that asks for a WebSocket.
#[derive(Clone)]
pub struct Tunnels {
    worker: Rc<Worker>,
    scheme: &'static str,
}

impl Tunnels {
    #[must_use]
    pub fn new(worker: Rc<Worker>, scheme: &'static str) -> Self {
        Self { worker, scheme }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Service<(Request, Framed<T, h1::Codec>)> for Tunnels {
    type Response = ();
    type Error = BrokenOff;
    type Future = Pin<Box<dyn Future<Output = Result<(), BrokenOff>>>>;

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), BrokenOff>> {
        Poll::Ready(Ok(()))
    }

    fn call(&self, (request, framed): (Request, Framed<T, h1::Codec>)) -> Self::Future {
        let Self { worker, scheme } = self.clone();
        Box::pin(async move { Ok(serve(&worker, scheme, request, framed).await?) })
    }
}

/// A client left before it had been answered.
#[derive(Debug, thiserror::Error)]
#[error("the client has left")]
pub struct BrokenOff(#[from] io::Error);

impl From<BrokenOff> for Response<BoxBody> {
    fn from(_: BrokenOff) -> Self {
        // Nobody is there to read it.
        Self::new(StatusCode::BAD_REQUEST)
    }
}

/// What both sides agreed on.
struct Opened {
    headers: HeaderMap,
    upstream: TcpStream,
    /// What the service sent first.
    leftover: BytesMut,
    watch: Option<SessionWatch>,
    guard: InFlight,
}

async fn serve<T: AsyncRead + AsyncWrite + Unpin + 'static>(
    worker: &Rc<Worker>,
    scheme: &'static str,
    request: Request,
    framed: Framed<T, h1::Codec>,
) -> io::Result<()> {
    let parts = framed.into_parts();
    let (mut client, early) = (parts.io, parts.read_buf);
    let began = Began::now(worker);
    let mut notes = Notes::new(&worker.gateway, request.head(), scheme);
    let opened = began.within(open(worker, request.head(), &mut notes, began.trace)).await;
    let (method, uri) = (request.method(), request.uri());
    // What stands in it answers an earlier request on this connection.
    let mut out = parts.write_buf;
    match opened {
        Ok(Opened { headers, upstream, leftover, watch, guard }) => {
            let mut answer = Response::with_body(StatusCode::SWITCHING_PROTOCOLS, ());
            *answer.headers_mut() = headers;
            let answer = began.finish(worker, method, uri, &notes, answer);
            write_head(&mut out, answer.status(), answer.headers(), None, "upgrade");
            out.unsplit(leftover);
            drop((answer, request));
            let tunnel = Tunnel { to_client: Half::holding(out), to_upstream: Half::holding(early) };
            rt::spawn(run(client, upstream, tunnel, watch, guard));
            Ok(())
        }
        Err(refusal) => {
            let answer = began.finish(worker, method, uri, &notes, refusal);
            timeout(REFUSAL_WAIT, refuse(&mut client, out, answer)).await?
        }
    }
}

/// Asks the service, if the client may.
async fn open(
    worker: &Worker,
    head: &RequestHead,
    notes: &mut Notes,
    trace: Trace,
) -> Result<Opened, Response<Answer>> {
    let refuse = |problem: Problem| own(problem.error_response());
    let gateway = &worker.gateway;
    let admitted = admit(gateway, head, notes).map_err(|refusal: Refusal| own(refusal.answer(head)))?;
    let route = admitted.found.route;
    let ticket = ticket_of(head);
    let token = match &ticket {
        Some(ticket) => Some(redeem(worker, ticket).await.map_err(refuse)?),
        None => None,
    };
    let verified = identify(gateway, head, &admitted, token.as_deref(), notes).map_err(refuse)?;
    let upstream = worker.upstream(route.service).map_err(refuse)?;
    let mut request = outbound(upstream.host(), head, &admitted, notes, trace);
    if let Some(token) = &token {
        request.header("authorization", format!("Bearer {token}").as_bytes());
    }
    let mut request = request.body(RequestFraming::Upgrade, Payload::None);
    if route.is_sticky {
        request = request.to_instance(instance_of(head));
    }
    match upstream.upgrade(request).await {
        Ok(Upgraded::Switched { headers, stream, leftover, guard }) => Ok(Opened {
            headers,
            upstream: stream,
            leftover: BytesMut::from(&*leftover),
            watch: verified.map(|verified| gateway.verifier.watch(verified.claims.sid)),
            guard,
        }),
        Ok(Upgraded::Refused(response)) => {
            let mut answer = Response::with_body(response.status, Answer::Upstream(response.body));
            *answer.headers_mut() = response.headers;
            Err(answer)
        }
        Err(error) => Err(refuse(problems::of_upstream(route, error))),
    }
}

/// The value of `?ticket=`.
fn ticket_of(head: &RequestHead) -> Option<String> {
    let query = head.uri.query()?;
    form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "ticket").map(|(_, ticket)| ticket.into_owned())
}

/// The token that auth gives for a ticket, once.
async fn redeem(worker: &Worker, ticket: &str) -> Result<String, Problem> {
    let auth = worker.upstream(Upstreams::Auth)?;
    let body = json!({ "ticket": ticket }).to_string();
    let mut request = RequestBuilder::new(&Method::POST, "/internal/tickets/redeem", None, auth.host());
    request.header("content-type", b"application/json");
    let length = body.len() as u64;
    let payload: Payload = Payload::from(Box::pin(stream::iter([Ok(Bytes::from(body))])) as BoxedPayloadStream);
    let asked = auth.send(request.body(RequestFraming::Length(length), payload)).await;
    let answer = asked.map_err(|error| Problem::unavailable(Duration::from_secs(1), error))?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            return Err(
                kinds::TOKEN_INVALID.say("the ticket is not valid: each opens one WebSocket, within 30 seconds")
            );
        }
        _ => return Err(Problem::unavailable(Duration::from_secs(1), "auth did not redeem a ticket")),
    }
    let body = actix_web::body::to_bytes_limited(answer.body, MAX_REDEEMED).await.ok().and_then(Result::ok);
    let token = body.and_then(|body| serde_json::from_slice::<Value>(&body).ok()?["token"].as_str().map(str::to_owned));
    token.ok_or_else(|| Problem::unavailable(Duration::from_secs(1), "auth did not redeem a ticket"))
}

/// Writes an answer that is no upgrade, and closes.
async fn refuse<T: AsyncWrite + Unpin>(client: &mut T, mut out: BytesMut, answer: Response<Answer>) -> io::Result<()> {
    let length = match answer.body().size() {
        BodySize::Sized(length) => Some(length),
        BodySize::None | BodySize::Stream => None,
    };
    write_head(&mut out, answer.status(), answer.headers(), length, "close");
    client.write_all(&out).await?;
    let mut body = pin!(answer.into_body());
    while let Some(piece) = poll_fn(|cx| body.as_mut().poll_next(cx)).await {
        client.write_all(&piece.map_err(|error| io::Error::other(error.to_string()))?).await?;
    }
    client.shutdown().await
}

/// `connection`: what becomes of it. A body without a length ends with the connection.
fn write_head(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap, length: Option<u64>, connection: &str) {
    let reason = status.canonical_reason().unwrap_or_default();
    out.put_slice(format!("HTTP/1.1 {} {reason}\r\nconnection: {connection}\r\n", status.as_u16()).as_bytes());
    if let Some(length) = length {
        out.put_slice(format!("content-length: {length}\r\n").as_bytes());
    }
    for (name, value) in headers {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\n");
}

/// What is on its way, both ways.
struct Tunnel {
    to_client: Half,
    to_upstream: Half,
}

/// One direction. It holds a buffer only while its reader is slower than its writer.
struct Half {
    /// What was read and is not written yet.
    pending: BytesMut,
    state: State,
}

/// The most that is read at once, in bytes.
const READ: usize = 16 * 1024;

thread_local! {
    /// Where the tunnels of a worker read to: what goes on at once is never copied.
    static READING: RefCell<Box<[u8; READ]>> = RefCell::new(Box::new([0; READ]));
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The writer will send no more: its reader has to hear of that.
    Ending,
    Ended,
}

impl Half {
    /// An empty buffer is freed at once: it may be large.
    fn holding(pending: BytesMut) -> Self {
        let pending = if pending.is_empty() { BytesMut::new() } else { pending };
        Self { pending, state: State::Open }
    }

    /// Moves as much as can be moved. Ready when this direction is through.
    fn poll<R, W>(&mut self, reader: &mut R, writer: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if !self.pending.is_empty() {
                while !self.pending.is_empty() {
                    let written = ready!(Pin::new(&mut *writer).poll_write(cx, &self.pending))?;
                    if written == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    self.pending.advance(written);
                }
                self.pending = BytesMut::new();
            }
            // TLS keeps what was written until it is told that this is all for now.
            ready!(Pin::new(&mut *writer).poll_flush(cx))?;
            match self.state {
                State::Open => ready!(READING.with_borrow_mut(|room| self.pass(reader, writer, &mut room[..], cx)))?,
                State::Ending => {
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads once, and writes that. What is not taken is pending.
    fn pass<R, W>(
        &mut self,
        reader: &mut R,
        writer: &mut W,
        room: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut read = ReadBuf::new(room);
        ready!(Pin::new(reader).poll_read(cx, &mut read))?;
        let bytes = read.filled();
        if bytes.is_empty() {
            self.state = State::Ending;
            return Poll::Ready(Ok(()));
        }
        let written = match Pin::new(writer).poll_write(cx, bytes) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        if written < bytes.len() {
            self.pending = BytesMut::from(&bytes[written..]);
        }
        Poll::Ready(Ok(()))
    }
}

/// Carries bytes until both sides are through, one breaks off, or the session ends.
async fn run<T: AsyncRead + AsyncWrite + Unpin>(
    mut client: T,
    mut upstream: TcpStream,
    mut tunnel: Tunnel,
    watch: Option<SessionWatch>,
    guard: InFlight,
) {
    let carry = async {
        let down = poll_fn(|cx| {
            let up = tunnel.to_upstream.poll(&mut client, &mut upstream, cx)?;
            let down = tunnel.to_client.poll(&mut upstream, &mut client, cx)?;
            if down.is_ready() { Poll::Ready(io::Result::Ok(up.is_ready())) } else { Poll::Pending }
        });
        if let Ok(false) = down.await {
            // The service is through. What it said last must reach the client, who closes when it has read that.
            let up = poll_fn(|cx| tunnel.to_upstream.poll(&mut client, &mut upstream, cx));
            let _ = timeout(LINGER, up).await;
        }
    };
    let ended = async {
        match &watch {
            Some(watch) => {
                watch.ended().await;
                sleep(GOODBYE).await;
            }
            None => std::future::pending().await,
        }
    };
    // Whichever way it ends, dropping both sockets tells both sides.
    tokio::select! {
        // To draw lots about who is asked first costs something with each message.
        biased;
        () = carry => {}
        () = ended => {}
    }
    drop(guard);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tunnel_holds_no_buffer_once_all_has_gone_on() {
        for early in ["", "early"] {
            let mut buffer = BytesMut::with_capacity(READ);
            buffer.put_slice(early.as_bytes());
            let mut half = Half::holding(buffer);
            let ((mut reader, mut client), (mut writer, mut server)) = (tokio::io::duplex(64), tokio::io::duplex(64));
            client.write_all(b"late").await.unwrap();

            assert!(poll_fn(|cx| Poll::Ready(half.poll(&mut reader, &mut writer, cx))).await.is_pending());

            let mut read = vec![0; early.len() + 4];
            tokio::io::AsyncReadExt::read_exact(&mut server, &mut read).await.unwrap();
            assert_eq!(read, format!("{early}late").as_bytes());
            assert_eq!(half.pending.capacity(), 0);
        }
    }
}
