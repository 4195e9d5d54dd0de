//! Keys to publish with. Each is stored as its hash; one that is revoked is deleted.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use common::StreamId;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::domain::{KeyId, StreamKey};

diesel::table! {
    stream_keys (id) {
        id -> BigInt,
        stream_id -> BigInt,
        name -> Varchar,
        key_hash -> Bytea,
        created_at -> Timestamptz,
        last_used_at -> Nullable<Timestamptz>,
    }
}

/// A key, without itself.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub(crate) struct Key {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) last_used_at: Option<DateTime<Utc>>,
}

pub(crate) async fn insert(
    conn: &mut AsyncPgConnection,
    stream: StreamId,
    name: &str,
    key: &StreamKey,
    now: DateTime<Utc>,
) -> QueryResult<Key> {
    diesel::insert_into(stream_keys::table)
        .values((
            stream_keys::stream_id.eq(stream.0),
            stream_keys::name.eq(name),
            stream_keys::key_hash.eq(key.hash()),
            stream_keys::created_at.eq(now),
        ))
        .returning((stream_keys::id, stream_keys::name, stream_keys::created_at, stream_keys::last_used_at))
        .get_result(conn)
        .await
}

/// All keys of the stream, oldest first.
pub(crate) async fn all_of(conn: &mut AsyncPgConnection, stream: StreamId) -> QueryResult<Vec<Key>> {
    stream_keys::table
        .filter(stream_keys::stream_id.eq(stream.0))
        .order(stream_keys::id)
        .select((stream_keys::id, stream_keys::name, stream_keys::created_at, stream_keys::last_used_at))
        .load(conn)
        .await
}

/// Gives the key another value: whoever has the old one cannot publish any more. `None`: the stream has no such key.
pub(crate) async fn replace(
    conn: &mut AsyncPgConnection,
    stream: StreamId,
    id: KeyId,
    key: &StreamKey,
    now: DateTime<Utc>,
) -> QueryResult<Option<Key>> {
    diesel::update(stream_keys::table.find(id.0))
        .filter(stream_keys::stream_id.eq(stream.0))
        .set((
            stream_keys::key_hash.eq(key.hash()),
            stream_keys::created_at.eq(now),
            stream_keys::last_used_at.eq(None::<DateTime<Utc>>),
        ))
        .returning((stream_keys::id, stream_keys::name, stream_keys::created_at, stream_keys::last_used_at))
        .get_result(conn)
        .await
        .optional()
}

/// Deletes the key; `false` if the stream has none of this id.
pub(crate) async fn delete(conn: &mut AsyncPgConnection, stream: StreamId, id: KeyId) -> QueryResult<bool> {
    let deleted =
        diesel::delete(stream_keys::table.find(id.0)).filter(stream_keys::stream_id.eq(stream.0)).execute(conn).await?;
    Ok(deleted > 0)
}

/// Whose keys these are, as far as they exist.
pub(crate) async fn streams_of(conn: &mut AsyncPgConnection, ids: &[KeyId]) -> QueryResult<HashMap<KeyId, StreamId>> {
    let rows: Vec<(i64, i64)> = stream_keys::table
        .filter(stream_keys::id.eq_any(ids.iter().map(|id| id.0)))
        .select((stream_keys::id, stream_keys::stream_id))
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(|(id, stream)| (KeyId(id), StreamId(stream))).collect())
}

/// These keys were used.
pub(crate) async fn used(mut conn: &AsyncPgConnection, ids: &[i64], now: DateTime<Utc>) -> QueryResult<()> {
    diesel::update(stream_keys::table.filter(stream_keys::id.eq_any(ids)))
        .set(stream_keys::last_used_at.eq(now))
        .execute(&mut conn)
        .await?;
    Ok(())
}
