//! Tickets that open a WebSocket once.

use chrono::{DateTime, Utc};
use common::SessionId;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

diesel::table! {
    ws_tickets (ticket_hash) {
        ticket_hash -> Bytea,
        session_id -> Uuid,
        ticket_expires_at -> Timestamptz,
        ticket_token_expires_at -> Timestamptz,
    }
}

/// A ticket, as it is stored.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = ws_tickets)]
pub(crate) struct StoredTicket {
    ticket_hash: Vec<u8>,
    session_id: Uuid,
    ticket_expires_at: DateTime<Utc>,
    ticket_token_expires_at: DateTime<Utc>,
}

/// Keeps a ticket of a session. `hash` is its SHA-256. Returns whether there is such a session.
pub(crate) async fn insert(
    conn: &mut AsyncPgConnection,
    hash: &[u8],
    session_id: SessionId,
    expires_at: DateTime<Utc>,
    token_expires_at: DateTime<Utc>,
) -> QueryResult<bool> {
    let ticket = StoredTicket {
        ticket_hash: hash.to_vec(),
        session_id: session_id.0,
        ticket_expires_at: expires_at,
        ticket_token_expires_at: token_expires_at,
    };
    match diesel::insert_into(ws_tickets::table).values(ticket).execute(conn).await {
        Ok(_) => Ok(true),
        Err(Error::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the ticket, so that it is used once: its session, and when the token expires that asked for it.
pub(crate) async fn take(
    conn: &mut AsyncPgConnection,
    hash: &[u8],
    now: DateTime<Utc>,
) -> QueryResult<Option<(SessionId, DateTime<Utc>)>> {
    let taken: Option<(Uuid, DateTime<Utc>)> = diesel::delete(ws_tickets::table)
        .filter(ws_tickets::ticket_hash.eq(hash))
        .filter(ws_tickets::ticket_expires_at.gt(now))
        .returning((ws_tickets::session_id, ws_tickets::ticket_token_expires_at))
        .get_result(conn)
        .await
        .optional()?;
    Ok(taken.map(|(session_id, until)| (SessionId(session_id), until)))
}

/// Forgets tickets that nobody used in time.
pub(crate) async fn forget_expired(conn: &mut AsyncPgConnection, now: DateTime<Utc>) -> QueryResult<()> {
    diesel::delete(ws_tickets::table).filter(ws_tickets::ticket_expires_at.le(now)).execute(conn).await?;
    Ok(())
}
