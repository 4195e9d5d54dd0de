//! A WebSocket as a queue of frames that are already written, and a stream of what the client says.
//!
//! Frames to clients are not masked, so the same bytes go to everybody: they are written once and shared. What has gathered
//! while the client's connection was busy goes out in one write.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use actix_http::ws::{CloseCode, CloseReason, Codec, Frame, Item, OpCode, Parser, ProtocolError};
use actix_web::{Error, HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio_util::codec::Decoder as _;

/// The most bytes that wait for a client: one that reads slower than others write is let go.
const MOST_QUEUED: usize = 1024 * 1024;
/// Frames that have gathered are joined up to so many bytes.
const JOINED: usize = 64 * 1024;
/// The most bytes of a message of a client.
pub(crate) const LARGEST_MESSAGE: usize = 64 * 1024;

/// A client that does not read what it is sent (RFC 6455's 1013: try again later).
pub(crate) const TOO_SLOW: CloseCode = CloseCode::Again;

/// The sending half: whoever has it can send, nobody waits.
#[derive(Debug, Default)]
pub(crate) struct Outbox(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Nothing is taken any more; the last frame says so to the client.
    is_closed: bool,
    /// What is sent after this.
    next: Option<Arc<Outbox>>,
    waker: Option<Waker>,
}

impl Outbox {
    /// Sends a frame. `false`: the socket is closed, or is now, as the client has not read what it was sent before.
    pub(crate) fn send(&self, frame: Bytes) -> bool {
        let mut queue = self.lock();
        if queue.is_closed {
            return false;
        }
        if queue.bytes + frame.len() > MOST_QUEUED {
            drop(queue);
            self.close(TOO_SLOW, "what was sent was not read");
            return false;
        }
        queue.put(frame);
        true
    }

    /// Says goodbye, after what waits already. What the client does not read in time is thrown away.
    pub(crate) fn close(&self, code: CloseCode, why: &str) {
        let mut queue = self.lock();
        if queue.is_closed {
            return;
        }
        if code == TOO_SLOW {
            queue.frames.clear();
            queue.bytes = 0;
        }
        let mut frame = BytesMut::new();
        Parser::write_close(&mut frame, Some(CloseReason::from((code, why))), false);
        queue.put(frame.freeze());
        queue.is_closed = true;
    }

    /// Takes nothing any more, and says nothing of it.
    pub(crate) fn end(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        queue.wake();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Whether it is closed, and all was sent.
    pub(crate) fn is_over(&self) -> bool {
        let queue = self.lock();
        queue.is_closed && queue.frames.is_empty()
    }

    /// The frames that wait, each by itself, as soon as there are any; `None`: it is over. Safe to drop.
    pub(crate) async fn gathered(&self) -> Option<Vec<Bytes>> {
        poll_fn(|cx| {
            let mut queue = self.lock();
            if queue.frames.is_empty() && !queue.is_closed {
                queue.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let mut size = 0;
            let frames = queue.frames.iter().take_while(|frame| {
                size += frame.len();
                size <= JOINED
            });
            let count = frames.count().max(1).min(queue.frames.len());
            let frames: Vec<_> = queue.frames.drain(..count).collect();
            queue.bytes -= frames.iter().map(Bytes::len).sum::<usize>();
            Poll::Ready((count > 0).then_some(frames))
        })
        .await
    }

    /// Whoever sends this goes on with `next`, when all of this is sent.
    pub(crate) fn go_on_with(&self, next: &Arc<Self>) {
        let mut queue = self.lock();
        if queue.is_closed {
            next.end();
        } else {
            queue.next = Some(Arc::clone(next));
            queue.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn put(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What waits, as one piece.
    fn take(&mut self) -> Option<Bytes> {
        let first = self.frames.pop_front()?;
        let mut size = first.len();
        let more = self.frames.iter().take_while(|frame| {
            size += frame.len();
            size <= JOINED
        });
        let more = more.count();
        if more == 0 {
            self.bytes -= first.len();
            return Some(first);
        }
        let mut joined = BytesMut::with_capacity(size.min(JOINED));
        joined.extend_from_slice(&first);
        for frame in self.frames.drain(..more) {
            joined.extend_from_slice(&frame);
        }
        self.bytes -= joined.len();
        Some(joined.freeze())
    }
}

/// The response body.
struct Outgoing(Arc<Outbox>);

impl Stream for Outgoing {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let mut queue = self.0.lock();
            if let Some(bytes) = queue.take() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            if queue.is_closed {
                return Poll::Ready(None);
            }
            let Some(next) = queue.next.take() else {
                queue.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            drop(queue);
            self.0 = next;
        }
    }
}

impl Drop for Outgoing {
    /// The connection is gone: nothing is to be kept for it.
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.is_closed = true;
        queue.frames.clear();
        queue.bytes = 0;
        if let Some(next) = queue.next.take() {
            next.end();
        }
    }
}

/// The receiving half.
pub(crate) struct Inbox {
    payload: web::Payload,
    codec: Codec,
    buffer: BytesMut,
    /// The beginning of a message that comes in pieces, and whether it is a text.
    fragments: Option<(BytesMut, bool)>,
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Received {
    Text(Bytes),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    Close,
}

/// Why a client cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the WebSocket protocol was not kept: {0}")]
    Protocol(#[from] ProtocolError),
    #[error("a message has more than {LARGEST_MESSAGE} bytes")]
    TooLarge,
    #[error("the connection broke off")]
    Gone,
}

impl Inbox {
    /// What comes next; `None`: the client is gone. Safe to drop.
    pub(crate) async fn next(&mut self) -> Option<Result<Received, Broken>> {
        loop {
            match self.codec.decode(&mut self.buffer) {
                Ok(Some(frame)) => match self.receive(frame) {
                    Ok(Some(received)) => return Some(Ok(received)),
                    Ok(None) => continue,
                    Err(broken) => return Some(Err(broken)),
                },
                Ok(None) => {}
                Err(ProtocolError::Overflow) => return Some(Err(Broken::TooLarge)),
                Err(error) => return Some(Err(error.into())),
            }
            match self.payload.next().await? {
                Ok(bytes) => self.buffer.extend_from_slice(&bytes),
                Err(_) => return Some(Err(Broken::Gone)),
            }
        }
    }

    fn receive(&mut self, frame: Frame) -> Result<Option<Received>, Broken> {
        Ok(Some(match frame {
            Frame::Text(bytes) => Received::Text(bytes),
            Frame::Binary(bytes) => Received::Binary(bytes),
            Frame::Ping(bytes) => Received::Ping(bytes),
            Frame::Pong(_) => Received::Pong,
            Frame::Close(_) => Received::Close,
            Frame::Continuation(Item::FirstText(bytes)) => {
                self.fragments = Some((BytesMut::from(&*bytes), true));
                return Ok(None);
            }
            Frame::Continuation(Item::FirstBinary(bytes)) => {
                self.fragments = Some((BytesMut::from(&*bytes), false));
                return Ok(None);
            }
            Frame::Continuation(Item::Continue(bytes)) => {
                self.append(&bytes)?;
                return Ok(None);
            }
            Frame::Continuation(Item::Last(bytes)) => {
                self.append(&bytes)?;
                match self.fragments.take() {
                    Some((whole, true)) => Received::Text(whole.freeze()),
                    Some((whole, false)) => Received::Binary(whole.freeze()),
                    None => return Ok(None),
                }
            }
        }))
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let Some((fragments, _)) = &mut self.fragments else { return Ok(()) };
        if fragments.len() + bytes.len() > LARGEST_MESSAGE {
            return Err(Broken::TooLarge);
        }
        fragments.extend_from_slice(bytes);
        Ok(())
    }
}

/// Takes the handshake of `request`: what to answer with, and both halves of the socket.
pub(crate) fn open(request: &HttpRequest, payload: web::Payload) -> Result<(HttpResponse, Arc<Outbox>, Inbox), Error> {
    let mut response = actix_http::ws::handshake(request.head())?;
    let outbox = Arc::new(Outbox::default());
    let body = actix_web::body::BodyStream::new(Outgoing(Arc::clone(&outbox)));
    let answer = response.message_body(actix_web::body::BoxBody::new(body))?.into();
    let codec = Codec::new().max_size(LARGEST_MESSAGE);
    Ok((answer, outbox, Inbox { payload, codec, buffer: BytesMut::new(), fragments: None }))
}

/// A text frame for a client.
pub(crate) fn text_frame(text: &[u8]) -> Bytes {
    frame(text, OpCode::Text)
}

#[cfg(test)]
pub(crate) fn binary_frame(bytes: &[u8]) -> Bytes {
    frame(bytes, OpCode::Binary)
}

pub(crate) fn ping_frame() -> Bytes {
    frame(&[], OpCode::Ping)
}

pub(crate) fn pong_frame(bytes: &[u8]) -> Bytes {
    frame(bytes, OpCode::Pong)
}

/// What is in a frame for a client.
pub(crate) fn unframe(frame: &[u8]) -> (OpCode, &[u8]) {
    // As `frame` writes it: two bytes, and more where the length does not fit into seven bits.
    let head = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    (OpCode::from(frame[0] & 0x0f), &frame[head..])
}

fn frame(payload: &[u8], code: OpCode) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 10);
    Parser::write_message(&mut frame, payload, code, true, false);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_gathered_goes_out_as_one_and_nothing_is_lost() {
        let outbox = Outbox::default();
        let frames: Vec<_> = (0..100).map(|n| text_frame(format!("{n}").repeat(500).as_bytes())).collect();
        for frame in &frames {
            assert!(outbox.send(frame.clone()));
        }
        let mut pieces = Vec::new();
        while let Some(piece) = outbox.lock().take() {
            assert!(piece.len() <= JOINED);
            pieces.push(piece);
        }
        assert_eq!(pieces.concat(), frames.concat());
        assert!(pieces.len() < 5, "{}", pieces.len());
        assert_eq!(outbox.lock().bytes, 0);
    }

    #[test]
    fn who_does_not_read_is_let_go_and_holds_no_more_than_the_bound() {
        let outbox = Outbox::default();
        let frame = text_frame(&[b'a'; 1000]);
        let sent = (0..10_000).take_while(|_| outbox.send(frame.clone())).count();
        assert!(sent * frame.len() <= MOST_QUEUED && sent * frame.len() > MOST_QUEUED - 2000);
        let last = outbox.lock().take().unwrap();
        assert_eq!((last[0], &last[2..4]), (0x88, &1013u16.to_be_bytes()[..]), "a close frame, and nothing else");
        assert!(outbox.lock().take().is_none() && !outbox.send(frame));
    }
}
