//! The keys that sign tokens, their private halves sealed.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::store::sessions::sessions;

diesel::table! {
    signing_keys (kid) {
        kid -> Text,
        public_key -> Bytea,
        sealed_seed -> Bytea,
        key_created_at -> Timestamptz,
        key_signs_from -> Timestamptz,
        key_retires_at -> Nullable<Timestamptz>,
    }
}

/// Whoever makes or retires a key holds this advisory lock.
const LOCK: i64 = 0x6b65_7973_3031;

/// A key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = signing_keys)]
pub(crate) struct StoredKey {
    pub(crate) kid: String,
    pub(crate) public_key: Vec<u8>,
    pub(crate) sealed_seed: Vec<u8>,
    #[diesel(column_name = key_created_at)]
    pub(crate) created_at: DateTime<Utc>,
    /// Until then it is only published.
    #[diesel(column_name = key_signs_from)]
    pub(crate) signs_from: DateTime<Utc>,
}

/// Until the transaction ends, nobody else makes or retires a key.
pub(crate) async fn lock(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    diesel::sql_query(format!("select pg_advisory_xact_lock({LOCK})")).execute(conn).await?;
    Ok(())
}

/// Every key that some token may be signed with, or soon will be: the one that signs last comes first.
pub(crate) async fn all(conn: &mut AsyncPgConnection) -> QueryResult<Vec<StoredKey>> {
    signing_keys::table
        .order((signing_keys::key_signs_from.desc(), signing_keys::kid))
        .select(StoredKey::as_select())
        .load(conn)
        .await
}

pub(crate) async fn insert(conn: &mut AsyncPgConnection, key: &StoredKey) -> QueryResult<()> {
    diesel::insert_into(signing_keys::table).values(key).execute(conn).await?;
    Ok(())
}

/// Lets every other key go once the last token that it signed has expired: `lifetime_ends` at the earliest, and not
/// before any token that there is now.
pub(crate) async fn retire_all_but(
    conn: &mut AsyncPgConnection,
    kid: &str,
    lifetime_ends: DateTime<Utc>,
) -> QueryResult<()> {
    let last: Option<DateTime<Utc>> =
        sessions::table.select(diesel::dsl::max(sessions::session_tokens_until)).first(conn).await?;
    let retires_at = last.map_or(lifetime_ends, |last| last.max(lifetime_ends));
    diesel::update(signing_keys::table)
        .filter(signing_keys::kid.ne(kid))
        // Those that were replaced before have their time.
        .filter(signing_keys::key_retires_at.is_null())
        .set(signing_keys::key_retires_at.eq(retires_at))
        .execute(conn)
        .await?;
    Ok(())
}

/// Lets every other key go at once: no token that they signed is good any more.
pub(crate) async fn delete_all_but(conn: &mut AsyncPgConnection, kid: &str) -> QueryResult<()> {
    diesel::delete(signing_keys::table).filter(signing_keys::kid.ne(kid)).execute(conn).await?;
    Ok(())
}

/// Lets keys go whose time has come. Returns how many.
pub(crate) async fn delete_retired(conn: &mut AsyncPgConnection, now: DateTime<Utc>) -> QueryResult<usize> {
    diesel::delete(signing_keys::table).filter(signing_keys::key_retires_at.le(now)).execute(conn).await
}
