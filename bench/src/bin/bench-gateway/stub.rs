//! What stands behind the servers beside the upstream.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use actix_ws::AggregatedMessage;
use anyhow::Context as _;
use common::UserId;
use common::token::Jwks;
use common::trust::{self, Trust};
use futures_util::{StreamExt as _, stream};
use testkit::Issuer;

/// How many tokens are minted, each for a user of its own.
const TOKENS: usize = 10_000;

/// Writes FOLDER/tokens, then serves until it is ended: the keys of these tokens, the feed of what auth tells, and, at
/// every other path, an echo for WebSockets. Its port is in FOLDER/stub as soon as it listens.
pub(crate) async fn run(folder: &Path) -> anyhow::Result<()> {
    let issuer = Issuer::start();
    let mut tokens = String::new();
    for number in 0..TOKENS {
        writeln!(tokens, "{}", issuer.token(UserId::new(), &format!("User {number}")))?;
    }
    fs::write(folder.join("tokens"), tokens)?;

    let jwks = testkit::client().get(format!("{}/.well-known/jwks.json", issuer.url)).send().await?;
    let jwks: Jwks = jwks.json().await.context("the keys of the issuer")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(jwks.clone()))
            .route("/.well-known/jwks.json", web::get().to(async |jwks: web::Data<Jwks>| HttpResponse::Ok().json(jwks)))
            .route(trust::PATH, web::get().to(trust_feed))
            .default_service(web::get().to(echo))
    });
    let server = server.workers(1).max_connections(32 * 1024).tcp_nodelay(true).listen(listener)?.run();
    // The script looks for the file, so it must appear whole.
    fs::write(folder.join("stub.new"), port.to_string())?;
    fs::rename(folder.join("stub.new"), folder.join("stub"))?;
    Ok(server.await?)
}

/// The keys, and that nothing changes.
async fn trust_feed(jwks: web::Data<Jwks>) -> HttpResponse {
    let snapshot = Trust::Snapshot { keys: jwks.keys.clone(), ended: Vec::new(), roles: Vec::new() };
    let beats = stream::unfold(tokio::time::interval(trust::BEAT_EVERY), async |mut beat| {
        beat.tick().await;
        Some((Trust::Beat, beat))
    });
    let lines = stream::once(std::future::ready(snapshot)).chain(beats).map(|line| {
        let line = serde_json::to_string(&line).unwrap_or_default();
        Ok::<_, Infallible>(web::Bytes::from(line + "\n"))
    });
    HttpResponse::Ok().content_type("application/x-ndjson").streaming(lines)
}

async fn echo(request: HttpRequest, body: web::Payload) -> actix_web::Result<HttpResponse> {
    let (response, mut session, messages) = actix_ws::handle(&request, body)?;
    let mut messages = messages.aggregate_continuations();
    actix_web::rt::spawn(async move {
        while let Some(Ok(message)) = messages.recv().await {
            let sent = match message {
                AggregatedMessage::Text(text) => session.text(text).await,
                AggregatedMessage::Binary(bytes) => session.binary(bytes).await,
                AggregatedMessage::Close(_) => break,
                _ => Ok(()),
            };
            if sent.is_err() {
                return;
            }
        }
        let _ = session.close(None).await; // The client may be gone.
    });
    Ok(response)
}
