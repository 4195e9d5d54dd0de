//! What clients send in HTTP/1, looked at before the server reads it.
//!
//! The server forgives lines that end in a bare LF, chunk sizes with spaces behind them and trailers that are none, and it
//! goes on with what follows a request that closes its connection. A proxy in front of us may read all that otherwise, so here
//! the first three make the server refuse what it reads, and the last never reaches it (RFC 9112, 2.2, 7.1 and 9.6).
//!
//! The server also writes an answer in the way of the request that it has read last: with one behind another, the first
//! would be answered without its body where the second is HEAD. So it reads the next request when the last is answered.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use actix_web::body::{BodySize, MessageBody};
use bytes::{Bytes, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes that one line may have. The server takes no heads as large as this.
const LONGEST_LINE: usize = 128 * 1024;
/// The most bytes that chunk extensions and trailers of one body may have together.
const MAX_OVERHEAD: usize = 8 * 1024;
/// What the server refuses wherever it stands in a head, and behind a CR also in chunks and trailers.
const REFUSED: u8 = b'\0';

/// The most bytes of requests to come that are kept while one is answered: what comes behind waits in the socket.
const MOST_HELD: usize = 16 * 1024;

/// A connection of a client, of which no more is read than what follows the rules, one request after the other.
pub struct Strict<T> {
    io: T,
    reader: Reader,
    turn: Turn,
    /// Requests to come.
    held: BytesMut,
}

/// Whose turn it is on a connection: clones share it.
#[derive(Clone, Default)]
pub struct Turn(Rc<Turns>);

#[derive(Default)]
struct Turns {
    /// How many requests were read whole.
    read: Cell<u64>,
    /// How many were answered.
    answered: Cell<u64>,
    /// Who waits for the next answer.
    waiting: RefCell<Option<Waker>>,
}

impl Turn {
    fn is_next(&self) -> bool {
        self.0.answered.get() >= self.0.read.get()
    }

    fn wait(&self, cx: &Context<'_>) {
        *self.0.waiting.borrow_mut() = Some(cx.waker().clone());
    }
}

/// The body of an answer. When it is dropped, all of it was sent, and it is the turn of the next request.
pub struct Answering<B> {
    body: B,
    turn: Option<Turn>,
}

impl<B> Answering<B> {
    /// `turn`: that of the connection, if requests take turns on it.
    pub fn new(body: B, turn: Option<Turn>) -> Self {
        Self { body, turn }
    }
}

impl<B> Drop for Answering<B> {
    fn drop(&mut self) {
        let Some(Turn(turns)) = &self.turn else { return };
        turns.answered.set(turns.answered.get() + 1);
        if let Some(waker) = turns.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl<B: MessageBody + Unpin> MessageBody for Answering<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(cx)
    }
}

impl<T> Strict<T> {
    /// A connection on which HTTP/1 is spoken.
    pub fn http_1(io: T) -> Self {
        Self { io, reader: Reader::default(), turn: Turn::default(), held: BytesMut::new() }
    }

    /// A connection on which something else is spoken: all passes as it is.
    pub fn unread(io: T) -> Self {
        Self { reader: Reader { place: Place::Through, ..Reader::default() }, ..Self::http_1(io) }
    }

    /// Whose turn it is, for those who answer. `None` where requests take none.
    pub fn turn(&self) -> Option<Turn> {
        (self.reader.place != Place::Through).then(|| self.turn.clone())
    }
}

/// Follows requests through the bytes of a connection.
#[derive(Default)]
struct Reader {
    place: Place,
    /// The beginning of a line that has not come whole.
    line: Vec<u8>,
    request: Facts,
    /// Bytes of extensions and trailers of this body so far.
    overhead: usize,
    /// [`REFUSED`] is still to be handed on.
    owes_refused: bool,
}

/// Where in a request we are.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    #[default]
    Head,
    /// In a body, with this many bytes to come.
    Length(u64),
    ChunkSize,
    /// In a chunk, with this many bytes to come.
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// Behind a request that has come whole: the next is not read before that is answered.
    Waiting,
    /// Nothing more is HTTP.
    Through,
    /// Nothing more is read.
    Over,
}

/// What the head in hand says about its body, and what follows.
#[derive(Default)]
struct Facts {
    has_begun: bool,
    is_1_0: bool,
    is_websocket: bool,
    is_chunked: bool,
    /// What cannot be read as a length, the server refuses.
    length: u64,
    closes: bool,
    stays: bool,
}

/// The bytes break a rule.
#[derive(Debug)]
struct Broken;

impl Reader {
    /// Looks at what was read, which may be changed, and answers how much of it the server may see.
    fn look(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let left = &bytes[at..];
            match &mut self.place {
                Place::Through => return bytes.len(),
                Place::Waiting | Place::Over => return at,
                Place::Length(to_come) | Place::Chunk(to_come) => {
                    let taken = usize::try_from(*to_come).map_or(left.len(), |to_come| to_come.min(left.len()));
                    at += taken;
                    *to_come -= taken as u64;
                    match self.place {
                        Place::Length(0) => self.end(),
                        Place::Chunk(0) => self.place = Place::ChunkEnd,
                        _ => {}
                    }
                }
                Place::Head | Place::ChunkSize | Place::ChunkEnd | Place::Trailers => {
                    let Some(end) = memchr(b'\n', left) else {
                        if self.line.len() + left.len() > LONGEST_LINE {
                            return self.refuse(bytes, at);
                        }
                        self.line.extend_from_slice(left);
                        return bytes.len();
                    };
                    let outcome = if self.line.is_empty() {
                        self.line(&left[..end])
                    } else {
                        let mut line = std::mem::take(&mut self.line);
                        line.extend_from_slice(&left[..end]);
                        self.line(&line)
                    };
                    at += end;
                    if outcome.is_err() {
                        return self.refuse(bytes, at);
                    }
                    at += 1;
                }
            }
        }
        at
    }

    /// A line, up to its LF.
    fn line(&mut self, line: &[u8]) -> Result<(), Broken> {
        let line = line.strip_suffix(b"\r").ok_or(Broken)?;
        match self.place {
            Place::Head if !self.request.has_begun => {
                // Empty lines before a request mean nothing.
                if !line.is_empty() {
                    self.request = Facts { has_begun: true, is_1_0: line.ends_with(b"1.0"), ..Facts::default() };
                }
            }
            Place::Head if line.is_empty() => self.body(),
            Place::Head => self.request.learn(line),
            Place::ChunkSize => {
                let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                let (size, extension) = line.split_at(digits);
                if !(extension.is_empty() || extension.starts_with(b";")) {
                    return Err(Broken);
                }
                self.count(extension.len())?;
                let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
                self.place = match size.ok_or(Broken)? {
                    0 => Place::Trailers,
                    size => Place::Chunk(size),
                };
            }
            Place::ChunkEnd if line.is_empty() => self.place = Place::ChunkSize,
            Place::Trailers if line.is_empty() => self.end(),
            Place::Trailers if is_field(line) => self.count(line.len())?,
            _ => return Err(Broken),
        }
        Ok(())
    }

    fn count(&mut self, overhead: usize) -> Result<(), Broken> {
        self.overhead += overhead;
        if self.overhead > MAX_OVERHEAD { Err(Broken) } else { Ok(()) }
    }

    /// The head has come whole.
    fn body(&mut self) {
        let Facts { is_chunked, is_websocket, length, .. } = self.request;
        self.overhead = 0;
        match (is_chunked, is_websocket, length) {
            (true, _, _) => self.place = Place::ChunkSize,
            (false, true, _) => self.place = Place::Through,
            (false, false, 0) => self.end(),
            (false, false, length) => self.place = Place::Length(length),
        }
    }

    /// The request has come whole.
    fn end(&mut self) {
        let Facts { is_1_0, closes, stays, .. } = self.request;
        self.place = if closes || (is_1_0 && !stays) { Place::Over } else { Place::Waiting };
        self.request.has_begun = false;
    }

    /// Has the server refuse what ends at `at`, where an LF stands that is wrong. Answers how much it may see.
    fn refuse(&mut self, bytes: &mut [u8], at: usize) -> usize {
        self.place = Place::Over;
        self.line = Vec::new();
        bytes[at] = b'\r';
        self.owes_refused = true;
        at + 1
    }
}

impl Facts {
    /// Takes notice of a header.
    fn learn(&mut self, line: &[u8]) {
        let Some(colon) = memchr(b':', line) else { return };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let has = |token: &str| value.split(|byte| *byte == b',').any(|it| is(it.trim_ascii(), token));
        match name.len() {
            7 if is(name, "upgrade") => self.is_websocket |= is(value.trim_ascii(), "websocket"),
            10 if is(name, "connection") => {
                self.closes |= has("close");
                self.stays |= has("keep-alive");
            }
            14 if is(name, "content-length") => {
                let length = std::str::from_utf8(value).ok().and_then(|length| length.trim().parse().ok());
                self.length = length.unwrap_or_default();
            }
            17 if is(name, "transfer-encoding") => self.is_chunked = true,
            _ => {}
        }
    }
}

fn is(bytes: &[u8], text: &str) -> bool {
    bytes.eq_ignore_ascii_case(text.as_bytes())
}

/// Whether a line of trailers has a name and a value.
fn is_field(line: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    memchr(b':', line).is_some_and(|colon| colon > 0 && line[..colon].iter().all(is_token))
}

impl<T: AsyncRead + Unpin> AsyncRead for Strict<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, reader, turn, held } = self.get_mut();
        if reader.place == Place::Through && held.is_empty() {
            return Pin::new(io).poll_read(cx, buf);
        }
        if reader.owes_refused && buf.remaining() > 0 {
            reader.owes_refused = false;
            buf.put_slice(&[REFUSED]);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        loop {
            if reader.place == Place::Waiting && turn.is_next() {
                reader.place = Place::Head;
            }
            let is_waiting = reader.place == Place::Waiting;
            // With nothing behind it, the end of an answer is of no interest here.
            if is_waiting && !held.is_empty() {
                turn.wait(cx);
                if held.len() >= MOST_HELD {
                    return Poll::Pending;
                }
            }
            if is_waiting || held.is_empty() {
                // Read while waiting too: so it is noticed at once when the client leaves.
                ready!(Pin::new(&mut *io).poll_read(cx, buf))?;
            } else {
                let size = held.len().min(buf.remaining());
                buf.put_slice(&held.split_to(size));
            }
            let read = &mut buf.filled_mut()[before..];
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if is_waiting {
                held.extend_from_slice(read);
                buf.set_filled(before);
                continue;
            }
            let seen = reader.look(read);
            if reader.place == Place::Waiting {
                turn.0.read.set(turn.0.read.get() + 1);
                if seen < read.len() {
                    let mut rest = BytesMut::from(&read[seen..]);
                    rest.unsplit(std::mem::take(held));
                    *held = rest;
                }
            }
            buf.set_filled(before + seen);
            // To have read nothing means the end. What is not read on is thrown away, until the client closes.
            if seen > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Strict<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server sees of `wire` if it comes in pieces of `step` bytes.
    fn seen(wire: &[u8], step: usize) -> Vec<u8> {
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        for piece in wire.chunks(step) {
            let mut piece = piece.to_vec();
            let mut rest = &mut piece[..];
            loop {
                let size = reader.look(rest);
                let (passed, behind) = rest.split_at_mut(size);
                seen.extend_from_slice(passed);
                if reader.place != Place::Waiting {
                    break;
                }
                // It is answered at once.
                reader.place = Place::Head;
                rest = behind;
            }
            if std::mem::take(&mut reader.owes_refused) {
                seen.push(REFUSED);
            }
        }
        seen
    }

    const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn what_follows_the_rules_passes_as_it_is_however_it_is_cut() {
        for message in [
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\na\nb\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n\n\n\r\nA\r\n0123456789\r\n0\r\nX-A: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\n\r\n\n\0\n",
        ] {
            let wire = format!("{message}{NEXT}");
            for step in 1..=wire.len() {
                assert_eq!(seen(wire.as_bytes(), step), wire.as_bytes(), "{message:?} by {step}");
            }
        }
    }

    #[test]
    fn what_breaks_a_rule_ends_in_what_the_server_refuses() {
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (message, passed) in [
            ("\nGET / HTTP/1.1\r\n".to_owned(), ""),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n".to_owned(), "GET / HTTP/1.1"),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n".to_owned(), "GET / HTTP/1.1\r\nHost: a\r\n"),
            (format!("{chunked}1 \r\na\r\n0\r\n\r\n"), "1 \r"),
            (format!("{chunked}1;a\na\r\n0\r\n\r\n"), "1;a"),
            (format!("{chunked}1\r\nab\r\n0\r\n\r\n"), "1\r\nab\r"),
            (format!("{chunked}10000000000000000\r\na\r\n0\r\n\r\n"), "10000000000000000\r"),
            (format!("{chunked}0\r\n\n"), "0\r\n"),
            (format!("{chunked}0\r\nno field\r\n\r\n"), "0\r\nno field\r"),
        ] {
            let passed = if message.starts_with(chunked) { format!("{chunked}{passed}") } else { passed.to_owned() };
            let wire = format!("{message}{NEXT}");
            for step in 1..=wire.len() {
                assert_eq!(seen(wire.as_bytes(), step), format!("{passed}\r\0").as_bytes(), "{message:?} by {step}");
            }
        }
    }

    #[test]
    fn nothing_passes_behind_a_request_that_closes_the_connection() {
        for message in [
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab",
        ] {
            let wire = format!("{message}{NEXT}");
            for step in 1..=wire.len() {
                assert_eq!(seen(wire.as_bytes(), step), message.as_bytes(), "{message:?} by {step}");
            }
        }
    }

    #[test]
    fn extensions_trailers_and_lines_are_bounded() {
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (long, longest) = ("x".repeat(MAX_OVERHEAD), "x".repeat(LONGEST_LINE + 1));
        for wire in
            [format!("{chunked}1;{long}\r\n"), format!("{chunked}0\r\na: {long}\r\n"), format!("GET /{longest}")]
        {
            assert!(seen(wire.as_bytes(), 1000).ends_with(b"\r\0"));
        }
    }
}
