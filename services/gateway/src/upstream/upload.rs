//! The half of an exchange that goes to the upstream: the request's head, then its body as the client sends it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::Stream as _;
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;

use super::buffer;
use super::framing::RequestFraming;

/// What is being written. It holds one piece of the client's body at most, so a slow upstream slows the client down.
pub(super) struct Upload {
    payload: Payload,
    framing: RequestFraming,
    state: State,
    /// The head, later the line before a chunk. Written up to `sent`, and kept until there is something new to write.
    prefix: BytesMut,
    sent: usize,
    data: Bytes,
    suffix: &'static [u8],
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
    /// The upstream takes nothing more. Its answer may still be on the way.
    Refused,
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
        Self { payload, framing, state, prefix: head, sent: 0, data: Bytes::new(), suffix: b"", has_moved: false }
    }

    /// Moves as much as can be moved. Fails when the client's body breaks off or is crooked.
    pub(super) fn poll(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Result<Stopped, PayloadError> {
        loop {
            let is_starved = self.poll_load(cx)?.is_pending();
            match self.poll_write(stream, cx) {
                Poll::Pending => return Ok(Stopped::Blocked),
                // Many servers answer first and then close without reading on. So the answer decides, not this.
                Poll::Ready(Err(_)) => self.state = State::Refused,
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
                State::Complete | State::Refused => return Ok(Stopped::Done),
            }
        }
    }

    /// Takes the next piece of the body if there is room. Pending: the client has not sent it yet.
    fn poll_load(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PayloadError>> {
        while self.state == State::Open && self.data.is_empty() && self.suffix.is_empty() {
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
        match &mut self.framing {
            RequestFraming::Length(remaining) => {
                *remaining = remaining.checked_sub(piece.len() as u64).ok_or(PayloadError::Overflow)?;
            }
            RequestFraming::Chunked => {
                // A head that has not left yet goes in front of the first chunk, in one write.
                self.forget_sent();
                self.prefix.put_slice(format!("{:x}\r\n", piece.len()).as_bytes());
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
                self.forget_sent();
                self.prefix.put_slice(b"0\r\n\r\n");
                State::Complete
            }
            RequestFraming::Upgrade => State::Closing,
            RequestFraming::None | RequestFraming::Length(0) => State::Complete,
        };
        Ok(())
    }

    fn forget_sent(&mut self) {
        if self.sent == self.prefix.len() {
            self.prefix.clear();
            self.sent = 0;
        }
    }

    fn poll_write(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state == State::Refused {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.prefix.len() || !self.data.is_empty() || !self.suffix.is_empty() {
            let stream = Pin::new(&mut *stream);
            let prefix = &self.prefix[self.sent..];
            let written = if self.data.is_empty() && self.suffix.is_empty() {
                ready!(stream.poll_write(cx, prefix))?
            } else {
                let parts = [IoSlice::new(prefix), IoSlice::new(&self.data), IoSlice::new(self.suffix)];
                ready!(stream.poll_write_vectored(cx, &parts))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.has_moved = true;
            self.count_off(written);
        }
        Poll::Ready(Ok(()))
    }

    fn count_off(&mut self, written: usize) {
        let of_prefix = written.min(self.prefix.len() - self.sent);
        self.sent += of_prefix;
        let of_data = (written - of_prefix).min(self.data.len());
        self.data.advance(of_data);
        self.suffix = &self.suffix[written - of_prefix - of_data..];
    }

    /// Whether anything was written since this was asked last.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// The upstream has got the whole request.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Complete && self.sent == self.prefix.len() && self.data.is_empty()
    }

    /// Sends the head again from its first byte, on another connection.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
        self.state = State::Complete;
    }

    /// The upstream has agreed to an upgrade: from now on bytes go through as they come.
    pub(super) fn open(&mut self) {
        self.state = State::Open;
    }

    /// The head will not be needed again.
    pub(super) fn release_head(&mut self) {
        if self.sent == self.prefix.len() {
            self.sent = 0;
            buffer::give_back(std::mem::take(&mut self.prefix));
        }
    }
}
