//! The server of the gateway: actix's HTTP/1.1, with TLS HTTP/2 as well, and sockets of its own for WebSockets.

use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use actix_codec::Framed;
use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol, Request, Response, h1};
use actix_server::{GracefulShutdownSignal, Server};
use actix_service::{ServiceFactory, ServiceFactoryExt as _, fn_factory, fn_service};
use actix_tls::accept::TlsError;
use actix_tls::accept::rustls_0_23::{Acceptor, TlsStream};
use actix_web::body::BoxBody;
use chassis::http::{HEAD_TIMEOUT, KEEP_ALIVE, Options, UNREAD_TIMEOUT};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::answer::Answer;
use crate::front::Front;
use crate::pages::pages;
use crate::strict::{Answering, Strict};
use crate::tunnel::{BrokenOff, Tunnels};
use crate::worker::{Gateway, Worker};

/// A server on `listener`, which speaks TLS with `tls`. It does nothing until it is awaited.
pub fn server(
    listener: TcpListener,
    options: &Options,
    gateway: Arc<Gateway>,
    tls: Option<ServerConfig>,
) -> io::Result<Server> {
    // Accepted connections inherit it.
    SockRef::from(&listener).set_tcp_user_timeout(Some(UNREAD_TIMEOUT))?;
    let builder =
        Server::build().workers(options.workers).shutdown_timeout(options.drain.as_secs().max(1)).disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let scheme = if tls.is_some() { "https" } else { gateway.config.scheme };
    let builder = match tls {
        None => {
            builder.listen("gateway", listener, move || plain(http(Arc::clone(&gateway), scheme, stopping.clone())))?
        }
        Some(tls) => builder.listen("gateway", listener, move || {
            encrypted(tls.clone(), http(Arc::clone(&gateway), scheme, stopping.clone()))
        })?,
    };
    Ok(builder.run())
}

/// A connection that can be served: in which version, and for whom.
type Accepted<T> = (Strict<T>, Protocol, Option<SocketAddr>);

/// Serves connections as they come.
fn plain<H>(http: H) -> impl Connections<Error = DispatchError>
where
    H: ServiceFactory<Accepted<TcpStream>, Config = (), Response = (), Error = DispatchError, InitError = ()> + 'static,
{
    let accept = |io: TcpStream| {
        quicken(&io);
        let client = io.peer_addr().ok();
        ready(Ok((Strict::http_1(io), Protocol::Http1, client)))
    };
    fn_service(accept).and_then(http)
}

/// Serves connections once they are encrypted.
fn encrypted<H>(mut tls: ServerConfig, http: H) -> impl Connections<Error = TlsError<io::Error, DispatchError>>
where
    H: ServiceFactory<
            Accepted<TlsStream<TcpStream>>,
            Config = (),
            Response = (),
            Error = DispatchError,
            InitError = (),
        > + 'static,
{
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let accept = |io: TlsStream<TcpStream>| {
        let (socket, session) = io.get_ref();
        quicken(socket);
        let client = socket.peer_addr().ok();
        let is_http_2 = session.alpn_protocol() == Some(b"h2");
        ready(Ok(match is_http_2 {
            true => (Strict::unread(io), Protocol::Http2, client),
            false => (Strict::http_1(io), Protocol::Http1, client),
        }))
    };
    Acceptor::new(tls)
        .map_init_err(|error| tracing::error!(?error, "TLS did not start"))
        .map_err(TlsError::into_service_error)
        .and_then(accept)
        .and_then(http.map_err(TlsError::Service))
}

/// Without this, Nagle's algorithm holds back the last part of an answer for up to 40 ms.
fn quicken(socket: &TcpStream) {
    // It fails when the client has left already, which is noticed soon enough.
    let _ = socket.set_nodelay(true);
}

/// What a listener does with its connections.
trait Connections: ServiceFactory<TcpStream, Config = (), Response = (), InitError = ()> {}
impl<S: ServiceFactory<TcpStream, Config = (), Response = (), InitError = ()>> Connections for S {}

/// What one worker thread does with its connections.
#[expect(clippy::type_complexity, reason = "the server wants to see every part of it")]
fn http<T: AsyncRead + AsyncWrite + Unpin + 'static>(
    gateway: Arc<Gateway>,
    scheme: &'static str,
    stopping: GracefulShutdownSignal,
) -> HttpService<
    Strict<T>,
    impl ServiceFactory<
        Request,
        Config = (),
        Response = Response<Answering<Answer>>,
        Error = Response<BoxBody>,
        InitError = String,
        Service = Front,
    >,
    Answering<Answer>,
    h1::ExpectHandler,
    impl ServiceFactory<
        (Request, Framed<Strict<T>, h1::Codec>),
        Config = (),
        Response = (),
        Error = BrokenOff,
        InitError = String,
        Service = Tunnels,
    >,
> {
    let worker = Rc::new(Worker::new(gateway));
    let tunnels = Tunnels::new(Rc::clone(&worker), scheme);
    let front = fn_factory(move || {
        let worker = Rc::clone(&worker);
        async move {
            let pages = pages(Rc::clone(&worker)).await.map_err(|error| format!("{error:#}"))?;
            Ok::<_, String>(Front::new(worker, pages, scheme))
        }
    });
    HttpService::build()
        .graceful_shutdown_signal(move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        })
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIMEOUT)
        // A client that closes its half has left: only so is an answer that it waits for taken back at once.
        .h1_allow_half_closed(false)
        .on_connect_ext(|io: &Strict<T>, data| {
            if let Some(turn) = io.turn() {
                data.insert(turn);
            }
        })
        .upgrade(fn_factory(move || std::future::ready(Ok::<_, String>(tunnels.clone()))))
        .finish(front)
}
