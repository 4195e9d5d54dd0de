//! The WebSockets of rooms, as 003 shows it, and of conversations, as 004 does.

use std::sync::Arc;

use actix_http::ws::CloseCode;
use actix_web::{HttpRequest, HttpResponse, web};
use common::token::{InQuery, TokenError};
use common::{Problem, RoomId};
use serde::Deserialize;

use crate::App;
use crate::dialect::Dialect;
use crate::session::{RoomRef, Session};
use crate::socket;

#[derive(Deserialize)]
pub(crate) struct Opening {
    /// A room to join at once.
    room_id: Option<RoomId>,
    /// The client's own name: another socket of the same client takes this one's place in a room.
    client_id: Option<String>,
}

/// Opens the WebSocket of rooms. The token may be in the query: a browser's WebSocket has no headers.
pub(crate) async fn rooms(
    app: web::Data<App>,
    request: HttpRequest,
    query: web::Query<Opening>,
) -> Result<HttpResponse, actix_web::Error> {
    let verified = app.verifier.caller(request.head(), InQuery::Allowed).map_err(Problem::from)?;
    let opened = socket::open(&request)?;
    let Opening { room_id, client_id } = query.into_inner();
    let outbox = Arc::clone(&opened.outbox);
    let session = Session::new(app.into_inner(), verified.claims, Dialect::Rooms, client_id, outbox);
    opened.heard_by(&request, move |inbox| session.run(inbox, room_id.map(RoomRef::Id)))
}

#[derive(Deserialize)]
pub(crate) struct OpeningOfAll {
    /// The client's own name: another socket of the same client takes this one's place.
    #[serde(alias = "clientId")]
    client_id: Option<String>,
}

/// Opens the WebSocket of conversations. One without a valid token is opened too, and closed with 1008, as 004 shows it.
pub(crate) async fn conversations(
    app: web::Data<App>,
    request: HttpRequest,
    query: web::Query<OpeningOfAll>,
) -> Result<HttpResponse, actix_web::Error> {
    let verified = match app.verifier.caller(request.head(), InQuery::Allowed) {
        Err(TokenError::NoKeys) => return Err(Problem::from(TokenError::NoKeys).into()),
        verified => verified,
    };
    let opened = socket::open(&request)?;
    let outbox = Arc::clone(&opened.outbox);
    let claims = match verified {
        Ok(verified) => verified.claims,
        Err(error) => {
            let why = if error == TokenError::Missing { "No token provided" } else { "Invalid token" };
            outbox.close(CloseCode::Policy, why);
            return opened.heard_by(&request, |_| std::future::ready(()));
        }
    };
    let client_id = query.into_inner().client_id;
    let session = Session::new(app.into_inner(), claims, Dialect::Conversations, client_id, outbox);
    opened.heard_by(&request, move |inbox| session.run(inbox, None))
}
