//! The keys that sign tokens, their private halves sealed.

use chrono::{DateTime, Utc};
use common::token::{Jwk, Jwks};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

diesel::table! {
    signing_keys (kid) {
        kid -> Text,
        public_key -> Bytea,
        sealed_seed -> Bytea,
        key_created_at -> Timestamptz,
    }
}

/// Whoever makes a key holds this advisory lock.
const LOCK: i64 = 0x6b65_7973_3031;

/// A key as it is stored.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = signing_keys)]
pub(crate) struct StoredKey {
    pub(crate) kid: String,
    pub(crate) public_key: Vec<u8>,
    pub(crate) sealed_seed: Vec<u8>,
    #[diesel(column_name = key_created_at)]
    pub(crate) created_at: DateTime<Utc>,
}

/// Until the transaction ends, nobody else makes a key.
pub(crate) async fn lock(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    diesel::sql_query(format!("select pg_advisory_xact_lock({LOCK})")).execute(conn).await?;
    Ok(())
}

/// The key that tokens are signed with.
pub(crate) async fn newest(conn: &mut AsyncPgConnection) -> QueryResult<Option<StoredKey>> {
    signing_keys::table
        .order((signing_keys::key_created_at.desc(), signing_keys::kid))
        .select(StoredKey::as_select())
        .first(conn)
        .await
        .optional()
}

pub(crate) async fn insert(conn: &mut AsyncPgConnection, key: &StoredKey) -> QueryResult<()> {
    diesel::insert_into(signing_keys::table).values(key).execute(conn).await?;
    Ok(())
}

/// The public halves of all keys.
pub(crate) async fn public(conn: &mut AsyncPgConnection) -> QueryResult<Jwks> {
    let rows: Vec<(String, Vec<u8>)> =
        signing_keys::table.select((signing_keys::kid, signing_keys::public_key)).load(conn).await?;
    let keys = rows.iter().filter_map(|(kid, key)| Some(Jwk::ed25519(kid, key.as_slice().try_into().ok()?))).collect();
    Ok(Jwks { keys })
}
