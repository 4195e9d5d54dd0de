//! Requests over a connection that is kept, one after the other, by a thread of its own: nothing between the clock and
//! the socket.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a server.
pub struct Connection(BufReader<TcpStream>);

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("no connection to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a whole request, and reads the answer.
    pub fn send(&mut self, request: &str) -> anyhow::Result<Answer> {
        self.write(request)?;
        let Head { status, length } = self.head()?;
        let Some(length) = length else { bail!("an answer in chunks, which has no end to wait for") };
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(Answer { status, body })
    }

    /// Sends a whole request whose answer comes in chunks and does not end: the lines of it. The socket is for whoever
    /// ends it.
    pub fn follow(mut self, request: &str) -> anyhow::Result<(TcpStream, impl Iterator<Item = io::Result<String>>)> {
        self.write(request)?;
        match self.head()? {
            Head { status: 200, length: None } => {}
            Head { status, .. } => bail!("answered {status}, not 200 and in chunks"),
        }
        let socket = self.0.get_ref().try_clone()?;
        Ok((socket, BufReader::new(Chunks { from: self.0, left: 0 }).lines()))
    }

    fn write(&mut self, request: &str) -> anyhow::Result<()> {
        self.0.get_mut().write_all(request.as_bytes()).context("the request could not be sent")
    }

    fn head(&mut self) -> anyhow::Result<Head> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("no status in {first:?}"))?;
        let mut length = Some(0);
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = Some(value.trim().parse()?)
                }
                Some((name, _)) if name.eq_ignore_ascii_case("transfer-encoding") => length = None,
                Some(_) => {}
                None => return Ok(Head { status, length }),
            }
        }
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            bail!("the server closed the connection");
        }
        Ok(line)
    }
}

struct Head {
    status: u16,
    /// How long the body is; `None`: in chunks.
    length: Option<usize>,
}

/// What is in chunks (RFC 9112 §7.1), without their frames.
struct Chunks {
    from: BufReader<TcpStream>,
    /// How much of the current chunk is to come.
    left: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let mut line = String::new();
            if self.from.read_line(&mut line)? == 0 {
                return Ok(0);
            }
            // Between two chunks is an empty line.
            if let size @ 1.. = line.trim_end().len() {
                self.left = usize::from_str_radix(&line[..size], 16).map_err(io::Error::other)?;
                if self.left == 0 {
                    return Ok(0);
                }
            }
        }
        let most = self.left.min(buffer.len());
        let size = self.from.read(&mut buffer[..most])?;
        self.left -= size;
        Ok(size)
    }
}
