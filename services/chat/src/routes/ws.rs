//! The WebSocket of rooms, as 003 shows it.

use actix_web::{HttpRequest, HttpResponse, web};
use common::token::InQuery;
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
