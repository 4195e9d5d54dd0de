//! What lists of streams are told as it happens.

use chrono::{DateTime, Utc};
use common::StreamId;
use diesel::QueryResult;
use diesel::sql_types::{Array, BigInt, Jsonb, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use serde_json::Value;

diesel::table! {
    feed (id) {
        id -> BigInt,
        kind -> Text,
        stream_id -> BigInt,
        data -> Jsonb,
        told_at -> Timestamptz,
    }
}

/// Where instances are woken when there is something new.
pub(crate) const CHANNEL: &str = "stream.feed";

/// Something to tell.
pub(crate) struct Item {
    /// `live`, `ended`, `viewers` or `scheduled`.
    pub(crate) kind: &'static str,
    pub(crate) stream_id: StreamId,
    pub(crate) data: Value,
}

/// Adds `items`, in their order, with the change that they tell of.
///
/// Call it last in a transaction. Readers go by the id, so ids become visible in their order: whoever adds holds a lock
/// until the commit.
pub(crate) async fn tell(conn: &mut AsyncPgConnection, items: &[Item], now: DateTime<Utc>) -> QueryResult<()> {
    if items.is_empty() {
        return Ok(());
    }
    conn.batch_execute("SELECT pg_advisory_xact_lock(hashtext('stream.feed'))").await?;
    diesel::sql_query(
        "WITH told AS (
             INSERT INTO feed (kind, stream_id, data, told_at)
             SELECT kind, stream_id, data, $4
             FROM unnest($1::text[], $2::bigint[], $3::jsonb[]) WITH ORDINALITY AS item (kind, stream_id, data, place)
             ORDER BY place
         )
         SELECT pg_notify($5, '')",
    )
    .bind::<Array<Text>, _>(items.iter().map(|item| item.kind).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(items.iter().map(|item| item.stream_id.0).collect::<Vec<_>>())
    .bind::<Array<Jsonb>, _>(items.iter().map(|item| &item.data).collect::<Vec<_>>())
    .bind::<Timestamptz, _>(now)
    .bind::<Text, _>(CHANNEL)
    .execute(conn)
    .await?;
    Ok(())
}
