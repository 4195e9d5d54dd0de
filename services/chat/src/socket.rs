//! A WebSocket as a queue of frames that are already written, and a stream of what the client says.
//!
//! Frames to clients are not masked, so the same bytes go to everybody: they are written once and shared. What is sent is
//! written soon after, by one task a worker thread for all of its sockets, and what has gathered by then goes out in one
//! write. A socket's own task is bothered only where its client does not read fast enough.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use actix_http::ws::{CloseCode, CloseReason, Codec, Frame, Item, OpCode, Parser, ProtocolError};
use actix_web::body::BoxBody;
use actix_web::{Error, HttpRequest, HttpResponse};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use chassis::upgrade::{Upgraded, upgrade};
use serde::Serialize;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::codec::Decoder as _;

/// The most bytes that wait for a client: one that reads slower than others write is let go.
const MOST_QUEUED: usize = 1024 * 1024;
/// Frames that have gathered are joined up to so many bytes.
const JOINED: usize = 64 * 1024;
/// No more frames than these are joined.
const MOST_JOINED: usize = 64;
/// The most bytes of a message of a client.
pub(crate) const LARGEST_MESSAGE: usize = 64 * 1024;
/// How much of what clients say is read at once.
const READ: usize = 64 * 1024;
/// How long a client may take to close after we have.
const LINGER: Duration = Duration::from_secs(5);
/// After so many sockets others have a turn.
const TURN: usize = 64;

/// A client that does not read what it is sent (RFC 6455's 1013: try again later).
pub(crate) const TOO_SLOW: CloseCode = CloseCode::Again;

/// The sending half: whoever has it can send, nobody waits.
#[derive(Debug, Default)]
pub(crate) struct Outbox(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// A part of the first frame is written: the rest of it must follow.
    is_begun: bool,
    /// Nothing is taken any more; the last frame says so to the client.
    is_closed: bool,
    /// What is sent after this.
    next: Option<Arc<Outbox>>,
    /// Where it is written to; `None`: it is fetched.
    carrier: Option<Carrier>,
    /// It will be written to soon.
    is_due: bool,
    /// The client has not read what it was sent: its own task goes on.
    is_blocked: bool,
    waker: Option<Waker>,
}

/// A connection, and who writes to it.
#[derive(Debug, Clone)]
struct Carrier {
    stream: Arc<TcpStream>,
    writer: Arc<Writer>,
}

impl Outbox {
    /// Sends a frame. `false`: the socket is closed, or is now, as the client has not read what it was sent before.
    pub(crate) fn send(self: &Arc<Self>, frame: Bytes) -> bool {
        self.send_all(std::slice::from_ref(&frame))
    }

    /// Sends frames, which go out together. `false`: as of [`Outbox::send`].
    pub(crate) fn send_all(self: &Arc<Self>, frames: &[Bytes]) -> bool {
        let mut queue = self.lock();
        for frame in frames {
            if queue.bytes + frame.len() > MOST_QUEUED && !queue.is_blocked {
                // That much came at once: the client has had no time to read it yet.
                queue.write();
            }
            if queue.is_closed {
                return false;
            }
            if queue.bytes + frame.len() > MOST_QUEUED {
                drop(queue);
                self.close(TOO_SLOW, "what was sent was not read");
                return false;
            }
            queue.bytes += frame.len();
            queue.frames.push_back(frame.clone());
        }
        let is_open = !queue.is_closed;
        self.bring(&mut queue);
        is_open
    }

    /// Says goodbye, after what waits already. What the client does not read in time is thrown away.
    pub(crate) fn close(self: &Arc<Self>, code: CloseCode, why: &str) {
        let mut queue = self.lock();
        if queue.is_closed {
            return;
        }
        if code == TOO_SLOW {
            queue.throw_away();
        }
        queue.is_closed = true;
        let mut frame = BytesMut::new();
        Parser::write_close(&mut frame, Some(CloseReason::from((code, why))), false);
        let frame = frame.freeze();
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        self.bring(&mut queue);
    }

    /// Has what waits written soon.
    fn bring(self: &Arc<Self>, queue: &mut Queue) {
        if queue.is_due || queue.is_blocked || queue.frames.is_empty() {
            return;
        }
        let Queue { carrier, is_due, .. } = queue;
        match carrier {
            Some(carrier) => {
                *is_due = true;
                carrier.writer.bring(Arc::clone(self));
            }
            None => queue.wake(),
        }
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

    /// Writes to a connection all that is sent, until that is over, or the connection is.
    async fn deliver(mut self: Arc<Self>, carrier: Carrier) {
        loop {
            self.lock().carrier = Some(carrier.clone());
            self.write();
            let next = loop {
                match self.turn().await {
                    Turn::Blocked => match carrier.stream.writable().await {
                        Ok(()) => self.write(),
                        Err(_) => self.lock().break_off(),
                    },
                    Turn::GoOn(next) => break next,
                    Turn::Over => return,
                }
            };
            self = next;
        }
    }

    /// What whoever delivers has to do next. Safe to drop.
    async fn turn(&self) -> Turn {
        poll_fn(|cx| {
            let mut queue = self.lock();
            if queue.is_blocked {
                return Poll::Ready(Turn::Blocked);
            }
            if queue.frames.is_empty() {
                if let Some(next) = queue.next.take() {
                    queue.carrier = None;
                    return Poll::Ready(Turn::GoOn(next));
                }
                if queue.is_closed {
                    queue.carrier = None;
                    return Poll::Ready(Turn::Over);
                }
            }
            queue.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Writes what waits, as far as the client reads it.
    fn write(&self) {
        let mut queue = self.lock();
        queue.is_due = false;
        queue.write();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What whoever delivers has to do.
enum Turn {
    /// Wait until the client reads.
    Blocked,
    /// Deliver this from now on.
    GoOn(Arc<Outbox>),
    Over,
}

impl Queue {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn write(&mut self) {
        self.is_blocked = false;
        while let (Some(carrier), Some(first)) = (&self.carrier, self.frames.front()) {
            let written = match self.frames.len() {
                1 => carrier.stream.try_write(first),
                _ => carrier.stream.try_write_vectored(&self.joined()),
            };
            match written {
                Ok(count) => self.written(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    break;
                }
                Err(_) => self.break_off(),
            }
        }
        if self.is_blocked || self.is_closed || self.next.is_some() {
            self.wake();
        }
    }

    /// What goes out in one write.
    fn joined(&self) -> Vec<IoSlice<'_>> {
        let mut size = 0;
        let frames = self.frames.iter().take(MOST_JOINED).take_while(|frame| {
            let is_first = size == 0;
            size += frame.len();
            is_first || size <= JOINED
        });
        frames.map(|frame| IoSlice::new(frame)).collect()
    }

    fn written(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(first) = self.frames.front_mut() {
            if count < first.len() {
                first.advance(count);
                self.is_begun |= count > 0;
                return;
            }
            count -= first.len();
            self.frames.pop_front();
            self.is_begun = false;
        }
    }

    fn throw_away(&mut self) {
        self.frames.truncate(usize::from(self.is_begun));
        self.bytes = self.frames.iter().map(Bytes::len).sum();
    }

    /// The connection is gone: nothing is to be kept for it.
    fn break_off(&mut self) {
        self.is_closed = true;
        self.is_blocked = false;
        self.carrier = None;
        self.is_begun = false;
        self.throw_away();
        if let Some(next) = self.next.take() {
            next.end();
        }
        self.wake();
    }
}

/// Writes to the sockets of a thread what was sent to them.
#[derive(Debug, Default)]
struct Writer {
    due: Mutex<Vec<Arc<Outbox>>>,
    notify: Notify,
}

thread_local! {
    static WRITER: RefCell<Weak<Writer>> = const { RefCell::new(Weak::new()) };
    /// Where the sockets of a thread read to.
    static READING: RefCell<Box<[u8; READ]>> = RefCell::new(Box::new([0; READ]));
}

impl Writer {
    /// That of this thread.
    fn here() -> Arc<Self> {
        WRITER.with_borrow_mut(|known| {
            if let Some(writer) = known.upgrade() {
                return writer;
            }
            let writer = Arc::<Self>::default();
            *known = Arc::downgrade(&writer);
            actix_web::rt::spawn(Arc::clone(&writer).work());
            writer
        })
    }

    fn bring(&self, outbox: Arc<Outbox>) {
        let mut due = self.lock();
        due.push(outbox);
        if due.len() == 1 {
            self.notify.notify_one();
        }
    }

    /// As long as its thread has work.
    async fn work(self: Arc<Self>) {
        let mut writing = Vec::new();
        loop {
            self.notify.notified().await;
            std::mem::swap(&mut *self.lock(), &mut writing);
            for (place, outbox) in writing.drain(..).enumerate() {
                if place % TURN == TURN - 1 {
                    tokio::task::yield_now().await;
                }
                outbox.write();
            }
            // What a crowd has needed once is not kept for ever.
            writing.shrink_to(TURN);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Outbox>>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receiving half.
pub(crate) struct Inbox {
    stream: Arc<TcpStream>,
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
            if self.buffer.is_empty() {
                // Nothing is held for who says nothing.
                self.buffer = BytesMut::new();
            }
            match self.read().await {
                Ok(0) => return None,
                Ok(_) => {}
                Err(_) => return Some(Err(Broken::Gone)),
            }
        }
    }

    /// Reads what there is; 0: there comes nothing any more. Safe to drop.
    async fn read(&mut self) -> io::Result<usize> {
        loop {
            self.stream.readable().await?;
            let read = READING.with_borrow_mut(|reading| {
                let count = self.stream.try_read(&mut reading[..])?;
                self.buffer.extend_from_slice(&reading[..count]);
                Ok(count)
            });
            match read {
                Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {}
                read => return read,
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

/// A WebSocket that is agreed on.
pub(crate) struct Opened {
    /// What to answer with.
    pub(crate) answer: HttpResponse,
    /// What is sent already waits for the answer to be sent.
    pub(crate) outbox: Arc<Outbox>,
}

/// Takes the handshake of `request`.
pub(crate) fn open(request: &HttpRequest) -> Result<Opened, Error> {
    let answer = actix_http::ws::handshake(request.head())?.message_body(BoxBody::new(()))?.into();
    Ok(Opened { answer, outbox: Arc::default() })
}

impl Opened {
    /// Has what comes over the WebSocket heard by `hear`. It ends with that, and with its outbox.
    pub(crate) fn heard_by<F: Future<Output = ()> + 'static>(
        self,
        request: &HttpRequest,
        hear: impl FnOnce(Inbox) -> F + 'static,
    ) -> Result<HttpResponse, Error> {
        let Self { answer, outbox } = self;
        let serve = |Upgraded { stream, early }| {
            let stream = Arc::new(stream);
            let codec = Codec::new().max_size(LARGEST_MESSAGE);
            let hearing = hear(Inbox { stream: Arc::clone(&stream), codec, buffer: early, fragments: None });
            serve(stream, outbox, hearing)
        };
        match upgrade(request, serve) {
            true => Ok(answer),
            false => Err(actix_http::ws::HandshakeError::NoWebsocketUpgrade.into()),
        }
    }
}

async fn serve(stream: Arc<TcpStream>, outbox: Arc<Outbox>, hearing: impl Future<Output = ()>) {
    let carrier = Carrier { stream: Arc::clone(&stream), writer: Writer::here() };
    let (mut delivering, mut hearing) = (pin!(outbox.deliver(carrier)), pin!(hearing));
    let is_heard = tokio::select! {
        biased;
        () = &mut delivering => false,
        () = &mut hearing => true,
    };
    if is_heard {
        delivering.await;
    }
    // The client reads our goodbye, and closes, before it is told that nobody listens any more.
    let _gone = SockRef::from(&*stream).shutdown(Shutdown::Write);
    let _silent = timeout(LINGER, async {
        if !is_heard {
            hearing.await;
        }
        drain(&stream).await;
    })
    .await;
}

/// Reads until there comes nothing any more.
async fn drain(stream: &TcpStream) {
    while stream.readable().await.is_ok() {
        match READING.with_borrow_mut(|reading| stream.try_read(&mut reading[..])) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// A text frame for a client.
pub(crate) fn text_frame(text: &[u8]) -> Bytes {
    frame(text, OpCode::Text)
}

/// A text frame for a client, of a value that can be written as JSON: most frames are.
pub(crate) fn json_frame(value: &impl Serialize) -> Bytes {
    // The longest head that a frame has is before what the writer gets to see, and is written when the length is known.
    const HEAD: usize = 10;
    let mut frame = Vec::with_capacity(512);
    frame.resize(HEAD, 0);
    if let Err(error) = serde_json::to_writer(&mut frame, value) {
        tracing::error!(%error, "a frame cannot be written");
    }
    let mut head = BytesMut::with_capacity(HEAD);
    let size = frame.len() - HEAD;
    head.put_u8(0x80 | u8::from(OpCode::Text));
    match size {
        0..126 => head.put_u8(size as u8),
        126..=0xffff => {
            head.put_u8(126);
            head.put_u16(size as u16);
        }
        _ => {
            head.put_u8(127);
            head.put_u64(size as u64);
        }
    }
    let start = HEAD - head.len();
    frame[start..HEAD].copy_from_slice(&head);
    Bytes::from(frame).slice(start..)
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
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[actix_web::test]
    async fn what_has_gathered_goes_out_in_order_and_nothing_is_lost() {
        let outbox = Arc::<Outbox>::default();
        let frames: Vec<_> = (0..1000).map(|n| text_frame(format!("{n}").repeat(150).as_bytes())).collect();
        let (before, after) = frames.split_at(300);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        assert!(before.iter().all(|frame| outbox.send(frame.clone())));

        actix_web::rt::spawn(serve(Arc::new(server), Arc::clone(&outbox), std::future::pending()));
        assert!(after.iter().all(|frame| outbox.send(frame.clone())));
        outbox.close(CloseCode::Normal, "");

        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        let sent = frames.concat();
        assert!(read[..sent.len()] == sent, "in order and whole");
        assert_eq!(read[sent.len()], 0x88, "and a goodbye");
        assert!(outbox.is_over() && outbox.lock().bytes == 0);
    }

    #[actix_web::test]
    async fn who_is_let_go_hears_whole_frames_and_why() {
        let outbox = Arc::<Outbox>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        actix_web::rt::spawn(serve(Arc::new(server), Arc::clone(&outbox), std::future::pending()));
        let frame = text_frame(&[b'a'; 60_000]);
        while outbox.send(frame.clone()) {
            // Its own task sees that the client does not read.
            tokio::task::yield_now().await;
        }

        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        let frames = read.chunks(frame.len());
        let last = frames.clone().next_back().unwrap();
        assert!(frames.clone().count() > 2 && frames.rev().skip(1).all(|whole| whole == frame));
        assert_eq!((last[0], &last[2..4]), (0x88, &1013u16.to_be_bytes()[..]));
    }

    #[test]
    fn json_is_in_the_same_frame_as_any_text() {
        for size in [0, 1, 123, 124, 125, 1000, 65_533, 65_534, 70_000] {
            let value = serde_json::Value::from("x".repeat(size));
            assert_eq!(json_frame(&value), text_frame(value.to_string().as_bytes()), "{size}");
        }
    }

    #[tokio::test]
    async fn who_does_not_read_is_let_go_and_holds_no_more_than_the_bound() {
        let outbox = Arc::<Outbox>::default();
        let frame = text_frame(&[b'a'; 1000]);
        let sent = (0..10_000).take_while(|_| outbox.send(frame.clone())).count();
        assert!(sent * frame.len() <= MOST_QUEUED && sent * frame.len() > MOST_QUEUED - 2000);
        let last = outbox.gathered().await.unwrap();
        assert_eq!(
            (last.len(), last[0][0], &last[0][2..4]),
            (1, 0x88, &1013u16.to_be_bytes()[..]),
            "a close frame alone"
        );
        assert!(outbox.gathered().await.is_none() && !outbox.send(frame));
    }
}
