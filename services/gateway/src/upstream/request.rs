//! A request as it goes to the upstream.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::Method;
use bytes::{BufMut as _, BytesMut};

use super::buffer;
use super::framing::RequestFraming;

/// A request that is ready to be sent.
pub struct Request {
    pub(super) head: BytesMut,
    pub(super) framing: RequestFraming,
    pub(super) payload: Payload,
    pub(super) is_head: bool,
    /// Sending it twice does no more than sending it once.
    pub(super) is_idempotent: bool,
    /// How long the upstream may be silent, where that is not [`super::Patience::answer`].
    pub(super) answer_within: Option<Duration>,
    /// The instance that it belongs to, if that is there.
    pub(super) instance: Option<u64>,
}

impl Request {
    /// Lets the upstream be silent for `patience`, instead of [`super::Patience::answer`].
    #[must_use]
    pub fn answer_within(mut self, patience: Duration) -> Self {
        self.answer_within = Some(patience);
        self
    }

    /// Sends it to the instance that calls itself `name`, or to any if there is none of that name.
    #[must_use]
    pub fn to_instance(mut self, name: Option<u64>) -> Self {
        self.instance = name;
        self
    }
}

/// Writes a request: request line and `Host` first, framing and connection headers last. Those four are ours alone.
pub struct RequestBuilder {
    head: BytesMut,
    is_head: bool,
    is_idempotent: bool,
}

impl RequestBuilder {
    /// Starts a request for `path`, which begins with a slash. `path` and `query` are encoded already. `host` is
    /// [`super::Upstream::host`].
    #[must_use]
    pub fn new(method: &Method, path: &str, query: Option<&str>, host: &str) -> Self {
        let mut head = buffer::take();
        head.put_slice(method.as_str().as_bytes());
        head.put_u8(b' ');
        head.put_slice(path.as_bytes());
        if let Some(query) = query {
            head.put_u8(b'?');
            head.put_slice(query.as_bytes());
        }
        head.put_slice(b" HTTP/1.1\r\nhost: ");
        head.put_slice(host.as_bytes());
        head.put_slice(b"\r\n");
        Self { head, is_head: method == Method::HEAD, is_idempotent: method.is_idempotent() }
    }

    /// Adds a header. `value` comes from a `HeaderValue` or is our own, so it holds no line break.
    ///
    /// Headers that belong to a connection, see [`super::hop_by_hop`], are not for the caller to set.
    pub fn header(&mut self, name: &str, value: &[u8]) {
        self.head.put_slice(name.as_bytes());
        self.head.put_slice(b": ");
        self.head.put_slice(value);
        self.head.put_slice(b"\r\n");
    }

    /// The same for a value that is written as text. Its text holds no line break.
    pub fn header_of(&mut self, name: &str, value: &impl fmt::Display) {
        self.head.put_slice(name.as_bytes());
        // Writing to a buffer that grows cannot fail.
        let _ = write!(self.head, ": {value}\r\n");
    }

    /// The same for an address.
    pub fn header_of_address(&mut self, name: &str, address: IpAddr) {
        let IpAddr::V4(address) = address else {
            return self.header_of(name, &address);
        };
        self.head.put_slice(name.as_bytes());
        self.head.put_slice(b": ");
        // Formatting it costs several times as much.
        for (place, octet) in address.octets().into_iter().enumerate() {
            let digits = [octet / 100, octet / 10 % 10, octet % 10].map(|digit| b'0' + digit);
            let from = usize::from(octet < 100) + usize::from(octet < 10);
            self.head.put_slice(&digits[from..]);
            self.head.put_slice(if place < 3 { b"." } else { b"\r\n" });
        }
    }

    /// Ends the head, and says how the body goes.
    #[must_use]
    pub fn body(mut self, framing: RequestFraming, payload: Payload) -> Request {
        match framing {
            RequestFraming::None => {}
            RequestFraming::Length(size) => {
                self.head.put_slice(b"content-length: ");
                self.head.put_slice(size.to_string().as_bytes());
                self.head.put_slice(b"\r\n");
            }
            RequestFraming::Chunked => self.head.put_slice(b"transfer-encoding: chunked\r\n"),
            RequestFraming::Upgrade => self.head.put_slice(b"connection: upgrade\r\nupgrade: websocket\r\n"),
        }
        self.head.put_slice(b"\r\n");
        Request {
            head: self.head,
            framing,
            payload,
            is_head: self.is_head,
            is_idempotent: self.is_idempotent,
            answer_within: None,
            instance: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_everywhere() {
        for text in ["0.0.0.0", "127.0.0.1", "10.20.99.100", "255.255.255.255", "9.19.109.199", "2001:db8::1"] {
            let mut request = RequestBuilder::new(&Method::GET, "/", None, "a");
            request.header_of_address("b", text.parse().unwrap());
            assert!(request.head.ends_with(format!("\r\nb: {text}\r\n").as_bytes()), "{:?}", request.head);
        }
    }
}
