//! One request and its response on one connection, both directions at once.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use super::connection::Connection;
use super::error::UpstreamError;
use super::framing::{Decoded, ResponseFraming};
use super::request::Request;
use super::response::{self, Head};
use super::timer::Timer;
use super::upload::{Stopped, Upload};
use super::{Body, RequestFraming, Response, Upstream, buffer};

/// Room for a small read is made when less than this is left, in bytes.
const LEAST_ROOM: usize = 2 * 1024;

/// Owns the connection, what is left of the client's body, and the place we are at in both.
///
/// It is polled first for the response's head, then for the pieces of its body. Each poll moves the upload too, so an
/// upstream may answer before it has read everything. Dropping it closes the connection, which tells the upstream.
pub(super) struct Exchange {
    upstream: Rc<Upstream>,
    /// `None` once the exchange is over.
    connection: Option<Connection>,
    upload: Upload,
    /// Runs while the client owes us a piece of its body. The connection's timer is for the upstream alone.
    client_timer: Timer,
    /// What was read and is not decoded yet. Holds no memory while there is nothing to hold.
    incoming: BytesMut,
    /// A read has filled a whole buffer: larger ones pay.
    is_bulk: bool,
    /// At least one byte of an answer has come.
    has_heard: bool,
    answers_head: bool,
    may_upgrade: bool,
    is_repeatable: bool,
}

impl Exchange {
    pub(super) fn new(upstream: Rc<Upstream>, connection: Connection, request: Request) -> Self {
        Self {
            upstream,
            connection: Some(connection),
            is_repeatable: request.is_repeatable(),
            answers_head: request.is_head,
            may_upgrade: request.framing == RequestFraming::Upgrade,
            upload: Upload::new(request.head, request.framing, request.payload),
            client_timer: Timer::default(),
            incoming: BytesMut::new(),
            is_bulk: false,
            has_heard: false,
        }
    }

    /// Whether the request may be sent again after this connection broke off: it was an idle one that the upstream
    /// closed before it said anything, and to repeat the request does no harm.
    pub(super) fn may_repeat(&self) -> bool {
        self.is_repeatable && !self.has_heard && self.connection.as_ref().is_some_and(|it| it.is_reused)
    }

    /// Sends the request again on `connection`.
    pub(super) fn repeat_on(&mut self, connection: Connection) {
        self.connection = Some(connection);
        self.upload.rewind();
    }

    /// Sends the request, and answers the response's head as soon as it is there.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, UpstreamError>> {
        let stopped = self.poll_upload(cx)?;
        while let Poll::Ready(size) = self.poll_read(cx) {
            match size {
                Ok(0) => return Poll::Ready(Err(UpstreamError::BrokenOff(None))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(UpstreamError::BrokenOff(Some(error)))),
            }
            if let Some(head) = response::parse(&mut self.incoming, self.answers_head, self.may_upgrade)? {
                self.stop_timers();
                return Poll::Ready(Ok(head));
            }
        }
        if self.upload.take_moved() {
            self.stop_timers();
        }
        match stopped {
            Stopped::Starved => self.poll_stalled(cx).map(Err),
            Stopped::Done | Stopped::Blocked => self.poll_silent(cx).map(Err),
        }
    }

    /// The whole response. A body that is here already ends the exchange; another takes it along.
    pub(super) fn into_response(mut self, head: Head) -> Response {
        let Head { status, headers, mut framing, content_length, keeps_alive } = head;
        self.upload.release_head();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            self.upload.open();
        }
        let body = match framing {
            ResponseFraming::Length(0) => {
                self.finish(keeps_alive);
                match (status, content_length) {
                    (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED, _) => Body::None,
                    (_, Some(length)) if self.answers_head => Body::Head(length),
                    (_, None) if self.answers_head => Body::None,
                    _ => Body::Whole(Bytes::new()),
                }
            }
            ResponseFraming::Length(length) if length <= self.incoming.len() as u64 && self.upload.is_complete() => {
                match framing.decode(&mut self.incoming) {
                    Ok(Decoded::Data(bytes)) => {
                        self.finish(keeps_alive);
                        Body::Whole(bytes)
                    }
                    _ => Download::body(self, framing, keeps_alive),
                }
            }
            _ => Download::body(self, framing, keeps_alive),
        };
        Response { status, headers, body }
    }

    /// The connection, if the upstream has agreed to switch protocols on it: the headers that it agreed with, the socket,
    /// and what it said right behind its head. Else the response.
    pub(super) fn into_switched(mut self, head: Head) -> Result<(HeaderMap, TcpStream, Bytes), Response> {
        match self.connection.take_if(|_| head.status == StatusCode::SWITCHING_PROTOCOLS) {
            Some(Connection { stream, .. }) => {
                // A copy of what is mostly nothing, so that an idle tunnel does not hold a whole buffer.
                let leftover = Bytes::copy_from_slice(&self.incoming);
                buffer::give_back(std::mem::take(&mut self.incoming));
                self.upload.release_head();
                Ok((head.headers, stream, leftover))
            }
            None => Err(self.into_response(head)),
        }
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<Stopped, UpstreamError> {
        match &mut self.connection {
            Some(connection) => self.upload.poll(&mut connection.stream, cx).map_err(UpstreamError::Client),
            None => Ok(Stopped::Done),
        }
    }

    /// Reads more into `incoming`. 0 is the end of what the upstream sends.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Ok(0));
        };
        // Only when there is something to read is it worth to hold a buffer.
        ready!(connection.stream.poll_read_ready(cx))?;
        if self.incoming.capacity() == 0 {
            self.incoming = buffer::take();
        }
        let (least, room) = if self.is_bulk { (buffer::LARGE / 2, buffer::LARGE) } else { (LEAST_ROOM, buffer::SMALL) };
        if self.incoming.capacity() - self.incoming.len() < least {
            self.incoming.reserve(room);
        }
        let size = ready!(poll_read_buf(Pin::new(&mut connection.stream), cx, &mut self.incoming))?;
        self.has_heard |= size > 0;
        self.is_bulk |= self.incoming.capacity() == self.incoming.len();
        Poll::Ready(Ok(size))
    }

    /// Waits for the client; ready when nothing more of its body has come for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<UpstreamError> {
        // While the client is still sending it is not the upstream that keeps us waiting.
        if let Some(connection) = &mut self.connection {
            connection.timer.stop();
        }
        let patience = self.upstream.patience.body;
        self.client_timer.start(patience);
        self.client_timer.poll_elapsed(cx).map(|()| UpstreamError::Stalled(patience))
    }

    /// Waits for the upstream; ready when it has been silent for too long.
    fn poll_silent(&mut self, cx: &mut Context<'_>) -> Poll<UpstreamError> {
        self.client_timer.stop();
        let Some(connection) = &mut self.connection else {
            return Poll::Pending;
        };
        let patience = self.upstream.patience.answer;
        connection.timer.start(patience);
        connection.timer.poll_elapsed(cx).map(|()| UpstreamError::Silent(patience))
    }

    /// Something has moved: whoever is waited for next has all the time again.
    fn stop_timers(&mut self) {
        self.client_timer.stop();
        if let Some(connection) = &mut self.connection {
            connection.timer.stop();
        }
    }

    /// Ends the exchange: the connection goes back to the pool if both sides are through with it, else it closes.
    fn finish(&mut self, keeps_alive: bool) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        // Bytes behind the response belong to nothing that we asked for.
        if keeps_alive && self.upload.is_complete() && self.incoming.is_empty() {
            self.upstream.pool.put(connection);
        }
        buffer::give_back(std::mem::take(&mut self.incoming));
    }
}

/// The body of a response that is still on its way, or an upgraded connection.
///
/// It ends with an error, never as if complete, when the upstream breaks off.
pub struct Download {
    exchange: Exchange,
    framing: ResponseFraming,
    keeps_alive: bool,
    /// Why it breaks off, once what came before is on its way to the client.
    failed: Option<UpstreamError>,
}

impl Download {
    fn body(exchange: Exchange, framing: ResponseFraming, keeps_alive: bool) -> Body {
        Body::Stream(Box::new(Self { exchange, framing, keeps_alive, failed: None }))
    }
}

impl MessageBody for Download {
    type Error = UpstreamError;

    fn size(&self) -> BodySize {
        match self.framing {
            ResponseFraming::Length(length) => BodySize::Sized(length),
            ResponseFraming::Chunked(_) | ResponseFraming::UntilClose => BodySize::Stream,
        }
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(self.poll_piece(cx)) {
            Ok(piece) => Poll::Ready(piece.map(Ok)),
            // The server drops what it has not written yet when a body fails: let it write that first.
            Err(error) => {
                self.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl Download {
    /// The next piece of the body; `None` at its end. Moves the upload as well.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, UpstreamError>> {
        let Self { exchange, framing, keeps_alive, .. } = self;
        if exchange.connection.is_none() {
            return Poll::Ready(Ok(None));
        }
        let stopped = exchange.poll_upload(cx)?;
        if exchange.upload.take_moved() {
            exchange.client_timer.stop();
        }
        loop {
            match framing.decode(&mut exchange.incoming)? {
                Decoded::Data(bytes) => {
                    exchange.stop_timers();
                    return Poll::Ready(Ok(Some(bytes)));
                }
                Decoded::End => {
                    exchange.finish(*keeps_alive);
                    return Poll::Ready(Ok(None));
                }
                Decoded::More => {}
            }
            match exchange.poll_read(cx) {
                Poll::Ready(Ok(0)) if *framing == ResponseFraming::UntilClose => {
                    exchange.finish(false);
                    return Poll::Ready(Ok(None));
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(UpstreamError::BrokenOff(None))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(UpstreamError::BrokenOff(Some(error)))),
                Poll::Pending => break,
            }
        }
        match framing {
            // A body of known length is being made or lies in a file: silence is a fault.
            ResponseFraming::Length(_) => exchange.poll_silent(cx).map(Err),
            // This may be an event stream or a WebSocket, where things come when they come: it must not hold a buffer
            // for as long as nothing does, and only the client's leaving ends the wait.
            ResponseFraming::Chunked(_) | ResponseFraming::UntilClose => {
                if exchange.incoming.is_empty() {
                    buffer::give_back(std::mem::take(&mut exchange.incoming));
                }
                // Save where the upstream may be waiting too: for the rest of the request.
                if stopped == Stopped::Starved && !exchange.may_upgrade {
                    return exchange.poll_stalled(cx).map(Err);
                }
                Poll::Pending
            }
        }
    }
}
