//! Asks an instance whether requests should come to it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The most bytes of an answer that are read, though only its head counts.
const LOOKED_AT: usize = 4096;

/// What an instance said.
#[derive(Debug)]
pub(super) enum Finding {
    /// Requests may come. An instance that knows no such path means that too. With its name, if it has one.
    Ready(Option<u64>),
    /// 503: no more requests, please.
    Leaving,
    /// Nothing, or nothing that makes sense.
    Failed(io::Error),
}

/// Asks the instance at `address` for `path`, on a connection of its own: that it accepts one is part of the question.
pub(super) async fn probe(address: SocketAddr, path: &str, wait: Duration) -> Finding {
    match timeout(wait, ask(address, path)).await.map_err(io::Error::from).flatten() {
        Ok((503, _)) => Finding::Leaving,
        Ok((_, name)) => Finding::Ready(name),
        Err(error) => Finding::Failed(error),
    }
}

async fn ask(address: SocketAddr, path: &str) -> io::Result<(u16, Option<u64>)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(LOOKED_AT);
    let mut beginning = stream.take(LOOKED_AT as u64);
    loop {
        let is_over = beginning.read_buf(&mut answer).await? == 0;
        if is_over || answer.windows(4).any(|end| end == b"\r\n\r\n") {
            return parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no status came"));
        }
    }
}

/// The status in the first line of `answer`, and the name that the instance gives itself.
fn parse(answer: &[u8]) -> Option<(u16, Option<u64>)> {
    let mut lines = answer.split(|byte| *byte == b'\n');
    let line = lines.next()?.strip_prefix(b"HTTP/1.")?.get(1..)?;
    let status = std::str::from_utf8(line.strip_prefix(b" ")?.first_chunk::<3>()?).ok()?.parse().ok()?;
    let name = lines.find_map(|line| {
        let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        name.eq_ignore_ascii_case("x-amphi-instance").then(|| u64::from_str_radix(value.trim(), 16).ok()).flatten()
    });
    Some((status, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_name_are_read_from_the_head() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", Some((200, None))),
            ("HTTP/1.1 200 OK\r\nX-Amphi-Instance: 00000000000000ab\r\n\r\n{}", Some((200, Some(0xab)))),
            ("HTTP/1.1 200 OK\r\nX-Amphi-Instance: nonsense\r\n\r\n", Some((200, None))),
            ("HTTP/1.0 503\r\nRetry-After: 1\r\n", Some((503, None))),
            ("HTTP/1.1 2", None),
            ("SSH-2.0-OpenSSH_9.2\r\n", None),
        ] {
            assert_eq!(parse(answer.as_bytes()), expected, "{answer}");
        }
    }
}
