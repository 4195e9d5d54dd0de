//! Sessions: one a login.

use chrono::{DateTime, Utc};
use common::{SessionId, UserId};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::domain::User;
use crate::store::users::{UserRow, users};

diesel::table! {
    sessions (session_id) {
        session_id -> Uuid,
        user_uuid -> Uuid,
        session_created_at -> Timestamptz,
        session_expires_at -> Timestamptz,
        session_revoked_at -> Nullable<Timestamptz>,
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
        .filter(sessions::session_revoked_at.is_null())
        .filter(sessions::session_expires_at.gt(now))
        .select(UserRow::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(User::from))
}

/// Ends the session. A repeat changes nothing.
pub(crate) async fn revoke(conn: &mut AsyncPgConnection, session_id: SessionId, now: DateTime<Utc>) -> QueryResult<()> {
    diesel::update(sessions::table)
        .filter(sessions::session_id.eq(session_id.0))
        .filter(sessions::session_revoked_at.is_null())
        .set(sessions::session_revoked_at.eq(now))
        .execute(conn)
        .await?;
    Ok(())
}
