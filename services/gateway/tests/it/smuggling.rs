//! Requests that two readers could take for different ones: no service ever sees what a strict reader would not.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use actix_web::rt;
use fastrand::Rng;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{Peer, TestGateway, header, soon};

/// A path that anybody may post to.
const OPEN: &str = "/api/v1/webhook/stream-event";
/// A request that must reach nobody when it stands in a body or behind garbage.
const HIDDEN: &str = "GET /api/v1/streams/666 HTTP/1.1\r\nHost: a\r\n\r\n";
/// Ends what a connection has to say, if a strict reader gets that far.
const LAST: &str = "GET /api/v1/streams/999 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
/// What is asked on other connections meanwhile.
const ELSEWHERE: &str = "/api/v1/streams/0";
/// A connection on which nothing has happened for this long waits for more.
const QUIET: Duration = Duration::from_millis(1500);

/// What RFC 9112 says a stream of bytes is, read by somebody who forgives nothing.
mod strict {
    /// A request, whole.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(super) struct Request {
        pub(super) method: String,
        pub(super) target: String,
        /// Names in lower case.
        pub(super) headers: Vec<(String, Vec<u8>)>,
        pub(super) body: Vec<u8>,
        /// Nothing behind it is a request.
        pub(super) is_last: bool,
    }

    /// Why there is no further request.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum End {
        /// More bytes could make one.
        Unfinished,
        Garbage,
        /// The last request ends the connection.
        Closed,
    }

    /// The requests in `bytes`.
    pub(super) fn read(mut bytes: &[u8]) -> (Vec<Request>, End) {
        let mut requests = Vec::new();
        loop {
            match request(&mut bytes) {
                Ok(request) => {
                    let is_last = request.is_last;
                    requests.push(request);
                    if is_last {
                        return (requests, End::Closed);
                    }
                }
                Err(end) => return (requests, end),
            }
        }
    }

    /// Takes one request off `bytes`, unless it fails.
    pub(super) fn request(bytes: &mut &[u8]) -> Result<Request, End> {
        let mut rest = *bytes;
        while let Some(after) = rest.strip_prefix(b"\r\n") {
            rest = after;
        }
        let first = line(&mut rest)?;
        let mut parts = first.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(End::Garbage);
        };
        let is_target = !target.is_empty() && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
        let is_1_0 = version == b"HTTP/1.0";
        if !is_token(method) || !is_target || !(is_1_0 || version == b"HTTP/1.1") {
            return Err(End::Garbage);
        }
        let headers = fields(&mut rest)?;
        let all = |name: &str| headers.iter().filter(|(n, _)| n == name).map(|(_, v)| &**v).collect::<Vec<_>>();
        let (hosts, lengths, codings) = (all("host"), all("content-length"), all("transfer-encoding"));
        if hosts.len() > 1 || (hosts.is_empty() && !is_1_0) {
            return Err(End::Garbage);
        }
        let body = match (&*lengths, &*codings) {
            ([], []) => Vec::new(),
            ([length], []) => {
                let length = std::str::from_utf8(length).ok().filter(|it| it.bytes().all(|b| b.is_ascii_digit()));
                let length: u64 = length.and_then(|length| length.parse().ok()).ok_or(End::Garbage)?;
                take(&mut rest, length)?.to_vec()
            }
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && !is_1_0 => chunks(&mut rest)?,
            _ => return Err(End::Garbage),
        };
        let options = all("connection").join(&b',');
        let has = |option: &[u8]| options.split(|b| *b == b',').any(|it| it.trim_ascii().eq_ignore_ascii_case(option));
        let is_upgrade = all("upgrade").iter().any(|it| it.trim_ascii().eq_ignore_ascii_case(b"websocket"));
        let is_last = has(b"close")
            || (is_1_0 && !has(b"keep-alive"))
            || (is_upgrade && codings.is_empty())
            || method == b"CONNECT";
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        *bytes = rest;
        Ok(Request { method: text(method), target: text(target), headers, body, is_last })
    }

    /// A line without its CR LF. It has no control characters but tabs.
    fn line<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], End> {
        let whole = *bytes;
        let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
        let at = whole.iter().position(is_control).ok_or(End::Unfinished)?;
        match &whole[at..] {
            [b'\r', b'\n', rest @ ..] => {
                *bytes = rest;
                Ok(&whole[..at])
            }
            [b'\r'] => Err(End::Unfinished),
            _ => Err(End::Garbage),
        }
    }

    /// Fields up to the empty line.
    fn fields(bytes: &mut &[u8]) -> Result<Vec<(String, Vec<u8>)>, End> {
        let mut fields = Vec::new();
        loop {
            let line = line(bytes)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let colon = line.iter().position(|byte| *byte == b':').ok_or(End::Garbage)?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if !is_token(name) {
                return Err(End::Garbage);
            }
            fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()));
        }
    }

    fn chunks(bytes: &mut &[u8]) -> Result<Vec<u8>, End> {
        let mut body = Vec::new();
        loop {
            let line = line(bytes)?;
            let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let (size, extension) = line.split_at(digits);
            let extension = extension.trim_ascii_start();
            let is_extension = line.len() == digits || extension.starts_with(b";");
            let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
            let size = size.filter(|_| is_extension).ok_or(End::Garbage)?;
            if size == 0 {
                fields(bytes)?;
                return Ok(body);
            }
            body.extend_from_slice(take(bytes, size)?);
            match &**bytes {
                [b'\r', b'\n', rest @ ..] => *bytes = rest,
                [] | [b'\r'] => return Err(End::Unfinished),
                _ => return Err(End::Garbage),
            }
        }
    }

    fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], End> {
        let length = usize::try_from(length).map_err(|_too_long| End::Unfinished)?;
        let (taken, rest) = bytes.split_at_checked(length).ok_or(End::Unfinished)?;
        *bytes = rest;
        Ok(taken)
    }

    fn is_token(bytes: &[u8]) -> bool {
        !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
    }
}

/// A gateway, and a service behind it that reads strictly and answers everything with 200.
struct Lane {
    gateway: TestGateway,
    seen: Rc<RefCell<Vec<strict::Request>>>,
    /// Asks for something whenever all that was sent before shall have been looked at.
    other: Peer,
}

/// What became of some bytes.
#[derive(Debug)]
struct Outcome {
    statuses: Vec<u16>,
    seen: Vec<strict::Request>,
    /// Nothing came any more, and the connection was not closed either.
    is_quiet: bool,
    /// The last answer said that it is the last.
    is_told: bool,
}

impl Lane {
    async fn new() -> Self {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        let noted = Rc::clone(&seen);
        rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                rt::spawn(serve(stream, Rc::clone(&noted)));
            }
        });
        let services = ["AUTH_URL", "STREAM_URL", "CHAT_URL", "VOD_URL", "HLS_ORIGIN_URL"].map(|name| (name, &*at));
        let gateway = TestGateway::with(services.into_iter().chain([("GATEWAY_RATE_PER_ADDRESS", "1000000/1s")]));
        let other = gateway.connect().await;
        Self { gateway, seen, other }
    }

    /// Has the gateway answer something on another connection.
    async fn look_elsewhere(&mut self) {
        let answer = self.other.ask(&format!("GET {ELSEWHERE} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(answer.status, 200);
    }

    /// Sends `bytes`, and reads answers until there are no more: as many as a strict reader would give, or a last one.
    async fn send(&mut self, bytes: &[u8]) -> Outcome {
        let (requests, end) = strict::read(bytes);
        let mut stream = soon(TcpStream::connect(self.gateway.address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        // It may have been refused, and closed, half-way.
        let _ = soon(stream.write_all(bytes)).await;
        let mut answers = Answers::new(&requests);
        let mut is_quiet = false;
        while !answers.is_closed {
            if end == strict::End::Unfinished && answers.statuses.len() >= requests.len() {
                // If anybody looks at what comes behind, then before this is answered.
                self.look_elsewhere().await;
                break;
            }
            match timeout(QUIET, stream.read_buf(&mut answers.buffer)).await {
                Ok(Ok(1..)) => answers.read(),
                Ok(_) => answers.is_closed = true,
                Err(_) => {
                    is_quiet = true;
                    break;
                }
            }
        }
        let _ = stream.shutdown().await; // The gateway may have closed first.
        while matches!(soon(stream.read_buf(&mut answers.buffer)).await, Ok(1..)) {}
        answers.read();
        self.look_elsewhere().await;
        let mut seen = self.seen.take();
        seen.retain(|request| request.target != ELSEWHERE);
        Outcome { statuses: answers.statuses, seen, is_quiet, is_told: answers.is_told }
    }
}

/// Answers every request, and notes what is none as such.
async fn serve(mut stream: TcpStream, seen: Rc<RefCell<Vec<strict::Request>>>) {
    let mut buffer = Vec::new();
    loop {
        let mut rest = &*buffer;
        match strict::request(&mut rest) {
            Ok(request) => {
                let left = rest.len();
                buffer.drain(..buffer.len() - left);
                seen.borrow_mut().push(request);
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
                    return;
                }
            }
            Err(strict::End::Unfinished) => {
                if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                    return;
                }
            }
            Err(_) => {
                let wrong = "no-request".to_owned();
                let garbage = strict::Request {
                    method: wrong,
                    target: buffer.escape_ascii().to_string(),
                    headers: Vec::new(),
                    body: Vec::new(),
                    is_last: true,
                };
                seen.borrow_mut().push(garbage);
                return;
            }
        }
    }
}

/// The answers on a connection, in order.
struct Answers {
    buffer: Vec<u8>,
    statuses: Vec<u16>,
    /// Which of them answer HEAD.
    bodiless: Vec<bool>,
    /// One said that it is the last.
    is_told: bool,
    /// There will be no more.
    is_closed: bool,
}

impl Answers {
    fn new(requests: &[strict::Request]) -> Self {
        let bodiless = requests.iter().map(|request| request.method == "HEAD").collect();
        Self { buffer: Vec::new(), statuses: Vec::new(), bodiless, is_told: false, is_closed: false }
    }

    /// Takes what is there whole.
    fn read(&mut self) {
        while let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(self.buffer[..end].to_vec()).expect("an answer is text");
            assert!(head.starts_with("HTTP/1."), "{head}");
            let status: u16 = head[9..12].parse().expect("a status");
            assert_eq!(header(&head, "transfer-encoding"), None, "all answers here have a length: {head}");
            let is_bodiless = matches!(status, 100..200 | 204 | 304)
                || self.bodiless.get(self.statuses.len()).copied().unwrap_or_default();
            let length = header(&head, "content-length").map_or(0, |length| length.parse::<usize>().unwrap());
            let size = end + 4 + if is_bodiless { 0 } else { length };
            if self.buffer.len() < size {
                return;
            }
            self.buffer.drain(..size);
            if status != 100 {
                self.statuses.push(status);
            }
            self.is_told |= header(&head, "connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
            self.is_closed |= self.is_told;
        }
    }
}

/// `target` as services know it: its path without the name of a server or a fragment, and its query.
fn canonical(target: &str) -> String {
    let target = target.split('#').next().unwrap_or_default();
    let after_scheme = target.split_once("://").filter(|_| !target.starts_with('/')).map(|(_, rest)| rest);
    let target = after_scheme.map_or(target, |rest| rest.find(['/', '?']).map_or("/", |at| &rest[at..]));
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let path = path.strip_suffix('/').unwrap_or(path);
    let bare = path.strip_prefix("/api/v1/").or(path.strip_prefix("/api/")).or(path.strip_prefix('/')).unwrap_or(path);
    query.map_or(bare.to_owned(), |query| format!("{bare}?{query}"))
}

/// Says what is wrong when a service saw what it should not: anything but requests of `allowed`, in order.
fn complaint(seen: &[strict::Request], allowed: &[strict::Request]) -> Option<String> {
    let mut allowed = allowed.iter();
    for request in seen {
        let is_it = |it: &&strict::Request| {
            (&it.method, canonical(&it.target), &it.body)
                == (&request.method, canonical(&request.target), &request.body)
        };
        let Some(original) = allowed.by_ref().find(is_it) else {
            return Some(format!("a service saw {} {}", request.method, request.target));
        };
        for (name, value) in &request.headers {
            let is_ours = ["host", "x-request-id", "traceparent", "content-length", "transfer-encoding", "connection"]
                .contains(&&**name)
                || name.starts_with("x-forwarded-");
            let is_theirs = original.headers.contains(&(name.clone(), value.clone()));
            let is_secret = name.starts_with("x-user-") || name.starts_with("x-amphi-");
            if is_secret || !(is_ours || is_theirs) {
                return Some(format!("a service saw the header {name}: {}", value.escape_ascii()));
            }
        }
    }
    None
}

fn targets(outcome: &Outcome) -> Vec<&str> {
    outcome.seen.iter().map(|request| &*request.target).collect()
}

/// Each is refused, and nothing of it or behind it reaches a service.
const REFUSED: &[(&str, &str)] = &[
    ("CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n"),
    ("two equal lengths", "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab"),
    ("two lengths", "Content-Length: 2\r\nContent-Length: 0\r\n\r\nab"),
    ("a list of lengths", "Content-Length: 2, 2\r\n\r\nab"),
    ("a length with a sign", "Content-Length: +2\r\n\r\nab"),
    ("a negative length", "Content-Length: -2\r\n\r\nab"),
    ("a length in hexadecimal", "Content-Length: 0x2\r\n\r\nab"),
    ("a length that is none", "Content-Length:\r\n\r\n"),
    ("a length beyond all bounds", "Content-Length: 18446744073709551618\r\n\r\nab"),
    ("a length cut in two", "Content-Length: 2 2\r\n\r\nab"),
    ("a folded header", "X-A: b\r\n c\r\nContent-Length: 2\r\n\r\nab"),
    ("a folded length", "Content-Length:\r\n 2\r\n\r\nab"),
    ("a folded coding", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("a line that begins with a space", " Content-Length: 2\r\n\r\nab"),
    ("a bare CR in a value", "X-A: b\rContent-Length: 2\r\n\r\n"),
    ("a bare CR for a line's end", "X-A: b\r\rContent-Length: 2\r\n\r\n"),
    ("a bare LF behind a value", "X-A: b\nContent-Length: 2\r\n\r\nab"),
    ("a bare LF for the empty line", "X-A: b\r\n\n"),
    ("bare LF throughout", "X-A: b\n\n"),
    ("a NUL in a value", "X-A: b\0c\r\n\r\n"),
    ("a NUL in a name", "X-\0A: b\r\n\r\n"),
    ("a space before the colon", "Content-Length : 2\r\n\r\nab"),
    ("a space before the colon of a coding", "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("a tab before the colon", "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"),
    ("a header without a colon", "Content-Length 2\r\n\r\nab"),
    ("a header without a name", ": 2\r\n\r\nab"),
    ("another coding", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("no coding", "Transfer-Encoding: identity\r\n\r\n"),
    ("identity and chunks", "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
    ("chunks and identity", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("chunks twice in a list", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
    ("chunks twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a coding in quotes", "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("a coding with a parameter", "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"),
    ("a coding behind a vertical tab", "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("a coding before a vertical tab", "Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n"),
    ("a coding behind a comma", "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    ("an empty coding", "Transfer-Encoding:\r\n\r\n0\r\n\r\n"),
    ("a chunk without a size", "Transfer-Encoding: chunked\r\n\r\n\r\n0\r\n\r\n"),
    ("a chunk size with 0x", "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n"),
    ("a chunk size with a sign", "Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n"),
    ("a chunk size behind a space", "Transfer-Encoding: chunked\r\n\r\n 1\r\na\r\n0\r\n\r\n"),
    ("a chunk size before a space", "Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n"),
    ("a chunk size cut in two", "Transfer-Encoding: chunked\r\n\r\n1 1\r\na\r\n0\r\n\r\n"),
    ("a chunk size beyond all bounds", "Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\na\r\n0\r\n\r\n"),
    ("a chunk longer than its size", "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"),
    ("a chunk that ends in a bare LF", "Transfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n"),
    ("a chunk that ends in a bare CR", "Transfer-Encoding: chunked\r\n\r\n1\r\na\r0\r\n\r\n"),
    ("a size line that ends in a bare LF", "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n"),
    ("a size line that ends in a bare CR", "Transfer-Encoding: chunked\r\n\r\n1\ra\r\n0\r\n\r\n"),
    ("an extension that ends in a bare LF", "Transfer-Encoding: chunked\r\n\r\n1;a=b\na\r\n0\r\n\r\n"),
    ("an extension with a bare CR", "Transfer-Encoding: chunked\r\n\r\n1;a=\rb\r\na\r\n0\r\n\r\n"),
    ("an extension with a NUL", "Transfer-Encoding: chunked\r\n\r\n1;a=\0b\r\na\r\n0\r\n\r\n"),
    ("a last chunk that ends in a bare LF", "Transfer-Encoding: chunked\r\n\r\n0\n\r\n"),
    ("an end that is a bare LF", "Transfer-Encoding: chunked\r\n\r\n0\r\n\n"),
    ("a trailer that ends in a bare LF", "Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: b\n\r\n"),
    ("a trailer that is none", "Transfer-Encoding: chunked\r\n\r\n0\r\nGET /a HTTP/1.1\r\n\r\n"),
    ("two names of the server", "Host: b\r\n\r\n"),
];

#[actix_web::test]
async fn what_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_looked_at() {
    let wrong = join_all(REFUSED.iter().map(async |(name, rest)| {
        let mut lane = Lane::new().await;
        let bytes = format!("POST {OPEN} HTTP/1.1\r\nHost: a\r\n{rest}{HIDDEN}{LAST}");
        assert_eq!(strict::read(bytes.as_bytes()), (Vec::new(), strict::End::Garbage), "{name}");
        let outcome = lane.send(bytes.as_bytes()).await;
        let is_refused = matches!(*outcome.statuses, [] | [400..500]) && outcome.seen.is_empty() && !outcome.is_quiet;
        (!is_refused).then(|| format!("{name}: {:?}, seen {:?}", outcome.statuses, targets(&outcome)))
    }))
    .await;
    let wrong: Vec<_> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each request line is refused; so is each head.
const REFUSED_HEADS: &[&str] = &[
    "GET /api/v1/streams HTTP/1.1\r\n\r\n",
    "GET /api/v1/streams\r\n\r\n",
    "GET  /api/v1/streams HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET\t/api/v1/streams HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /api/v1/streams  HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /api/v1/streams HTTP/1.1 \r\nHost: a\r\n\r\n",
    "GET /api/v1/streams HTTP/1.2\r\nHost: a\r\n\r\n",
    "GET /api/v1/streams HTTP/2.0\r\nHost: a\r\n\r\n",
    "GET /api/v1/streams http/1.1\r\nHost: a\r\n\r\n",
    "GET /api/v1/str eams HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /api/v1/str\0eams HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /api/v1/streams HTTP/1.1\nHost: a\r\n\r\n",
    "\nGET /api/v1/streams HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /api/v1/streams HTTP/1.1\rHost: a\r\n\r\n",
    " GET /api/v1/streams HTTP/1.1\r\nHost: a\r\n\r\n",
    "G(T /api/v1/streams HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /api/v1/webhook/stream-event HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /api/v1/webhook/stream-event HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
];

#[actix_web::test]
async fn request_lines_that_could_be_read_in_two_ways_are_refused() {
    for head in REFUSED_HEADS {
        let mut lane = Lane::new().await;
        let outcome = lane.send(format!("{head}{HIDDEN}{LAST}").as_bytes()).await;
        assert!(matches!(*outcome.statuses, [] | [400..500]) && !outcome.is_quiet, "{head:?}: {:?}", outcome.statuses);
        assert!(outcome.seen.is_empty(), "{head:?}: {:?}", targets(&outcome));
    }
}

#[actix_web::test]
async fn other_forms_of_a_target_mean_the_same_path_or_nothing() {
    let mut lane = Lane::new().await;
    for (target, expected) in [
        ("http://a/api/v1/streams/7?b=c", Some("/api/v1/streams/7?b=c")),
        ("http://evil.example/api/v1/streams/7", Some("/api/v1/streams/7")),
        ("a:80", None),
        ("evil.example", None),
        ("*", None),
        ("http://a", None),
        ("//a/api/v1/streams/7", None),
        ("/http://a/api/v1/streams/7", None),
    ] {
        let outcome =
            lane.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(targets(&outcome), Vec::from_iter(expected), "{target}");
        assert!(matches!(*outcome.statuses, [200 | 400..500]), "{target}: {:?}", outcome.statuses);
    }
    let outcome = lane.send(format!("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n{HIDDEN}{LAST}").as_bytes()).await;
    assert!(matches!(*outcome.statuses, [400..500]) && outcome.seen.is_empty(), "{outcome:?}");
}

#[actix_web::test]
async fn what_connection_names_stays_behind_and_the_frame_of_a_body_stays_ours() {
    let mut lane = Lane::new().await;
    for named in
        ["x-user-id", "content-length", "transfer-encoding", "host", "content-length, transfer-encoding, close"]
    {
        for (framing, body) in [("Content-Length: 53", "53"), ("Transfer-Encoding: chunked", "35")] {
            let body =
                if body == "53" { format!("{HIDDEN:.<53}") } else { format!("35\r\n{HIDDEN:.<53}\r\n0\r\n\r\n") };
            let head =
                format!("POST {OPEN} HTTP/1.1\r\nHost: a\r\nX-User-Id: 1\r\nConnection: {named}\r\n{framing}\r\n\r\n");
            let bytes = format!("{head}{body}{LAST}");
            let (allowed, _) = strict::read(bytes.as_bytes());

            let outcome = lane.send(bytes.as_bytes()).await;

            assert_eq!(complaint(&outcome.seen, &allowed), None, "{named}");
            assert_eq!(outcome.seen[0].body, format!("{HIDDEN:.<53}").as_bytes(), "{named}");
            assert_eq!(outcome.seen.len(), allowed.len(), "{named}");
        }
    }
}

#[actix_web::test]
async fn nothing_follows_an_upgrade_that_is_refused() {
    let mut lane = Lane::new().await;
    let handshake = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n";
    for (head, is_seen) in [
        // The service answers with 200 instead of 101.
        (format!("GET /api/v1/streams/7 HTTP/1.1\r\n{handshake}\r\n"), true),
        (format!("POST /api/v1/streams/7 HTTP/1.1\r\n{handshake}\r\n"), false),
        (format!("GET /api/v1/streams/7 HTTP/1.0\r\n{handshake}\r\n"), false),
        (format!("GET /api/v1/streams/7 HTTP/1.1\r\n{handshake}Content-Length: {}\r\n\r\n", HIDDEN.len()), false),
        (format!("GET /api/v1/streams/7 HTTP/1.1\r\n{handshake}Content-Length: 0\r\n\r\n"), false),
        (format!("GET /api/v1/chat/ws HTTP/1.1\r\n{handshake}\r\n"), false),
        (format!("GET /nowhere HTTP/1.1\r\n{handshake}\r\n"), false),
        ("GET /api/v1/streams/7 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n".to_owned(), false),
    ] {
        let outcome = lane.send(format!("{head}{HIDDEN}{LAST}").as_bytes()).await;
        assert_eq!(targets(&outcome), if is_seen { vec!["/api/v1/streams/7"] } else { vec![] }, "{head}");
        assert!(matches!(*outcome.statuses, [200 | 400..500]) && !outcome.is_quiet, "{head}: {:?}", outcome.statuses);
    }
}

#[actix_web::test]
async fn pipelined_requests_are_answered_in_order_and_reach_their_service_once() {
    let mut lane = Lane::new().await;
    let mut bytes = String::new();
    let mut expected = Vec::new();
    // More than is kept of them while the first is answered.
    for number in 1000..1400 {
        let target = format!("{OPEN}?n={number}");
        let part = match number % 4 {
            0 => format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{HIDDEN}", HIDDEN.len()),
            1 => format!(
                "POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x};a=b\r\n{HIDDEN}\r\n0\r\nX-A: b\r\n\r\n",
                HIDDEN.len()
            ),
            2 => format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
            _ => format!("POST {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"),
        };
        bytes.push_str(&part);
        expected.push(target);
    }
    bytes.push_str(LAST);
    expected.push("/api/v1/streams/999".to_owned());

    let outcome = lane.send(bytes.as_bytes()).await;

    assert_eq!(targets(&outcome), expected, "{:?}", outcome.statuses);
    assert_eq!(outcome.statuses, vec![200; expected.len()]);
}

#[actix_web::test]
async fn each_of_several_pipelined_requests_is_answered_in_its_own_way() {
    let lane = Lane::new().await;
    let ways = [
        ("GET", "HTTP/1.1\r\nHost: a", "HTTP/1.1 200", "ok"),
        ("HEAD", "HTTP/1.1\r\nHost: a", "HTTP/1.1 200", ""),
        ("GET", "HTTP/1.1\r\nHost: a", "HTTP/1.1 200", "ok"),
        ("GET", "HTTP/1.0\r\nConnection: keep-alive", "HTTP/1.0 200", "ok"),
        ("GET", "HTTP/1.1\r\nHost: a", "HTTP/1.1 200", "ok"),
        ("HEAD", "HTTP/1.1\r\nHost: a\r\nConnection: close", "HTTP/1.1 200", ""),
    ];
    let mut client = lane.gateway.connect().await;
    client.write(ways.map(|(method, rest, ..)| format!("{method} /api/v1/streams/1 {rest}\r\n\r\n")).concat()).await;

    for (index, (method, _, begin, body)) in ways.into_iter().enumerate() {
        let answer = client.answer(method == "HEAD").await;
        assert!(answer.head.starts_with(begin), "{index}: {}", answer.head);
        assert_eq!(answer.body, body.as_bytes(), "{index}");
        let is_last = answer.header("connection") == Some("close");
        assert_eq!(is_last, index == ways.len() - 1, "{index}: {}", answer.head);
    }
    assert_eq!(client.read_to_end().await, b"");
}

#[actix_web::test]
async fn nothing_follows_a_request_that_closes_the_connection() {
    let mut lane = Lane::new().await;
    for first in [
        "GET /api/v1/streams/7 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /api/v1/streams/7 HTTP/1.0\r\nHost: a\r\n\r\n",
    ] {
        let outcome = lane.send(format!("{first}{HIDDEN}{LAST}").as_bytes()).await;
        assert_eq!((&*outcome.statuses, targets(&outcome)), (&[200][..], vec!["/api/v1/streams/7"]), "{first}");
    }
}

#[actix_web::test]
async fn a_refused_request_that_waits_for_100_hides_nothing_in_its_body() {
    let mut lane = Lane::new().await;
    for path in ["/api/v1/streams", "/nowhere"] {
        for framing in [format!("Content-Length: {}", HIDDEN.len()), "Content-Length: 10000000".to_owned()] {
            let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{framing}\r\n\r\n");
            let bytes = format!("{head}{HIDDEN}{LAST}");
            let (allowed, _) = strict::read(bytes.as_bytes());

            let outcome = lane.send(bytes.as_bytes()).await;

            assert_eq!(complaint(&outcome.seen, &allowed), None, "{head}");
            assert!(!targets(&outcome).contains(&"/api/v1/streams/666"), "{head}");
        }
    }
}

/// Valid requests, most of which carry another one where it is none.
fn corpus() -> Vec<String> {
    let size = HIDDEN.len();
    let handshake = "GET /api/v1/streams/7 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n";
    vec![
        "GET /api/v1/streams/1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /streams?a=b%20c&d HTTP/1.1\r\nHost: amphi.test\r\nCookie: a=b; c=d\r\nAccept: */*\r\nX-User-Id: 1\r\n\r\n".to_owned(),
        format!("POST {OPEN} HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n{HIDDEN}"),
        format!("POST {OPEN} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{size:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!(
            "POST {OPEN} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n{size:x};a=\"b\"\r\n{HIDDEN}\r\n0;c\r\nX-A: b\r\n\r\n"
        ),
        "HEAD /api/v1/streams/2 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n".to_owned(),
        format!("PUT /api/v1/streams/3 HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{HIDDEN}"),
        format!("POST {OPEN}?a=b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {size}\r\n\r\n{HIDDEN}"),
        format!("{handshake}{HIDDEN}"),
        format!("POST {OPEN} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: {size}\r\n\r\n{HIDDEN}"),
        format!("GET /api/v1/streams/4 HTTP/1.0\r\n\r\n{HIDDEN}"),
        format!("GET /api/v1/streams/5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{HIDDEN}"),
        "GET http://a/api/v1/streams/6 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /api/v1/streams/8 HTTP/1.1\r\nHost: a\r\nConnection: x-user-id, x-b\r\nX-User-Id: 1\r\nX-B: c\r\n\r\n".to_owned(),
        "OPTIONS /api/v1/streams HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\nAccess-Control-Request-Method: GET\r\n\r\n".to_owned(),
        format!("DELETE /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("GET /api/v1/streams/1 HTTP/1.1\r\nHost: a\r\n\r\nPOST {OPEN} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
    ]
}

/// Lines that make a body another one, if anybody believes them.
const LINES: &[&str] = &[
    "Content-Length: 0\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding: \tchunked\r\n",
    "transfer-encoding:chunked\r\n",
    "Content-Length: +49\r\n",
    "Connection: close\r\n",
    "Connection: content-length\r\n",
    "Connection: transfer-encoding\r\n",
    "Upgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "Host: b\r\n",
    " folded\r\n",
    "0\r\n\r\n",
    "\r\n",
    "\n",
];
/// Bytes that mean something to somebody.
const BYTES: &[u8] = b"\0\t\n\x0b\x0c\r \"#%+,-./0123456789:;=?@Aafx\x7f\x80\xff";

/// A case of the ten thousand: the same for the same `number`.
fn mutated(corpus: &[String], number: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(number);
    let pick = |rng: &mut Rng| corpus[rng.usize(..corpus.len())].as_bytes().to_vec();
    let mut bytes = pick(&mut rng);
    for _ in 0..rng.usize(1..=3) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.usize(..bytes.len());
        let lines = |bytes: &[u8]| bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
        match rng.u32(..13) {
            0 | 1 => bytes[at] = BYTES[rng.usize(..BYTES.len())],
            2 => bytes[at] = rng.u8(..),
            3 => bytes.insert(at, BYTES[rng.usize(..BYTES.len())]),
            4 => {
                bytes.remove(at);
            }
            5 => bytes.truncate(at),
            6 => {
                let mut lines = lines(&bytes);
                let (one, other) = (rng.usize(..lines.len()), rng.usize(..lines.len()));
                lines.swap(one, other);
                bytes = lines.concat();
            }
            7 => {
                let mut lines = lines(&bytes);
                let line = lines[rng.usize(..lines.len())].clone();
                lines.insert(rng.usize(..=lines.len()), line);
                bytes = lines.concat();
            }
            8 => {
                let mut lines = lines(&bytes);
                lines.remove(rng.usize(..lines.len()));
                bytes = lines.concat();
            }
            9 => {
                let mut lines = lines(&bytes);
                let line = LINES[rng.usize(..LINES.len())].as_bytes().to_vec();
                lines.insert(rng.usize(..=lines.len()), line);
                bytes = lines.concat();
            }
            10 => {
                let mut lines = lines(&bytes);
                let index = rng.usize(..lines.len());
                let end: &[u8] = [&b"\n"[..], b"\r", b"\n\r", b"\r\r\n", b" \r\n"][rng.usize(..5)];
                let line = lines[index].trim_ascii_end().to_vec();
                lines[index] = [&line, end].concat();
                bytes = lines.concat();
            }
            11 => {
                let other = pick(&mut rng);
                let from = rng.usize(..other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let other = pick(&mut rng);
                bytes.extend_from_slice(&other);
            }
        }
    }
    bytes.extend_from_slice(LAST.as_bytes());
    bytes
}

/// What is wrong with the outcome of a case, if anything.
async fn wrong(lane: &mut Lane, bytes: &[u8]) -> Option<String> {
    let (allowed, end) = strict::read(bytes);
    let outcome = lane.send(bytes).await;
    if outcome.is_quiet {
        return Some(format!("hangs after {:?}, strictly {end:?} after {}", outcome.statuses, allowed.len()));
    }
    if outcome.statuses.iter().any(|status| *status >= 500) {
        return Some(format!("answered {:?}", outcome.statuses));
    }
    // Whom it refuses it may leave, also for less than what garbage is here.
    let may_leave = outcome.is_told || outcome.statuses.last().is_some_and(|status| *status >= 400);
    if outcome.statuses.len() < allowed.len() && !may_leave {
        return Some(format!("answered {:?}, of {} requests", outcome.statuses, allowed.len()));
    }
    complaint(&outcome.seen, &allowed)
}

#[actix_web::test]
async fn of_ten_thousand_mutated_requests_none_reaches_a_service_that_a_strict_reader_would_not_see() {
    const CASES: u64 = 10_000;
    const LANES: u64 = 8;
    let corpus = corpus();
    for request in &corpus {
        let mut lane = Lane::new().await;
        let bytes = [request.as_bytes(), LAST.as_bytes()].concat();
        let (allowed, end) = strict::read(&bytes);
        assert_eq!((end, allowed.is_empty()), (strict::End::Closed, false), "{request}");
        assert_eq!(wrong(&mut lane, &bytes).await, None, "{request}");
    }

    let lanes = (0..LANES).map(async |first| {
        let mut lane = Lane::new().await;
        let (mut found, mut sent, mut refused) = (Vec::new(), 0, 0);
        for number in (first..CASES).step_by(LANES as usize) {
            let bytes = mutated(&corpus, number);
            sent += 1;
            refused += usize::from(strict::read(&bytes).1 == strict::End::Garbage);
            if let Some(complaint) = wrong(&mut lane, &bytes).await {
                found.push(format!("{number}: {complaint}: {}", bytes.escape_ascii()));
            }
        }
        (found, sent, refused)
    });
    let (mut found, mut sent, mut garbage) = (Vec::new(), 0, 0);
    for (complaints, cases, refused) in join_all(lanes).await {
        found.extend(complaints);
        sent += cases;
        garbage += refused;
    }

    assert_eq!(sent, CASES);
    // Neither all garbage nor all fine: the cases are worth trying.
    assert!((2_000..8_000).contains(&garbage), "{garbage}");
    assert!(found.is_empty(), "{} of {CASES}:\n{}", found.len(), found[..found.len().min(40)].join("\n"));
}

/// For whoever wants to know that the tests can fail: what the strict reader says of a few streams of bytes.
#[test]
fn the_strict_reader_is_strict() {
    let (requests, end) = strict::read(format!("{HIDDEN}{LAST}{HIDDEN}").as_bytes());
    assert_eq!((requests.len(), end), (2, strict::End::Closed));
    for (bytes, expected) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", strict::End::Garbage),
        ("GET / HTTP/1.1\r\nHost: a\r\n", strict::End::Unfinished),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab", strict::End::Unfinished),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n", strict::End::Garbage),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx\r\n\r\n", strict::End::Garbage),
    ] {
        assert_eq!(strict::read(bytes.as_bytes()), (Vec::new(), expected), "{bytes:?}");
    }
}
