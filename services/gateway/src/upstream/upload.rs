//! The half of an exchange that goes to the upstream: the request's head, then its body as the client sends it.

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::{Bytes, BytesMut};
use futures_util::Stream as _;
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;

use super::buffer;
use super::framing::RequestFraming;

/// What is being written. It holds one piece of the client's body at most, so a slow upstream slows the client down.
///
/// The head and the first piece stay until there is a second one: until then everything can be sent again.
pub(super) struct Upload {
    payload: Payload,
    framing: RequestFraming,
    state: State,
    head: BytesMut,
    /// The line before a chunk.
    line: Vec<u8>,
    data: Bytes,
    suffix: &'static [u8],
    /// How much is written of head, line, data and suffix, one behind the other.
    sent: usize,
    taken: Taken,
    /// The upstream takes nothing more, for this reason. Its answer may still be on the way.
    refused: Option<io::ErrorKind>,
    has_moved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// More may come from the client.
    Open,
    /// The client has sent everything, and so have we once the buffers are empty.
    Complete,
    /// An upgraded connection whose client will send nothing more: the upstream has to hear of that.
    Closing,
}

/// How much of its body was taken from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Nothing,
    OnePiece,
    More,
}

/// Why an upload does not go on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// There is nothing more to do.
    Done,
    /// The upstream takes no more for now.
    Blocked,
    /// The client sends no more for now.
    Starved,
}

impl Upload {
    pub(super) fn new(head: BytesMut, framing: RequestFraming, payload: Payload) -> Self {
        let state = match framing {
            // What follows an upgrade request is not for a server that may refuse it.
            RequestFraming::None | RequestFraming::Upgrade => State::Complete,
            RequestFraming::Length(_) | RequestFraming::Chunked => State::Open,
        };
        Self {
            payload,
            framing,
            state,
            head,
            line: Vec::new(),
            data: Bytes::new(),
            suffix: b"",
            sent: 0,
            taken: Taken::Nothing,
            refused: None,
            has_moved: false,
        }
    }

    /// Moves as much as can be moved. Fails when the client's body breaks off or is crooked.
    pub(super) fn poll(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Result<Stopped, PayloadError> {
        loop {
            if self.refused.is_some() {
                return Ok(Stopped::Done);
            }
            let is_starved = self.poll_load(cx)?.is_pending();
            match self.poll_write(stream, cx) {
                Poll::Pending => return Ok(Stopped::Blocked),
                // Many servers answer first and then close without reading on. So the answer decides, not this.
                Poll::Ready(Err(error)) => self.refused = Some(error.kind()),
                Poll::Ready(Ok(())) => {}
            }
            match self.state {
                State::Open if is_starved => return Ok(Stopped::Starved),
                State::Open => {}
                State::Closing => {
                    if Pin::new(&mut *stream).poll_shutdown(cx).is_pending() {
                        return Ok(Stopped::Blocked);
                    }
                    self.state = State::Complete;
                }
                State::Complete => return Ok(Stopped::Done),
            }
        }
    }

    /// Takes the next piece of the body if there is room. Pending: the client has not sent it yet.
    fn poll_load(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PayloadError>> {
        // The first piece goes out with the head, in one write; any other takes the place of the one before.
        while self.state == State::Open && (self.taken == Taken::Nothing || self.is_written()) {
            match ready!(Pin::new(&mut self.payload).poll_next(cx)) {
                // In chunked framing an empty piece would be the end.
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => self.load(piece)?,
                // A client that leaves an upgraded connection has ended it, not broken it off.
                Some(Err(_)) if self.framing == RequestFraming::Upgrade => self.state = State::Closing,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => self.end()?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn load(&mut self, piece: Bytes) -> Result<(), PayloadError> {
        if self.taken == Taken::Nothing {
            self.taken = Taken::OnePiece;
        } else {
            self.taken = Taken::More;
            self.release();
        }
        match &mut self.framing {
            RequestFraming::Length(remaining) => {
                *remaining = remaining.checked_sub(piece.len() as u64).ok_or(PayloadError::Overflow)?;
            }
            RequestFraming::Chunked => {
                write!(self.line, "{:x}\r\n", piece.len())?;
                self.suffix = b"\r\n";
            }
            RequestFraming::None | RequestFraming::Upgrade => {}
        }
        self.data = piece;
        Ok(())
    }

    fn end(&mut self) -> Result<(), PayloadError> {
        self.state = match self.framing {
            RequestFraming::Length(1..) => return Err(PayloadError::Incomplete(None)),
            RequestFraming::Chunked => {
                // Where a chunk stands before it, the line break behind that is written already.
                self.suffix = if self.data.is_empty() { b"0\r\n\r\n" } else { b"\r\n0\r\n\r\n" };
                State::Complete
            }
            RequestFraming::Upgrade => State::Closing,
            RequestFraming::None | RequestFraming::Length(0) => State::Complete,
        };
        Ok(())
    }

    fn poll_write(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_written() {
            let stream = Pin::new(&mut *stream);
            let written = if self.data.is_empty() && self.suffix.is_empty() {
                ready!(stream.poll_write(cx, &self.head[self.sent..]))?
            } else {
                let mut before = self.sent;
                let parts = [&self.head[..], &self.line, &self.data, self.suffix].map(|part| {
                    let skipped = before.min(part.len());
                    before -= skipped;
                    IoSlice::new(&part[skipped..])
                });
                ready!(stream.poll_write_vectored(cx, &parts))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.has_moved = true;
            self.sent += written;
        }
        Poll::Ready(Ok(()))
    }

    fn is_written(&self) -> bool {
        self.sent == self.head.len() + self.line.len() + self.data.len() + self.suffix.len()
    }

    /// Whether anything was written since this was asked last.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// The upstream has got the whole request.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Complete && self.is_written()
    }

    /// Everything that was written is still here, so that it can be written once more.
    pub(super) fn can_rewind(&self) -> bool {
        self.taken != Taken::More
    }

    /// How many bytes were written, and why no more were. Counts the whole request as long as it can be sent again.
    pub(super) fn sent(&self) -> (usize, Option<io::ErrorKind>) {
        (self.sent, self.refused)
    }

    /// Sends the request again from its first byte, on another connection.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
        self.refused = None;
    }

    /// The upstream has agreed to an upgrade: from now on bytes go through as they come.
    pub(super) fn open(&mut self) {
        self.state = State::Open;
    }

    /// Nothing will be sent again: what is written is not needed any more.
    pub(super) fn release(&mut self) {
        if self.is_written() {
            buffer::give_back(std::mem::take(&mut self.head));
            self.line.clear();
            self.data = Bytes::new();
            self.suffix = b"";
            self.sent = 0;
            self.taken = Taken::More;
        }
    }
}
