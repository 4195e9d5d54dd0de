//! What auth tells every process about tokens, and how its instances tell each other of a change.
//!
//! A change is notified in its own transaction: PostgreSQL delivers it when that commits, and not otherwise.

use chrono::{DateTime, Utc};
use common::trust::{EndedSession, UserRole};
use common::{SessionId, UserId};
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::sessions::ended_sessions;
use crate::store::users::{role_of, users};

/// PostgreSQL refuses a notification of 8000 bytes. An ended session takes 70.
const MOST_IN_A_NOTICE: usize = 100;

/// A notification: what has changed, or where to look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Notice {
    /// These sessions have ended.
    Ended { ended: Vec<EndedSession> },
    /// Roles have changed: look. What is told here is no role, as of two changes the older may be heard last.
    Roles,
    /// Keys were added or have gone: look.
    Keys,
}

/// Has this connection hear notices, from now on.
pub(crate) async fn listen(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    conn.batch_execute("listen \"auth.trust\"").await
}

/// Tells every instance, when the caller's transaction commits, that these sessions have ended.
pub(crate) async fn tell_ended(conn: &mut AsyncPgConnection, ended: &[EndedSession]) -> QueryResult<()> {
    for some in ended.chunks(MOST_IN_A_NOTICE) {
        tell(conn, &Notice::Ended { ended: some.to_vec() }).await?;
    }
    Ok(())
}

/// Tells every instance, when the caller's transaction commits.
pub(crate) async fn tell(conn: &mut AsyncPgConnection, notice: &Notice) -> QueryResult<()> {
    let text =
        serde_json::to_string(notice).map_err(|error| diesel::result::Error::SerializationError(Box::new(error)))?;
    diesel::sql_query("select pg_notify('auth.trust', $1)").bind::<Text, _>(text).execute(conn).await?;
    Ok(())
}

/// The sessions that have ended before their tokens.
pub(crate) async fn ended(conn: &mut AsyncPgConnection, now: DateTime<Utc>) -> QueryResult<Vec<EndedSession>> {
    let rows: Vec<(Uuid, DateTime<Utc>)> =
        ended_sessions::table.filter(ended_sessions::ended_until.gt(now)).load(conn).await?;
    Ok(rows.into_iter().map(|(session_id, until)| ended_session(session_id, until)).collect())
}

/// A session that has ended, as the feed tells it: in seconds, up to the next.
pub(crate) fn ended_session(session_id: Uuid, until: DateTime<Utc>) -> EndedSession {
    EndedSession { sid: SessionId(session_id), until: until.timestamp() + 1 }
}

/// The users about whose roles some tokens are wrong.
pub(crate) async fn roles(conn: &mut AsyncPgConnection, now: DateTime<Utc>) -> QueryResult<Vec<UserRole>> {
    let rows: Vec<(Uuid, String, Option<DateTime<Utc>>)> = users::table
        .filter(users::user_role_told_until.gt(now))
        .select((users::user_uuid, users::user_role, users::user_role_told_until))
        .load(conn)
        .await?;
    let role = |(user, role, until): (Uuid, String, Option<DateTime<Utc>>)| UserRole {
        sub: UserId(user),
        role: role_of(&role),
        until: until.map_or(0, |until| until.timestamp() + 1),
    };
    Ok(rows.into_iter().map(role).collect())
}

/// Forgets ended sessions that nobody needs to know of any more.
pub(crate) async fn forget_ended(conn: &mut AsyncPgConnection, now: DateTime<Utc>) -> QueryResult<()> {
    diesel::delete(ended_sessions::table).filter(ended_sessions::ended_until.le(now)).execute(conn).await?;
    Ok(())
}
