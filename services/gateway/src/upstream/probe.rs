//! Asks an instance whether requests should come to it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The most bytes of an answer that are read, though its first line is all that counts.
const LOOKED_AT: usize = 4096;

/// What an instance said.
#[derive(Debug)]
pub(super) enum Finding {
    /// Requests may come. An instance that knows no such path means that too.
    Ready,
    /// 503: no more requests, please.
    Leaving,
    /// Nothing, or nothing that makes sense.
    Failed(io::Error),
}

/// Asks the instance at `address` for `path`, on a connection of its own: that it accepts one is part of the question.
pub(super) async fn probe(address: SocketAddr, path: &str, wait: Duration) -> Finding {
    match timeout(wait, status(address, path)).await.map_err(io::Error::from).flatten() {
        Ok(503) => Finding::Leaving,
        Ok(_) => Finding::Ready,
        Err(error) => Finding::Failed(error),
    }
}

async fn status(address: SocketAddr, path: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(LOOKED_AT);
    let mut beginning = stream.take(LOOKED_AT as u64);
    while beginning.read_buf(&mut answer).await? > 0 {
        if let Some(status) = parse(&answer) {
            return Ok(status);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "no status came"))
}

/// The status in the first line of `answer`, if that is whole.
fn parse(answer: &[u8]) -> Option<u16> {
    let line = answer.strip_prefix(b"HTTP/1.")?.get(1..)?;
    let code = line.strip_prefix(b" ")?.first_chunk::<3>()?;
    line.contains(&b'\n').then(|| std::str::from_utf8(code).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_from_a_whole_first_line() {
        for (answer, status) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 503\r\nRetry-After: 1\r\n", Some(503)),
            ("HTTP/1.1 200 OK", None),
            ("HTTP/1.1 2", None),
            ("SSH-2.0-OpenSSH_9.2\r\n", None),
        ] {
            assert_eq!(parse(answer.as_bytes()), status, "{answer}");
        }
    }
}
