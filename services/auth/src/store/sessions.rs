//! Sessions: one a login. A session that has ended has no row here any more.
//!
//! Where a session and its user are both locked, the user is first.

use chrono::{DateTime, TimeDelta, Utc};
use common::trust::EndedSession;
use common::{SessionId, UserId};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::client::Client;
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
        session_user_agent -> Varchar,
        session_address -> Varchar,
        session_last_seen_at -> Timestamptz,
        session_generation -> BigInt,
        session_refresh_expires_at -> Timestamptz,
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

diesel::define_sql_function! {
    #[sql_name = "greatest"]
    fn later(one: diesel::sql_types::Timestamptz, other: diesel::sql_types::Timestamptz) -> diesel::sql_types::Timestamptz;
}

/// A user has at most this many sessions: then the oldest ends.
const MOST_OF_A_USER: i64 = 100;
/// When a session was last seen is written at most this often.
const SEEN_EVERY: TimeDelta = TimeDelta::minutes(5);
/// How many rows are swept in one statement.
const SWEEP: i64 = 1000;

/// How long what belongs to a session lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetimes {
    pub(crate) token_until: DateTime<Utc>,
    pub(crate) refresh_until: DateTime<Utc>,
}

impl Lifetimes {
    fn session_until(self) -> DateTime<Utc> {
        self.token_until.max(self.refresh_until)
    }
}

/// A session, as its user sees it.
#[derive(Queryable, Selectable)]
#[diesel(table_name = sessions)]
pub(crate) struct Session {
    pub(crate) session_id: Uuid,
    pub(crate) session_user_agent: String,
    pub(crate) session_address: String,
    pub(crate) session_created_at: DateTime<Utc>,
    pub(crate) session_last_seen_at: DateTime<Utc>,
    pub(crate) session_expires_at: DateTime<Utc>,
}

/// A new session of a user who is locked: its id, and the generation of its first refresh token. If there are too many,
/// the oldest end.
pub(crate) async fn insert(
    conn: &mut AsyncPgConnection,
    user_id: UserId,
    client: &Client,
    now: DateTime<Utc>,
    lifetimes: Lifetimes,
) -> QueryResult<(SessionId, i64)> {
    let live = sessions::table.filter(sessions::user_uuid.eq(user_id.0)).filter(sessions::session_expires_at.gt(now));
    let beyond: Vec<Uuid> = live
        .order((sessions::session_created_at.desc(), sessions::session_id.desc()))
        .offset(MOST_OF_A_USER - 1)
        .select(sessions::session_id)
        .load(conn)
        .await?;
    if !beyond.is_empty() {
        let gone = diesel::delete(sessions::table.filter(sessions::session_id.eq_any(beyond)))
            .returning((sessions::session_id, sessions::session_tokens_until))
            .get_results(conn)
            .await?;
        tell_of(conn, gone, now).await?;
    }
    diesel::insert_into(sessions::table)
        .values((
            sessions::session_id.eq(SessionId::new().0),
            sessions::user_uuid.eq(user_id.0),
            sessions::session_created_at.eq(now),
            sessions::session_last_seen_at.eq(now),
            sessions::session_expires_at.eq(lifetimes.session_until()),
            sessions::session_tokens_until.eq(lifetimes.token_until),
            sessions::session_refresh_expires_at.eq(lifetimes.refresh_until),
            sessions::session_user_agent.eq(&client.user_agent),
            sessions::session_address.eq(client.address.to_string()),
        ))
        .returning((sessions::session_id, sessions::session_generation))
        .get_result(conn)
        .await
        .map(|(session_id, generation): (Uuid, i64)| (SessionId(session_id), generation))
}

/// Whose session it is; `None` when it has ended.
pub(crate) async fn find_live_user(
    conn: &mut AsyncPgConnection,
    session_id: SessionId,
    now: DateTime<Utc>,
) -> QueryResult<Option<User>> {
    Ok(find_live(conn, session_id, now).await?.map(|(user, _)| user.into()))
}

/// Whose session it is, as [`find_live_user`] answers. Notes now and then that it was seen: not in a transaction that locks
/// a user afterwards.
pub(crate) async fn see(
    conn: &mut AsyncPgConnection,
    session_id: SessionId,
    now: DateTime<Utc>,
) -> QueryResult<Option<User>> {
    let Some((user, last_seen_at)) = find_live(conn, session_id, now).await? else { return Ok(None) };
    if last_seen_at <= now - SEEN_EVERY {
        diesel::update(sessions::table)
            .filter(sessions::session_id.eq(session_id.0))
            .filter(sessions::session_last_seen_at.le(now - SEEN_EVERY))
            .set(sessions::session_last_seen_at.eq(now))
            .execute(conn)
            .await?;
    }
    Ok(Some(user.into()))
}

async fn find_live(
    conn: &mut AsyncPgConnection,
    session_id: SessionId,
    now: DateTime<Utc>,
) -> QueryResult<Option<(UserRow, DateTime<Utc>)>> {
    sessions::table
        .inner_join(users::table)
        .filter(sessions::session_id.eq(session_id.0))
        .filter(sessions::session_expires_at.gt(now))
        .select((UserRow::as_select(), sessions::session_last_seen_at))
        .first(conn)
        .await
        .optional()
}

/// The user's live sessions, the last seen first: at most a hundred.
pub(crate) async fn of_user(
    conn: &mut AsyncPgConnection,
    user_id: UserId,
    now: DateTime<Utc>,
) -> QueryResult<Vec<Session>> {
    sessions::table
        .filter(sessions::user_uuid.eq(user_id.0))
        .filter(sessions::session_expires_at.gt(now))
        .order((sessions::session_last_seen_at.desc(), sessions::session_id.desc()))
        .limit(MOST_OF_A_USER)
        .select(Session::as_select())
        .load(conn)
        .await
}

/// The user of a session, locked so that neither role nor suspension changes until the transaction ends. `None` when there
/// is no such session.
pub(crate) async fn lock_user(conn: &mut AsyncPgConnection, session_id: SessionId) -> QueryResult<Option<User>> {
    let of_session =
        sessions::table.filter(sessions::session_id.eq(session_id.0)).select(sessions::user_uuid).into_boxed();
    let row: Option<UserRow> = users::table
        .filter(users::user_uuid.eq_any(of_session))
        .select(UserRow::as_select())
        .for_share()
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(User::from))
}

/// Makes the refresh token of `generation` give way to the next, also when it has before and the next was never used.
/// Returns whether it did: `false` when it was not good.
pub(crate) async fn advance(
    conn: &mut AsyncPgConnection,
    session_id: SessionId,
    generation: i64,
    now: DateTime<Utc>,
    lifetimes: Lifetimes,
) -> QueryResult<bool> {
    let advanced = diesel::update(sessions::table)
        .filter(sessions::session_id.eq(session_id.0))
        .filter(sessions::session_generation.eq_any([generation, generation + 1]))
        .filter(sessions::session_refresh_expires_at.gt(now))
        .set((
            sessions::session_generation.eq(generation + 1),
            sessions::session_last_seen_at.eq(now),
            sessions::session_tokens_until.eq(later(sessions::session_tokens_until, lifetimes.token_until)),
            sessions::session_refresh_expires_at.eq(lifetimes.refresh_until),
            sessions::session_expires_at.eq(later(sessions::session_tokens_until, lifetimes.session_until())),
        ))
        .execute(conn)
        .await?;
    Ok(advanced == 1)
}

/// Ends the session if a refresh token after that of `generation` has been used already. Returns whether it did.
pub(crate) async fn end_if_reused(
    conn: &mut AsyncPgConnection,
    session_id: SessionId,
    generation: i64,
    now: DateTime<Utc>,
) -> QueryResult<bool> {
    let gone: Vec<_> = diesel::delete(sessions::table)
        .filter(sessions::session_id.eq(session_id.0))
        .filter(sessions::session_generation.gt(generation + 1))
        .filter(sessions::session_refresh_expires_at.gt(now))
        .returning((sessions::session_id, sessions::session_tokens_until))
        .get_results(conn)
        .await?;
    let is_reused = !gone.is_empty();
    tell_of(conn, gone, now).await?;
    Ok(is_reused)
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

/// Ends the session if it is the user's, as [`end`] does. Returns whether it was.
pub(crate) async fn end_own(
    conn: &mut AsyncPgConnection,
    user_id: UserId,
    session_id: SessionId,
    now: DateTime<Utc>,
) -> QueryResult<bool> {
    let gone: Vec<_> = diesel::delete(sessions::table)
        .filter(sessions::session_id.eq(session_id.0))
        .filter(sessions::user_uuid.eq(user_id.0))
        .returning((sessions::session_id, sessions::session_tokens_until))
        .get_results(conn)
        .await?;
    let was_there = !gone.is_empty();
    tell_of(conn, gone, now).await?;
    Ok(was_there)
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
        .filter(sessions::session_expires_at.gt(now))
        .filter(sessions::session_id.ne(except.map_or(Uuid::nil(), |session| session.0)))
        .returning((sessions::session_id, sessions::session_tokens_until))
        .get_results(conn)
        .await?;
    tell_of(conn, gone, now).await
}

/// When the last token of the user expires; `None` when there is none.
pub(crate) async fn last_token_of(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<Option<DateTime<Utc>>> {
    sessions::table
        .filter(sessions::user_uuid.eq(user_id.0))
        .select(diesel::dsl::max(sessions::session_tokens_until))
        .first(conn)
        .await
}

/// Forgets sessions that have expired. Returns whether there may be more.
pub(crate) async fn forget_expired(conn: &mut AsyncPgConnection, now: DateTime<Utc>) -> QueryResult<bool> {
    let expired =
        sessions::table.filter(sessions::session_expires_at.le(now)).select(sessions::session_id).limit(SWEEP);
    let rows: Vec<Uuid> = expired.load(conn).await?;
    // Looked at again: one may have been refreshed meanwhile.
    diesel::delete(sessions::table)
        .filter(sessions::session_id.eq_any(&rows))
        .filter(sessions::session_expires_at.le(now))
        .execute(conn)
        .await?;
    Ok(rows.len() as i64 == SWEEP)
}

/// Keeps of sessions that are gone what others must know, and tells them.
async fn tell_of(
    conn: &mut AsyncPgConnection,
    gone: Vec<(Uuid, DateTime<Utc>)>,
    now: DateTime<Utc>,
) -> QueryResult<Vec<EndedSession>> {
    let rows: Vec<_> = gone
        .iter()
        .filter(|(_, until)| *until > now)
        .map(|(session_id, until)| (ended_sessions::session_id.eq(session_id), ended_sessions::ended_until.eq(until)))
        .collect();
    if !rows.is_empty() {
        diesel::insert_into(ended_sessions::table).values(rows).on_conflict_do_nothing().execute(conn).await?;
    }
    let ended: Vec<_> = gone.into_iter().map(|(session_id, until)| trust::ended_session(session_id, until)).collect();
    let last: Vec<_> = ended.iter().copied().filter(|session| session.until > now.timestamp()).collect();
    trust::tell_ended(conn, &last).await?;
    Ok(ended)
}
