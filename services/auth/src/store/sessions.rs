//! Sessions: one a login. A session that has ended has no row here any more.

use chrono::{DateTime, Utc};
use common::trust::EndedSession;
use common::{SessionId, UserId};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::domain::User;
use crate::store::trust;
use crate::store::users::{UserRow, users};

diesel::table! {
    sessions (session_id) {
        session_id -> Uuid,
        user_uuid -> Uuid,
        session_created_at -> Timestamptz,
        session_expires_at -> Timestamptz,
        session_tokens_until -> Timestamptz,
    }
}

diesel::table! {
    ended_sessions (session_id) {
        session_id -> Uuid,
        ended_until -> Timestamptz,
    }
}

diesel::joinable!(sessions -> users (user_uuid));
diesel::allow_tables_to_appear_in_same_query!(sessions, users);

/// A session from `now` to `expires_at`. The user's sessions that have expired are forgotten.
pub(crate) async fn insert(
    conn: &mut AsyncPgConnection,
    user_id: UserId,
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> QueryResult<SessionId> {
    diesel::delete(sessions::table)
        .filter(sessions::user_uuid.eq(user_id.0))
        .filter(sessions::session_expires_at.le(now))
        .execute(conn)
        .await?;
    let session_id = SessionId::new();
    diesel::insert_into(sessions::table)
        .values((
            sessions::session_id.eq(session_id.0),
            sessions::user_uuid.eq(user_id.0),
            sessions::session_created_at.eq(now),
            sessions::session_expires_at.eq(expires_at),
            sessions::session_tokens_until.eq(expires_at),
        ))
        .execute(conn)
        .await?;
    Ok(session_id)
}

/// Whose session it is; `None` when it has ended.
pub(crate) async fn find_live_user(
    conn: &mut AsyncPgConnection,
    session_id: SessionId,
    now: DateTime<Utc>,
) -> QueryResult<Option<User>> {
    let row: Option<UserRow> = sessions::table
        .inner_join(users::table)
        .filter(sessions::session_id.eq(session_id.0))
        .filter(sessions::session_expires_at.gt(now))
        .select(UserRow::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(User::from))
}

/// Ends the session, and tells everybody, in the caller's transaction. A repeat changes nothing.
pub(crate) async fn end(conn: &mut AsyncPgConnection, session_id: SessionId, now: DateTime<Utc>) -> QueryResult<()> {
    let gone = diesel::delete(sessions::table)
        .filter(sessions::session_id.eq(session_id.0))
        .returning((sessions::session_id, sessions::session_tokens_until))
        .get_results(conn)
        .await?;
    tell_of(conn, gone, now).await?;
    Ok(())
}

/// Ends all sessions of the user but `except`, and tells everybody, in the caller's transaction. Returns those that it
/// ended. Lock the user first, so that no other session begins meanwhile.
pub(crate) async fn end_all_of(
    conn: &mut AsyncPgConnection,
    user_id: UserId,
    except: Option<SessionId>,
    now: DateTime<Utc>,
) -> QueryResult<Vec<EndedSession>> {
    let gone = diesel::delete(sessions::table)
        .filter(sessions::user_uuid.eq(user_id.0))
        .filter(sessions::session_id.ne(except.map_or(Uuid::nil(), |session| session.0)))
        .returning((sessions::session_id, sessions::session_tokens_until))
        .get_results(conn)
        .await?;
    tell_of(conn, gone, now).await
}

/// Keeps of sessions that are gone what others must know, and tells them. Returns those whose tokens had not expired.
async fn tell_of(
    conn: &mut AsyncPgConnection,
    mut gone: Vec<(Uuid, DateTime<Utc>)>,
    now: DateTime<Utc>,
) -> QueryResult<Vec<EndedSession>> {
    gone.retain(|(_, until)| *until > now);
    if gone.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<_> = gone
        .iter()
        .map(|(session_id, until)| (ended_sessions::session_id.eq(session_id), ended_sessions::ended_until.eq(until)))
        .collect();
    diesel::insert_into(ended_sessions::table).values(rows).on_conflict_do_nothing().execute(conn).await?;
    // Up to the next whole second, as the feed has seconds.
    let ended: Vec<_> = gone
        .iter()
        .map(|(session_id, until)| EndedSession { sid: SessionId(*session_id), until: until.timestamp() + 1 })
        .collect();
    trust::tell_ended(conn, &ended).await?;
    Ok(ended)
}
