//! The upstream half of the gateway: HTTP/1.1 over pooled connections to the instances of a service, everything streamed.
//!
//! All of it belongs to one worker thread (`Rc`, no locks), save what the process knows of the instances ([`Fleet`]). The
//! path of a request:
//!
//! - [`RequestBuilder`] writes its head; [`Upstream::send`] chooses the instance with the least to do, and takes one of
//!   its connections from a pool or opens one;
//! - an exchange sends head and body and reads the response's head, both at once;
//! - [`Body`] is what is left of the exchange, as a response body of actix. At its end the connection goes back.
//!
//! The rest of the gateway knows [`Fleet`], [`Request`], [`Upstream::send`], [`Upstream::upgrade`] and what these answer
//! with: another core would take its place behind them.
//!
//! An instance is let alone while its probe says so (one task a service and process, see [`Fleet`]), and while it fails
//! requests of this worker (a breaker an instance). If all are, requests fail at once and nothing is sent.
//!
//! A request is sent again in three cases only, and then on a fresh connection: no connection could be had; or it broke
//! off before a byte of the answer came, and either the connection was an idle one and the request is idempotent, or the
//! kernel proves that no byte of it was read (`untaken`). What was taken from the client by then is at most the first
//! piece of the body, which is still here. That leaves a request which arrives just before its connection is closed, and
//! is thrown away unread. If it must not be sent twice, it gets no idle connection where that is to be feared (`pool`).
//!
//! Bounds: a response head has at most 64 KiB and 100 headers; a direction holds one piece of the body and one read
//! buffer (16 KiB, 64 KiB for large bodies), so a slow reader on one side slows the writer on the other. Every wait for
//! an upstream or for a client's body ends by [`Patience`]. One has no end here: a client that does not read its answer
//! holds it, and the connection that it comes on, for as long as its own connection lasts. The server asks a body for
//! nothing while it cannot write, so a body cannot tell how long that takes; only the client's socket could bound it.

mod address;
mod breaker;
mod buffer;
mod connection;
mod error;
mod exchange;
mod fleet;
mod framing;
pub mod hop_by_hop;
mod instance;
mod pool;
mod probe;
mod request;
mod resolve;
mod response;
mod timer;
mod untaken;
mod upload;

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody, to_bytes_limited};
use actix_web::dev::Payload;
use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, StatusCode};
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

pub use address::{Address, Addresses};
pub use error::{Fault, UpstreamError};
pub use exchange::Download;
pub use fleet::{Fleet, Watch};
pub use framing::RequestFraming;
pub use instance::InFlight;
pub use request::{Request, RequestBuilder};
pub use resolve::{Resolve, SystemResolver};

use connection::Connection;
use exchange::Exchange;
use instance::Instances;
use response::Head;

/// How often one request is sent at most.
const ATTEMPTS: u32 = 3;

/// How long to wait for an upstream, and for the client while the upstream waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For a response's head once the request is sent, for room to send more of it, and for more of a body whose length
    /// is known. Event streams and upgraded connections may be silent for as long as they like.
    pub answer: Duration,
    /// For the next piece of a request's body, while the upstream sends nothing either. Upgraded connections may be silent
    /// here too.
    pub body: Duration,
}

/// A service that requests are passed on to, as one worker thread sees it.
pub struct Upstream {
    instances: Instances,
    patience: Patience,
}

/// A response, whose body may still be on its way.
pub struct Response {
    pub status: StatusCode,
    /// Without those that belong to the connection, save `Upgrade` with 101 and `Content-Length` with 304.
    pub headers: HeaderMap,
    pub body: Body,
}

/// What became of a request to upgrade.
pub enum Upgraded {
    /// The upstream agreed with 101, and HTTP is over on this connection.
    Switched {
        /// As for [`Response`]: without those that belong to the connection, save `Upgrade`.
        headers: HeaderMap,
        stream: TcpStream,
        /// What the upstream sent right behind its head: it comes before anything that is read from `stream`.
        leftover: Bytes,
        /// To be kept for as long as the connection is.
        guard: InFlight,
    },
    /// The upstream answered like to any other request.
    Refused(Response),
}

/// The body of a response.
pub enum Body {
    /// There is none, and nothing is said of its length.
    None,
    /// The answer to HEAD: there is none, but GET would bring this many bytes.
    Head(u64),
    /// All of it.
    Whole(Bytes),
    /// The part that is still to come.
    Stream(Box<Download>),
}

/// Which connections will do for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// One that was not used before.
    Fresh,
    /// An idle one too, if it will certainly not be closed just now.
    Safe,
    /// Any.
    Any,
}

impl Upstream {
    /// An upstream that no connection is open to yet.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>, patience: Patience) -> Self {
        Self { instances: Instances::new(fleet), patience }
    }

    /// What `Host` says to any of its instances.
    #[must_use]
    pub fn host(&self) -> &str {
        self.instances.fleet().addresses().host()
    }

    /// Sends `request` and waits for the head of the response; the bodies go on after that, both ways.
    ///
    /// A request may be sent a second time where that does no harm; see [`self`].
    pub async fn send(self: &Rc<Self>, request: Request) -> Result<Response, UpstreamError> {
        let wanted = match request.framing {
            // It takes its connection for good, so it gets one of its own.
            RequestFraming::Upgrade => Wanted::Fresh,
            RequestFraming::None if request.is_idempotent => Wanted::Any,
            _ => Wanted::Safe,
        };
        let (instance, connection) = self.connect(wanted, request.instance).await?;
        let mut exchange = Exchange::new(instance, connection, request, self.patience);
        let head = self.head(&mut exchange).await?;
        Ok(exchange.into_response(head))
    }

    /// Sends `request`, which was built with [`RequestFraming::Upgrade`] and without a payload, on a connection of its own.
    ///
    /// With 101 that connection is the caller's, to carry whatever both sides agreed on.
    pub async fn upgrade(self: &Rc<Self>, request: Request) -> Result<Upgraded, UpstreamError> {
        let (instance, connection) = self.connect(Wanted::Fresh, request.instance).await?;
        let mut exchange = Exchange::new(instance, connection, request, self.patience);
        let head = self.head(&mut exchange).await?;
        Ok(exchange.into_upgraded(head))
    }

    /// What is at `path`, whole: for our own questions, not for a client's.
    ///
    /// Fails if it is not 200, or has more than `max_bytes` bytes.
    pub async fn get(self: &Rc<Self>, path: &str, max_bytes: usize) -> Result<Bytes, UpstreamError> {
        let request = RequestBuilder::new(&Method::GET, path, None, self.host());
        let response = self.send(request.body(RequestFraming::None, Payload::None)).await?;
        if response.status != StatusCode::OK {
            return Err(Fault::Malformed("the status is not 200").into());
        }
        to_bytes_limited(response.body, max_bytes).await.or(Err(Fault::TooLarge(max_bytes)))?
    }

    /// Waits for the head of the response, and sends the request again where that may be.
    async fn head(&self, exchange: &mut Exchange) -> Result<Head, UpstreamError> {
        let mut attempts = 1;
        loop {
            let result = poll_fn(|cx| exchange.poll_head(cx)).await;
            if attempts == ATTEMPTS || !result.as_ref().is_err_and(|fault| exchange.may_repeat(fault)) {
                return exchange.judge(result);
            }
            attempts += 1;
            exchange.leave_instance();
            let (instance, connection) = self.connect(Wanted::Fresh, None).await?;
            exchange.repeat_on(instance, connection);
        }
    }

    /// A connection to the instance of this `name`, else to the one with the least to do. If that has none and can open
    /// none, to another.
    async fn connect(&self, wanted: Wanted, name: Option<u64>) -> Result<(InFlight, Connection), UpstreamError> {
        let named = name.and_then(|name| self.instances.named(name)).map(|instance| Ok((instance, 1)));
        let mut chosen = match named.unwrap_or_else(|| self.instances.least_busy(&[])) {
            // The first request may come before the names of the instances were looked up.
            Err(Fault::NoInstance { .. }) => {
                let _ = timeout(self.patience.connect, self.instances.find_first()).await;
                self.instances.least_busy(&[])?
            }
            chosen => chosen?,
        };
        let mut tried = Vec::new();
        let mut deadline = None;
        loop {
            let (mut instance, choices) = chosen;
            // What becomes of an idle connection says nothing about an instance that is on trial.
            if wanted != Wanted::Fresh
                && !instance.is_trial()
                && let Some(connection) = instance.pool().take(wanted == Wanted::Safe)
            {
                return Ok((instance, connection));
            }
            // One that does not even refuse must leave time for the others.
            let now = Instant::now();
            let left = *deadline.get_or_insert(now + self.patience.connect) - now;
            let fault = match Connection::open(instance.address(), left / choices).await {
                Ok(connection) => return Ok((instance, connection)),
                Err(error) => Fault::Connect(error),
            };
            instance.fail(&fault);
            let address = instance.address();
            tried.push(instance);
            let Ok(another) = self.instances.least_busy(&tried) else {
                return Err(fault.at(address));
            };
            chosen = another;
        }
    }
}

impl MessageBody for Body {
    type Error = UpstreamError;

    fn size(&self) -> BodySize {
        match self {
            Self::None => BodySize::None,
            Self::Head(length) => BodySize::Sized(*length),
            Self::Whole(bytes) => bytes.size(),
            Self::Stream(download) => download.size(),
        }
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        match self.get_mut() {
            Self::None | Self::Head(_) => Poll::Ready(None),
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::Stream(download) => Pin::new(&mut **download).poll_next(cx),
        }
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        match self {
            Self::Whole(bytes) => Ok(bytes),
            other => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const PATIENCE: Patience =
        Patience { connect: Duration::from_secs(10), answer: Duration::from_secs(10), body: Duration::from_secs(10) };

    fn upstream_at(listener: &TcpListener) -> Rc<Upstream> {
        let addresses = format!("http://{}", listener.local_addr().unwrap());
        let addresses = <Addresses as chassis::env::Value>::parse(&addresses).unwrap();
        let watch = Watch { probe: None, probe_every: Duration::from_secs(1), resolve_every: Duration::from_secs(1) };
        Rc::new(Upstream::new(Fleet::new("test", addresses, watch, Arc::new(SystemResolver)), PATIENCE))
    }

    /// A body of `pieces`, one at a time.
    fn payload(pieces: &'static [&'static str]) -> Payload {
        let pieces = pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
        Payload::Stream { payload: Box::pin(futures_util::stream::iter(pieces)) }
    }

    /// A POST on a connection that the upstream has just closed. The runtime hears of that only when it waits for the
    /// next time, so the request goes out before.
    async fn post_behind_a_close(
        listener: &TcpListener,
        framing: RequestFraming,
        pieces: &'static [&'static str],
    ) -> (Rc<Upstream>, Exchange) {
        let upstream = upstream_at(listener);
        let mut connection = Connection::open(listener.local_addr().unwrap(), PATIENCE.connect).await.unwrap();
        connection.is_reused = true;
        drop(listener.accept().unwrap());
        let request = RequestBuilder::new(&Method::POST, "/a", None, "b").body(framing, payload(pieces));
        let (instance, _) = upstream.instances.least_busy(&[]).unwrap();
        (upstream, Exchange::new(instance, connection, request, PATIENCE))
    }

    /// Answers a request that ends with `end`, on the next connection, and returns it.
    fn answer_next(listener: &TcpListener, end: &str) -> String {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(end.as_bytes()) {
            let mut bytes = [0; 1024];
            let size = stream.read(&mut bytes).unwrap();
            assert!(size > 0, "{}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&bytes[..size]);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        String::from_utf8(request).unwrap()
    }

    #[actix_web::test]
    async fn a_post_of_which_nothing_was_taken_is_sent_again_whole() {
        let cases: [(_, &[&str], _); 4] = [
            (RequestFraming::None, &[], "\r\n\r\n"),
            (RequestFraming::Length(3), &["abc"], "content-length: 3\r\n\r\nabc"),
            (RequestFraming::Chunked, &["", "abc"], "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            (RequestFraming::Chunked, &[], "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        ];
        for (framing, pieces, end) in cases {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (upstream, mut exchange) = post_behind_a_close(&listener, framing, pieces).await;
            let second = thread::spawn(move || answer_next(&listener, end));

            let head = upstream.head(&mut exchange).await.unwrap();

            assert_eq!(head.status, 204);
            let request = second.join().unwrap();
            assert!(request.starts_with("POST /a HTTP/1.1\r\nhost: b\r\n") && request.ends_with(end), "{request}");
        }
    }

    #[actix_web::test]
    async fn a_trial_goes_out_on_a_connection_of_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = upstream_at(&listener);
        while let Ok((mut instance, _)) = upstream.instances.least_busy(&[]) {
            instance.fail(&Fault::BrokenOff(None));
        }
        let instance = loop {
            match upstream.instances.least_busy(&[]) {
                Ok((instance, _)) => break instance,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let connection = Connection::open(listener.local_addr().unwrap(), PATIENCE.connect).await.unwrap();
        drop(listener.accept().unwrap());
        instance.pool().put(connection);
        drop(instance);
        let second = thread::spawn(move || answer_next(&listener, "\r\n\r\n"));

        let request = RequestBuilder::new(&Method::GET, "/a", None, "b").body(RequestFraming::None, Payload::None);
        assert_eq!(upstream.send(request).await.unwrap().status, 204);
        second.join().unwrap();
    }

    #[actix_web::test]
    async fn a_post_whose_beginning_is_gone_is_not_sent_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (upstream, mut exchange) = post_behind_a_close(&listener, RequestFraming::Length(6), &["abc", "def"]).await;

        let error = upstream.head(&mut exchange).await.err().unwrap();

        assert!(matches!(error.fault, Fault::BrokenOff(_)), "{error:?}");
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "another connection came");
    }

    fn handshake() -> Request {
        RequestBuilder::new(&Method::GET, "/a", None, "b").body(RequestFraming::Upgrade, Payload::None)
    }

    /// Answers the first request with `response`, and what was read after that until the end.
    fn answer_once(listener: TcpListener, response: &'static str) -> thread::JoinHandle<String> {
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let size = stream.read(&mut [0; 1024]).unwrap();
            assert!(size > 0);
            stream.write_all(response.as_bytes()).unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).unwrap();
            rest
        })
    }

    #[actix_web::test]
    async fn an_upgraded_connection_is_the_callers_with_what_came_behind_the_head() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = upstream_at(&listener);
        let response =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX-A: b\r\n\r\nhello";
        let server = answer_once(listener, response);

        let Upgraded::Switched { headers, mut stream, leftover, guard } = upstream.upgrade(handshake()).await.unwrap()
        else {
            panic!("refused")
        };

        let names: Vec<_> = headers.keys().map(|name| name.as_str()).collect();
        assert!(names.len() == 2 && names.contains(&"upgrade") && names.contains(&"x-a"), "{names:?}");
        assert_eq!(leftover, "hello");
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"bye").await.unwrap();
        drop((stream, guard));
        assert_eq!(server.join().unwrap(), "bye");
    }

    #[actix_web::test]
    async fn a_refused_upgrade_is_a_response() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = upstream_at(&listener);
        let server = answer_once(listener, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");

        let Upgraded::Refused(response) = upstream.upgrade(handshake()).await.unwrap() else { panic!("not refused") };

        assert_eq!(response.status, 403);
        assert!(matches!(response.body, Body::Whole(bytes) if bytes == "no"));
        drop(upstream);
        assert_eq!(server.join().unwrap(), "");
    }

    #[actix_web::test]
    async fn a_request_may_have_less_patience_than_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let patience = Duration::from_millis(20);
        let request = RequestBuilder::new(&Method::GET, "/a", None, "b").body(RequestFraming::None, Payload::None);

        let error = upstream_at(&listener).send(request.answer_within(patience)).await.err().unwrap();

        assert!(matches!(error.fault, Fault::Silent(waited) if waited == patience), "{error:?}");
        assert_eq!(error.instance, Some(listener.local_addr().unwrap()));
    }
}
