//! Socket.IO, as 002 has it.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use common::token::InQuery;

use crate::App;
use crate::engine::Query;
use crate::socket_io::Client;

/// Any request of Socket.IO. A token may come with the first one, or in the first packet.
pub(crate) async fn serve(
    app: web::Data<App>,
    request: HttpRequest,
    query: web::Query<Query>,
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    let app = app.into_inner();
    let client = |outbox| {
        let opener = app.verifier.caller(request.head(), InQuery::Allowed).map(|verified| verified.claims);
        Client::new(Arc::clone(&app), opener, outbox)
    };
    app.lines.serve(&request, query.into_inner(), payload, client).await
}
