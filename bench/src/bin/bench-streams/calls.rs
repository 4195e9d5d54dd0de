//! Callbacks, as nginx-rtmp posts them.

use std::net::SocketAddr;

use anyhow::ensure;
use bench::http::Connection;

/// The media server that all publish at, as `bench/streams.sql` has it too.
const MEDIA_SERVER: &str = "bench";
const RUN: &str = "1";

/// A connection over which a media server calls.
pub(crate) struct Caller<'a> {
    connection: Connection,
    address: SocketAddr,
    secret: &'a str,
}

impl<'a> Caller<'a> {
    pub(crate) fn open(address: SocketAddr, secret: &'a str) -> anyhow::Result<Self> {
        Ok(Self { connection: Connection::open(address)?, address, secret })
    }

    /// The connection `client` begins to publish `stream`.
    pub(crate) fn publish(&mut self, stream: u32, client: &str) -> anyhow::Result<()> {
        self.call("publish&type=live", stream, client)
    }

    /// It still does.
    pub(crate) fn heartbeat(&mut self, stream: u32, client: &str) -> anyhow::Result<()> {
        self.call("update_publish&time=5&timestamp=4990", stream, client)
    }

    /// It has left.
    pub(crate) fn done(&mut self, stream: u32, client: &str) -> anyhow::Result<()> {
        self.call("publish_done", stream, client)
    }

    fn call(&mut self, call: &str, stream: u32, client: &str) -> anyhow::Result<()> {
        let body = format!(
            "app=live&flashver=FMLE/3.0%20(compatible%3B%20Lavf59.27&swfurl=&tcurl=rtmp://127.0.0.1:1935/live&pageurl=\
             &addr=127.0.0.1&clientid={client}&call={call}&name={}",
            key(stream)
        );
        let request = format!(
            "POST /api/v1/webhook/stream-event HTTP/1.1\r\nHost: {}\r\nX-Webhook-Secret: {}\r\nX-Media-Server: {MEDIA_SERVER}\r\n\
             X-Media-Server-Started: {RUN}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            self.secret,
            body.len()
        );
        let answer = self.connection.send(&request)?;
        let body = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status < 400, "{call} of stream {stream} was answered {}: {body}", answer.status);
        Ok(())
    }
}

/// As `bench/streams.sql` makes them.
fn key(stream: u32) -> String {
    format!("bench-key-{stream}")
}
