//! A WebSocket client that costs little: it looks at frames no closer than it must.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::speech::Speech;

/// Nothing takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How much is read at once.
const READ: usize = 256 * 1024;

/// A user with a token.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) number: usize,
    pub(crate) token: String,
}

/// A WebSocket that is open.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    /// The beginning of a frame.
    rest: BytesMut,
}

impl Client {
    /// Opens a WebSocket at `address` for `user`, and in it the room; returns when the server has said that it is.
    pub(crate) async fn join(
        address: SocketAddr,
        speech: Speech,
        user: &User,
        room: usize,
        since: Option<i64>,
    ) -> anyhow::Result<Self> {
        timeout(PATIENCE, async {
            let mut client = Self::open(address, speech, user, room).await?;
            if let Some(join) = speech.join(room, since) {
                client.say(&join).await?;
                client.until(|frame| speech.is_joined(frame)).await?;
            }
            Ok(client)
        })
        .await
        .context("a room was not joined in time")?
    }

    /// Opens a WebSocket, and no room.
    pub(crate) async fn open(address: SocketAddr, speech: Speech, user: &User, room: usize) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // Thousands that are closed would hold their ports for a minute.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            speech.path(user, room)
        );
        stream.write_all(request.as_bytes()).await?;
        let mut rest = BytesMut::with_capacity(1024);
        let end = loop {
            ensure!(stream.read_buf(&mut rest).await? > 0, "closed before it was answered");
            if let Some(end) = memchr::memmem::find(&rest, b"\r\n\r\n") {
                break end + 4;
            }
        };
        ensure!(rest.starts_with(b"HTTP/1.1 101 "), "answered {}", String::from_utf8_lossy(&rest));
        rest.advance(end);
        let mut client = Self { stream, rest };
        if let Some((hello, is_answer)) = speech.hello(user) {
            client.say(&hello).await?;
            client.until(is_answer).await?;
        }
        Ok(client)
    }

    pub(crate) async fn say(&self, frame: &[u8]) -> io::Result<()> {
        let mut left = frame;
        while !left.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(left) {
                Ok(count) => left = &left[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads frames up to the one that `is_it`, and returns that.
    pub(crate) async fn until(&mut self, is_it: impl Fn(&[u8]) -> bool) -> anyhow::Result<Vec<u8>> {
        loop {
            while let Some(frame) = take(&mut self.rest)? {
                if is_it(&frame) {
                    return Ok(frame.to_vec());
                }
            }
            ensure!(self.stream.read_buf(&mut self.rest).await? > 0, "closed");
        }
    }

    /// Shows `hear` the payload of each frame that comes, until the connection ends.
    pub(crate) async fn listen(
        self: &Rc<Self>,
        buffer: &RefCell<Vec<u8>>,
        mut hear: impl FnMut(&[u8]),
    ) -> anyhow::Result<()> {
        let mut rest = self.rest.clone();
        let mut hear = |frame: Frame<'_>| match frame {
            Frame { kind: PING, payload } => self.answer(&masked(PONG, payload)),
            Frame { kind: TEXT, payload: b"2" } => self.answer(&frame_of("3")), // Engine.IO's
            Frame { payload, .. } => hear(payload),
        };
        loop {
            self.stream.readable().await?;
            let mut buffer = buffer.borrow_mut();
            buffer.resize(READ, 0);
            let count = match self.stream.try_read(&mut buffer) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            let mut read = &buffer[..count];
            let is_new = rest.is_empty();
            if !is_new {
                rest.extend_from_slice(read);
                read = &rest;
            }
            while let Some((frame, end)) = first(read)? {
                hear(frame);
                read = &read[end..];
            }
            rest = BytesMut::from(read);
        }
    }

    /// It is small, and what the server has of it is not checked.
    fn answer(&self, frame: &[u8]) {
        let _full = self.stream.try_write(frame);
    }
}

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

struct Frame<'a> {
    kind: u8,
    payload: &'a [u8],
}

/// Takes the first whole frame out of `bytes`, without its head.
fn take(bytes: &mut BytesMut) -> anyhow::Result<Option<BytesMut>> {
    let Some((frame, end)) = first(bytes)? else { return Ok(None) };
    let size = frame.payload.len();
    let mut frame = bytes.split_to(end);
    frame.advance(end - size);
    Ok(Some(frame))
}

/// The first frame in `bytes`, if it is whole, and where it ends.
fn first(bytes: &[u8]) -> anyhow::Result<Option<(Frame<'_>, usize)>> {
    let [kind, size, ..] = *bytes else { return Ok(None) };
    let kind = kind & 0x0f;
    ensure!(kind != CLOSE, "the server said goodbye: {}", String::from_utf8_lossy(bytes));
    let (head, size) = match (size, bytes) {
        (126, [_, _, a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (126, _) => return Ok(None),
        (127, _) => bail!("a frame longer than 64 KiB"),
        (size, _) => (2, usize::from(size)),
    };
    Ok(bytes.get(head..head + size).map(|payload| (Frame { kind, payload }, head + size)))
}

/// A text frame as a client sends it.
pub(crate) fn frame_of(text: &str) -> Vec<u8> {
    masked(TEXT, text.as_bytes())
}

/// As a client sends it: masked, here with zeros.
fn masked(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = payload.len();
    let mut frame = vec![0x80 | kind];
    match u8::try_from(size).ok().filter(|size| *size < 126) {
        Some(size) => frame.push(0x80 | size),
        None => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(size as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole_wherever_they_were_cut() {
        let texts = ["".to_owned(), "a".repeat(125), "b".repeat(126), "c".repeat(40_000)];
        let mut bytes = Vec::new();
        for text in &texts {
            let size = text.len();
            bytes.push(0x81);
            match size {
                0..126 => bytes.push(size as u8),
                _ => bytes.extend_from_slice(&[126, (size >> 8) as u8, size as u8]),
            }
            bytes.extend_from_slice(text.as_bytes());
        }
        for step in [1, 3, 1000] {
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for part in bytes.chunks(step) {
                buffer.extend_from_slice(part);
                while let Some(frame) = take(&mut buffer).unwrap() {
                    found.push(String::from_utf8(frame.to_vec()).unwrap());
                }
            }
            assert_eq!(found, texts);
        }
        assert!(first(&[0x88, 2, 3, 0xe8]).is_err(), "a goodbye");
    }
}
