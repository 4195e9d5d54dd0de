//! Tickets: what a browser puts into the address of a WebSocket, where a token would end up in logs.

use actix_web::{HttpRequest, HttpResponse, web};
use chassis::secrets::random_hex;
use chrono::{DateTime, TimeDelta, Utc};
use common::token::InQuery;
use common::{Json, Problem, Verifier};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::App;
use crate::error::AuthError;
use crate::store::{sessions, tickets};

/// How long a ticket is good.
const LIFETIME: TimeDelta = TimeDelta::seconds(30);

/// A ticket that opens one WebSocket.
#[derive(Serialize, ToSchema)]
pub(crate) struct TicketView {
    /// Send it as `?ticket=`.
    ticket: String,
    expires_at: DateTime<Utc>,
}

/// A ticket that a client came with.
#[derive(Deserialize)]
pub(crate) struct Redeem {
    ticket: String,
}

/// What the ticket stands for.
#[derive(Serialize)]
pub(crate) struct Redeemed {
    token: String,
}

/// Get a ticket to open one WebSocket with `?ticket=`, within 30 seconds.
#[utoipa::path(
    post,
    path = "/api/v1/auth/ws-ticket",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    responses((status = 201, description = "A ticket", body = TicketView), (status = 401, description = "`session-ended`, or no token"))
)]
#[tracing::instrument(name = "auth.ticket.make", skip_all)]
pub(crate) async fn make(
    app: web::Data<App>,
    verifier: web::Data<Verifier>,
    request: HttpRequest,
) -> Result<HttpResponse, AuthError> {
    let claims = verifier.caller(request.head(), InQuery::Ignored).map_err(Problem::from)?.claims;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    sessions::see(&mut conn, claims.sid, now).await?.ok_or(AuthError::SessionEnded)?;
    let ticket = random_hex(32);
    let token_expires_at = DateTime::from_timestamp(claims.exp, 0).unwrap_or(now);
    let expires_at = (now + LIFETIME).min(token_expires_at);
    if !tickets::insert(&mut conn, &hash(&ticket), claims.sid, expires_at, token_expires_at).await? {
        return Err(AuthError::SessionEnded);
    }
    Ok(HttpResponse::Created().json(TicketView { ticket, expires_at }))
}

/// Takes a ticket, for the gateway: answers a token of the session that asked for it, with the same expiry. 401 when it
/// was used before, has expired, or its session has ended.
#[tracing::instrument(name = "auth.ticket.redeem", skip_all)]
pub(crate) async fn redeem(app: web::Data<App>, body: Json<Redeem>) -> Result<web::Json<Redeemed>, AuthError> {
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    let taken = tickets::take(&mut conn, &hash(&body.ticket), now).await?;
    let (session_id, until) = taken.ok_or(AuthError::TicketInvalid)?;
    let user = sessions::find_live_user(&mut conn, session_id, now).await?.ok_or(AuthError::TicketInvalid)?;
    let access = app.access_token(&user, session_id, now, until)?;
    Ok(web::Json(Redeemed { token: access.text }))
}

fn hash(ticket: &str) -> Vec<u8> {
    digest(&SHA256, ticket.as_bytes()).as_ref().to_vec()
}
