//! The server of the gateway: actix's HTTP/1.1, with TLS HTTP/2 as well, and sockets of its own for WebSockets.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;

use actix_codec::Framed;
use actix_http::{HttpService, Request, Response, h1};
use actix_server::{GracefulShutdownSignal, Server};
use actix_service::{ServiceFactory, fn_factory};
use actix_web::body::BoxBody;
use chassis::http::{HEAD_TIMEOUT, KEEP_ALIVE, Options, UNREAD_TIMEOUT};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::answer::Answer;
use crate::front::Front;
use crate::pages::pages;
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
            builder.listen("gateway", listener, move || http(Arc::clone(&gateway), scheme, stopping.clone()).tcp())?
        }
        Some(tls) => builder.listen("gateway", listener, move || {
            http(Arc::clone(&gateway), scheme, stopping.clone()).rustls_0_23(tls.clone())
        })?,
    };
    Ok(builder.run())
}

/// What one worker thread does with its connections.
#[expect(clippy::type_complexity, reason = "the server wants to see every part of it")]
fn http<T: AsyncRead + AsyncWrite + Unpin + 'static>(
    gateway: Arc<Gateway>,
    scheme: &'static str,
    stopping: GracefulShutdownSignal,
) -> HttpService<
    T,
    impl ServiceFactory<
        Request,
        Config = (),
        Response = Response<Answer>,
        Error = Response<BoxBody>,
        InitError = String,
        Service = Front,
    >,
    Answer,
    h1::ExpectHandler,
    impl ServiceFactory<
        (Request, Framed<T, h1::Codec>),
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
        // Without it, Nagle's algorithm holds back the last part of an answer for up to 40 ms.
        .tcp_nodelay(true)
        .upgrade(fn_factory(move || std::future::ready(Ok::<_, String>(tunnels.clone()))))
        .finish(front)
}
