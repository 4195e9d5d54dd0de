//! The head of an upstream's response.

use std::mem::MaybeUninit;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use bytes::{Buf as _, BytesMut};
use httparse::Status;

use super::framing::{Chunks, Malformed, ResponseFraming};
use super::hop_by_hop::{has_token, is_hop_by_hop};

/// The largest response head taken, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// The most headers taken in one response.
const MAX_HEADERS: usize = 100;

/// A response head, without the headers that belong to the connection it came on.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) framing: ResponseFraming,
    /// What `Content-Length` said, also where no body follows: after HEAD, and with 304.
    pub(super) content_length: Option<u64>,
    /// The connection may carry another exchange after this one.
    pub(super) keeps_alive: bool,
}

/// Takes a final response head out of `buffer`. `None`: it is not whole yet, read on.
///
/// Interim responses (1xx) are dropped: clients were told to continue at the front.
/// `answers_head`: the request was HEAD, so no body follows. `may_upgrade`: the request asked for 101.
pub(super) fn parse(buffer: &mut BytesMut, answers_head: bool, may_upgrade: bool) -> Result<Option<Head>, Malformed> {
    loop {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parsed =
            httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, buffer, &mut headers);
        let size = match parsed {
            Ok(Status::Complete(size)) if size <= MAX_HEAD => size,
            Ok(Status::Partial) if buffer.len() <= MAX_HEAD => return Ok(None),
            Ok(_) => return Err(Malformed("the response head is too large")),
            Err(httparse::Error::TooManyHeaders) => return Err(Malformed("the response has too many headers")),
            Err(_) => return Err(Malformed("the response head is not HTTP/1")),
        };
        let status = response
            .code
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or(Malformed("the response has no valid status"))?;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            buffer.advance(size);
            continue;
        }
        let head = read(&response, status, answers_head, may_upgrade)?;
        buffer.advance(size);
        return Ok(Some(head));
    }
}

fn read(
    response: &httparse::Response<'_, '_>,
    status: StatusCode,
    answers_head: bool,
    may_upgrade: bool,
) -> Result<Head, Malformed> {
    let is_http_11 = response.version == Some(1);
    let connection = Connection::read(response.headers)?;
    let framing = connection.framing(status, is_http_11, answers_head, may_upgrade)?;
    let is_delimited = framing != ResponseFraming::UntilClose;
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).or(Err(Malformed("a header has no valid name")))?;
        let is_agreed_upgrade = name == header::UPGRADE && status == StatusCode::SWITCHING_PROTOCOLS;
        let stays_behind = is_hop_by_hop(&name) || connection.names(response.headers, &name);
        if stays_behind && !is_agreed_upgrade {
            continue;
        }
        let value = HeaderValue::from_bytes(field.value).or(Err(Malformed("a header has no valid value")))?;
        headers.append(name, value);
    }
    // The one response that has no body and may still say how long it would be.
    if let (StatusCode::NOT_MODIFIED, Some(length)) = (status, connection.content_length) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(Head {
        status,
        headers,
        framing,
        content_length: connection.content_length,
        keeps_alive: is_http_11 && !connection.closes && is_delimited,
    })
}

/// What the headers say about the connection and the body.
#[derive(Default)]
struct Connection {
    content_length: Option<u64>,
    is_chunked: bool,
    closes: bool,
    names_headers: bool,
}

impl Connection {
    /// Strict: a length is digits and stands once, a transfer coding is `chunked` and stands once, never both.
    fn read(headers: &[httparse::Header<'_>]) -> Result<Self, Malformed> {
        let mut connection = Self::default();
        for field in headers {
            if field.name.eq_ignore_ascii_case("content-length") {
                let length = digits(field.value).ok_or(Malformed("a Content-Length is not a number"))?;
                if connection.content_length.replace(length).is_some() {
                    return Err(Malformed("the response has two Content-Lengths"));
                }
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                if connection.is_chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed("the Transfer-Encoding is not chunked, once"));
                }
                connection.is_chunked = true;
            } else if field.name.eq_ignore_ascii_case("connection") {
                connection.closes |= has_token(field.value, "close");
                connection.names_headers = true;
            }
        }
        if connection.is_chunked && connection.content_length.is_some() {
            return Err(Malformed("the response has both Content-Length and Transfer-Encoding"));
        }
        Ok(connection)
    }

    /// RFC 9112, 6.3.
    fn framing(
        &self,
        status: StatusCode,
        is_http_11: bool,
        answers_head: bool,
        may_upgrade: bool,
    ) -> Result<ResponseFraming, Malformed> {
        if self.is_chunked && !is_http_11 {
            return Err(Malformed("the response is chunked in HTTP/1.0"));
        }
        Ok(match (status, self.content_length) {
            (StatusCode::SWITCHING_PROTOCOLS, _) if may_upgrade => ResponseFraming::UntilClose,
            (StatusCode::SWITCHING_PROTOCOLS, _) => return Err(Malformed("nobody asked to switch protocols")),
            (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED, _) => ResponseFraming::Length(0),
            _ if answers_head => ResponseFraming::Length(0),
            (_, Some(length)) => ResponseFraming::Length(length),
            (_, None) if self.is_chunked => ResponseFraming::Chunked(Chunks::default()),
            (_, None) => ResponseFraming::UntilClose,
        })
    }

    fn names(&self, headers: &[httparse::Header<'_>], name: &HeaderName) -> bool {
        self.names_headers
            && headers
                .iter()
                .filter(|field| field.name.eq_ignore_ascii_case("connection"))
                .any(|field| has_token(field.value, name.as_str()))
    }
}

/// A number written in digits alone; `None` if it is anything else, or larger than a `u64`.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_get(head: &str) -> Result<Option<Head>, Malformed> {
        parse(&mut BytesMut::from(head), false, false)
    }

    #[test]
    fn a_head_may_come_in_pieces() {
        let wire = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\n";
        for size in 0..wire.len() {
            assert!(parse_get(&wire[..size]).unwrap().is_none());
        }
        let mut buffer = BytesMut::from(&format!("{wire}ok")[..]);
        let head = parse(&mut buffer, false, false).unwrap().unwrap();
        assert_eq!(head.status, 200);
        assert_eq!(head.framing, ResponseFraming::Length(2));
        assert!(head.keeps_alive);
        assert_eq!(&buffer[..], b"ok");
    }

    #[test]
    fn headers_of_the_connection_stay_behind() {
        let head = parse_get(
            "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nUpgrade: h2c\r\n\
             Proxy-Authenticate: Basic\r\nTrailer: X\r\nContent-Length: 0\r\nX-Kept: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
        )
        .unwrap()
        .unwrap();

        let mut names: Vec<_> = head.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["set-cookie", "set-cookie", "x-kept"]);
        assert!(!head.keeps_alive);
    }

    #[test]
    fn a_body_ends_as_the_head_says() {
        let cases = [
            ("HTTP/1.1 200 OK\r\n\r\n", ResponseFraming::UntilClose, false),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
                ResponseFraming::Length(1),
                false,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", ResponseFraming::Length(0), true),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", ResponseFraming::Length(0), true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n",
                ResponseFraming::Chunked(Chunks::default()),
                true,
            ),
        ];
        for (wire, framing, keeps_alive) in cases {
            let head = parse_get(wire).unwrap().unwrap();
            assert_eq!((head.framing, head.keeps_alive), (framing, keeps_alive), "{wire}");
        }
    }

    #[test]
    fn head_has_a_length_and_no_body() {
        let mut buffer = BytesMut::from("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
        let head = parse(&mut buffer, true, false).unwrap().unwrap();
        assert_eq!((head.framing, head.content_length), (ResponseFraming::Length(0), Some(9)));
    }

    #[test]
    fn interim_responses_are_dropped() {
        let head = parse_get(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        );
        assert_eq!(head.unwrap().unwrap().status, 404);
    }

    #[test]
    fn crooked_heads_are_refused() {
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: +1",
            "Content-Length: 1, 1",
            "Content-Length: ",
            "Content-Length: 18446744073709551616",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "X-A : b",
            "X-A: b\r\n folded",
        ] {
            assert!(parse_get(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n")).is_err(), "{fields}");
        }
        assert!(parse_get("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(parse_get("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n").is_err());
        assert!(parse_get("SSH-2.0-OpenSSH_9.2\r\n").is_err());
    }

    #[test]
    fn the_head_is_bounded() {
        let long = format!("HTTP/1.1 200 OK\r\nX-A: {}", "a".repeat(MAX_HEAD));
        assert!(parse_get(&long).is_err());
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert!(parse_get(&many).is_err());
    }
}
