//! Connections that go on as something else, as WebSockets do: when client and handler have agreed, the handler has the bare
//! socket, and the buffers that served the request are freed.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_codec::Framed;
use actix_http::{ConnectionType, Request, Response, h1};
use actix_service::Service;
use actix_web::body::{BoxBody, to_bytes_limited};
use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::{HttpMessage as _, HttpRequest};
use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a client may take to read why its connection stays as it is.
const REFUSAL_WAIT: Duration = Duration::from_secs(10);
/// The most bytes that say why.
const MOST_REFUSED: usize = 1024 * 1024;

/// A connection that is whoever's took it over.
#[derive(Debug)]
pub struct Upgraded {
    pub stream: TcpStream,
    /// What the client has sent behind its request.
    pub early: BytesMut,
}

type Serve = Box<dyn FnOnce(Upgraded) -> Pin<Box<dyn Future<Output = ()>>>>;

/// A connection, and who serves it from now on.
type Agreed = (Upgraded, Serve);

/// Among the extensions of a request whose connection may be taken over.
#[derive(Clone, Default)]
struct Offer(Rc<Cell<Option<Serve>>>);

/// Has the connection of `request` served by `serve` as soon as the answer, a 101, is sent. `false`: it does not ask for that.
///
/// While `serve` is at work the server counts the connection among those that it waits for when it stops.
pub fn upgrade<F: Future<Output = ()> + 'static>(
    request: &HttpRequest,
    serve: impl FnOnce(Upgraded) -> F + 'static,
) -> bool {
    let offer = request.extensions().get::<Offer>().cloned();
    let is_offered = offer.is_some();
    if let Some(Offer(offer)) = offer {
        offer.set(Some(Box::new(|upgraded| Box::pin(serve(upgraded)))));
    }
    is_offered
}

/// Answers the requests that ask for an upgrade, as `S` answers all others.
pub(crate) struct Upgrades<S>(Rc<S>);

impl<S> Upgrades<S> {
    pub(crate) fn new(app: S) -> Self {
        Self(Rc::new(app))
    }
}

/// The client left before it was answered.
#[derive(Debug, thiserror::Error)]
#[error("the client has left")]
pub(crate) struct BrokenOff;

impl From<BrokenOff> for Response<BoxBody> {
    fn from(_: BrokenOff) -> Self {
        // Nobody is there to read it.
        Self::new(StatusCode::BAD_REQUEST)
    }
}

impl<S> Service<(Request, Framed<TcpStream, h1::Codec>)> for Upgrades<S>
where
    S: Service<Request, Response = ServiceResponse, Error = actix_web::Error> + 'static,
{
    type Response = ();
    type Error = BrokenOff;
    type Future = Pin<Box<dyn Future<Output = Result<(), BrokenOff>>>>;

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), BrokenOff>> {
        Poll::Ready(Ok(()))
    }

    fn call(&self, (request, framed): (Request, Framed<TcpStream, h1::Codec>)) -> Self::Future {
        let app = Rc::clone(&self.0);
        Box::pin(async move {
            if let Some((upgraded, serve)) = answer(&*app, request, framed).await? {
                drop(app);
                serve(upgraded).await;
            }
            Ok(())
        })
    }
}

/// Answers the request; `None`: no upgrade was agreed on.
///
/// On the heap, and freed: what serves a WebSocket for hours does not hold what its request needed.
fn answer<S>(
    app: &S,
    request: Request,
    framed: Framed<TcpStream, h1::Codec>,
) -> Pin<Box<dyn Future<Output = Result<Option<Agreed>, BrokenOff>> + '_>>
where
    S: Service<Request, Response = ServiceResponse, Error = actix_web::Error>,
{
    Box::pin(async move {
        let offer = Offer::default();
        request.extensions_mut().insert(offer.clone());
        let response: Response<BoxBody> = match app.call(request).await {
            Ok(response) => response.into(),
            Err(error) => error.error_response().into(),
        };
        let (mut response, body) = response.into_parts();
        let is_agreed = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if !is_agreed {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        let body = to_bytes_limited(body, MOST_REFUSED).await.ok().and_then(Result::ok).ok_or(BrokenOff)?;
        let sent = timeout(REFUSAL_WAIT, h1::SendResponse::new(framed, response.set_body(body))).await;
        let parts = sent.ok().and_then(Result::ok).ok_or(BrokenOff)?.into_parts();
        let upgraded = Upgraded { stream: parts.io, early: BytesMut::from(&*parts.read_buf) };
        Ok(offer.0.take().filter(|_| is_agreed).map(|serve| (upgraded, serve)))
    })
}
