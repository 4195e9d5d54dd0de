//! The WebSockets of rooms, as 003 shows it, and of conversations, as 004 does.

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
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    let verified = app.verifier.caller(request.head(), InQuery::Allowed).map_err(Problem::from)?;
    let (answer, outbox, inbox) = socket::open(&request, payload)?;
    let Opening { room_id, client_id } = query.into_inner();
    let session = Session::new(app.into_inner(), verified.claims, Dialect::Rooms, client_id, outbox);
    actix_web::rt::spawn(session.run(inbox, room_id.map(RoomRef::Id)));
    Ok(answer)
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
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    let verified = match app.verifier.caller(request.head(), InQuery::Allowed) {
        Err(TokenError::NoKeys) => return Err(Problem::from(TokenError::NoKeys).into()),
        verified => verified,
    };
    let (answer, outbox, inbox) = socket::open(&request, payload)?;
    match verified {
        Ok(verified) => {
            let client_id = query.into_inner().client_id;
            let session = Session::new(app.into_inner(), verified.claims, Dialect::Conversations, client_id, outbox);
            actix_web::rt::spawn(session.run(inbox, None));
        }
        Err(TokenError::Missing) => outbox.close(CloseCode::Policy, "No token provided"),
        Err(_) => outbox.close(CloseCode::Policy, "Invalid token"),
    }
    Ok(answer)
}
