//! The upstream half of the gateway: HTTP/1.1 over pooled connections, everything streamed, nothing shared.
//!
//! All of it belongs to one worker thread (`Rc`, no locks). The path of a request:
//!
//! - [`RequestBuilder`] writes its head, [`Upstream::send`] takes a connection from the pool or opens one;
//! - an exchange sends head and body and reads the response's head, both at once;
//! - [`Body`] is what is left of the exchange, as a response body of actix. At its end the connection goes back.
//!
//! Bounds: a response head has at most 64 KiB and 100 headers; a direction holds one piece of the body and one read
//! buffer (16 KiB, 64 KiB for large bodies), so a slow reader on one side slows the writer on the other. Every wait for
//! an upstream or for a client's body ends by [`Patience`]. One has no end here: a client that does not read its answer
//! holds it, and the connection that it comes on, for as long as its own connection lasts. The server asks a body for
//! nothing while it cannot write, so a body cannot tell how long that takes; only the client's socket could bound it.

mod address;
mod buffer;
mod connection;
mod error;
mod exchange;
mod framing;
pub mod hop_by_hop;
mod pool;
mod request;
mod response;
mod timer;
mod upload;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody, to_bytes_limited};
use actix_web::dev::Payload;
use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, StatusCode};
use bytes::Bytes;
use tokio::net::TcpStream;

pub use address::Address;
pub use error::UpstreamError;
pub use exchange::Download;
pub use framing::RequestFraming;
pub use request::{Request, RequestBuilder};

use connection::Connection;
use exchange::Exchange;
use pool::Pool;

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

/// One server that requests are passed on to, as one worker thread sees it.
pub struct Upstream {
    address: Address,
    patience: Patience,
    pool: Pool,
    tunnels: Rc<Cell<usize>>,
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

/// Counts as a request that its instance has in flight, until it is dropped.
#[derive(Debug)]
pub struct InFlight(Rc<Cell<usize>>);

impl InFlight {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
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

impl Upstream {
    /// An upstream that no connection is open to yet.
    #[must_use]
    pub fn new(address: Address, patience: Patience) -> Self {
        Self { address, patience, pool: Pool::default(), tunnels: Rc::default() }
    }

    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sends `request` and waits for the head of the response; the bodies go on after that, both ways.
    ///
    /// A request is sent a second time only if an idle connection broke off before a byte of an answer had come, and
    /// then only if it is idempotent and has no body.
    pub async fn send(self: &Rc<Self>, request: Request) -> Result<Response, UpstreamError> {
        // An upgrade cannot be repeated and takes its connection for good, so it gets one of its own.
        let idle = if request.framing == RequestFraming::Upgrade { None } else { self.pool.take() };
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut exchange = Exchange::new(Rc::clone(self), connection, request);
        loop {
            match poll_fn(|cx| exchange.poll_head(cx)).await {
                Ok(head) => return Ok(exchange.into_response(head)),
                Err(UpstreamError::BrokenOff(_)) if exchange.may_repeat() => exchange.repeat_on(self.connect().await?),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends `request`, which was built with [`RequestFraming::Upgrade`] and without a payload, on a connection of its own.
    ///
    /// With 101 that connection is the caller's, to carry whatever both sides agreed on. It is never sent twice.
    pub async fn upgrade(self: &Rc<Self>, request: Request) -> Result<Upgraded, UpstreamError> {
        let guard = InFlight::new(&self.tunnels);
        let mut exchange = Exchange::new(Rc::clone(self), self.connect().await?, request);
        let head = poll_fn(|cx| exchange.poll_head(cx)).await?;
        Ok(match exchange.into_switched(head) {
            Ok((headers, stream, leftover)) => Upgraded::Switched { headers, stream, leftover, guard },
            Err(refused) => Upgraded::Refused(refused),
        })
    }

    /// What is at `path`, whole: for our own questions, not for a client's.
    ///
    /// Fails if it is not 200, or has more than `max_bytes` bytes.
    pub async fn get(self: &Rc<Self>, path: &str, max_bytes: usize) -> Result<Bytes, UpstreamError> {
        let request = RequestBuilder::new(&Method::GET, path, None, &self.address);
        let response = self.send(request.body(RequestFraming::None, Payload::None)).await?;
        if response.status != StatusCode::OK {
            return Err(UpstreamError::Malformed("the status is not 200"));
        }
        to_bytes_limited(response.body, max_bytes).await.or(Err(UpstreamError::TooLarge(max_bytes)))?
    }

    async fn connect(&self) -> Result<Connection, UpstreamError> {
        Connection::open(&self.address, self.patience.connect).await.map_err(UpstreamError::Connect)
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
