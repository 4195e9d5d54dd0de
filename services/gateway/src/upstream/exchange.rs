//! One request and its response on one connection, both directions at once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::StatusCode;
use bytes::{Bytes, BytesMut};
use tokio_util::io::poll_read_buf;

use super::connection::Connection;
use super::error::{Fault, UpstreamError};
use super::framing::{Decoded, ResponseFraming};
use super::instance::InFlight;
use super::request::Request;
use super::response::{self, Head};
use super::timer::Timer;
use super::untaken::is_untaken;
use super::upload::{Stopped, Upload};
use super::{Body, Patience, RequestFraming, Response, Upgraded, buffer};

/// Room for a small read is made when less than this is left, in bytes.
const LEAST_ROOM: usize = 2 * 1024;

/// Owns the connection, what is left of the client's body, and the place we are at in both.
///
/// It is polled first for the response's head, then for the pieces of its body. Each poll moves the upload too, so an
/// upstream may answer before it has read everything. Dropping it closes the connection, which tells the upstream.
pub(super) struct Exchange {
    instance: InFlight,
    /// How long the upstream may be silent.
    answer: Duration,
    /// How long the client may be, in the middle of its body.
    body: Duration,
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
    is_idempotent: bool,
}

impl Exchange {
    pub(super) fn new(instance: InFlight, connection: Connection, request: Request, patience: Patience) -> Self {
        Self {
            instance,
            answer: request.answer_within.unwrap_or(patience.answer),
            body: patience.body,
            connection: Some(connection),
            is_idempotent: request.is_idempotent,
            answers_head: request.is_head,
            may_upgrade: request.framing == RequestFraming::Upgrade,
            upload: Upload::new(request.head, request.framing, request.payload),
            client_timer: Timer::default(),
            incoming: BytesMut::new(),
            is_bulk: false,
            has_heard: false,
        }
    }

    /// Whether the request may be sent again after `fault`: the connection broke off before it brought a byte, all that
    /// was sent is still here, and a second time does no harm.
    ///
    /// It does none if nothing was taken the first time, or if the request is idempotent and was sent on an idle
    /// connection, which upstreams do close.
    pub(super) fn may_repeat(&self, fault: &Fault) -> bool {
        let (Fault::BrokenOff(why), Some(connection)) = (fault, &self.connection) else {
            return false;
        };
        if self.has_heard || !self.upload.can_rewind() {
            return false;
        }
        let (sent, refused) = self.upload.sent();
        let is_untaken = || why.is_none() && is_untaken(&connection.stream, sent, refused);
        (self.is_idempotent && connection.is_reused) || is_untaken()
    }

    /// Learns nothing of the instance: what happened may happen to any idle connection.
    pub(super) fn leave_instance(&mut self) {
        self.instance.give_up();
    }

    /// Sends the request again on `connection`, which leads to `instance`.
    pub(super) fn repeat_on(&mut self, instance: InFlight, connection: Connection) {
        self.instance = instance;
        self.connection = Some(connection);
        self.upload.rewind();
    }

    /// Notes how the instance does, and which one it is.
    pub(super) fn judge<T>(&mut self, result: Result<T, Fault>) -> Result<T, UpstreamError> {
        match &result {
            Ok(_) => self.instance.succeed(),
            Err(fault) => self.instance.fail(fault),
        }
        result.map_err(|fault| fault.at(self.instance.address()))
    }

    /// Sends the request, and answers the response's head as soon as it is there.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Fault>> {
        let stopped = self.poll_upload(cx)?;
        while let Poll::Ready(size) = self.poll_read(cx) {
            match size {
                Ok(0) => return Poll::Ready(Err(Fault::BrokenOff(None))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(Fault::BrokenOff(Some(error)))),
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
        self.upload.release();
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

    /// The connection, if the upstream has agreed to switch protocols on it; else the response.
    pub(super) fn into_upgraded(mut self, head: Head) -> Upgraded {
        match self.connection.take_if(|_| head.status == StatusCode::SWITCHING_PROTOCOLS) {
            Some(Connection { stream, .. }) => {
                // A copy of what is mostly nothing, so that an idle tunnel does not hold a whole buffer.
                let leftover = Bytes::copy_from_slice(&self.incoming);
                buffer::give_back(std::mem::take(&mut self.incoming));
                self.upload.release();
                Upgraded::Switched { headers: head.headers, stream, leftover, guard: self.instance }
            }
            None => Upgraded::Refused(self.into_response(head)),
        }
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<Stopped, Fault> {
        match &mut self.connection {
            Some(connection) => self.upload.poll(&mut connection.stream, cx).map_err(Fault::Client),
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
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        // While the client is still sending it is not the upstream that keeps us waiting.
        if let Some(connection) = &mut self.connection {
            connection.timer.stop();
        }
        self.client_timer.start(self.body);
        self.client_timer.poll_elapsed(cx).map(|()| Fault::Stalled(self.body))
    }

    /// Waits for the upstream; ready when it has been silent for too long.
    fn poll_silent(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        self.client_timer.stop();
        let Some(connection) = &mut self.connection else {
            return Poll::Pending;
        };
        connection.timer.start(self.answer);
        connection.timer.poll_elapsed(cx).map(|()| Fault::Silent(self.answer))
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
            self.instance.pool().put(connection);
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
    failed: Option<Fault>,
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
        if let Some(fault) = self.failed.take() {
            return Poll::Ready(Some(Err(fault.at(self.exchange.instance.address()))));
        }
        match ready!(self.poll_piece(cx)) {
            Ok(piece) => Poll::Ready(piece.map(Ok)),
            // The server drops what it has not written yet when a body fails: let it write that first.
            Err(fault) => {
                self.failed = Some(fault);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl Download {
    /// The next piece of the body; `None` at its end. Moves the upload as well.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
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
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Fault::BrokenOff(None))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::BrokenOff(Some(error)))),
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
