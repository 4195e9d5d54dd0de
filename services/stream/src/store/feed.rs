//! What lists of streams are told as it happens.

use chrono::{DateTime, Utc};
use common::StreamId;
use diesel::sql_types::{Array, BigInt, Jsonb, Text, Timestamptz};
use diesel::{QueryResult, QueryableByName};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use prepared::statement;
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
pub(crate) async fn tell(mut conn: &AsyncPgConnection, items: &[Item], now: DateTime<Utc>) -> QueryResult<()> {
    if items.is_empty() {
        return Ok(());
    }
    // An id is given to a sorted row: after the lock, without which there are no rows.
    statement(
        "WITH turn AS MATERIALIZED (
             SELECT pg_advisory_xact_lock(hashtext('stream.feed'))
         ), told AS (
             INSERT INTO feed (kind, stream_id, data, told_at)
             SELECT kind, stream_id, data, $1
             FROM turn CROSS JOIN
                 unnest($2::text[], $3::bigint[], $4::jsonb[]) WITH ORDINALITY AS item (kind, stream_id, data, place)
             ORDER BY place
         )
         SELECT pg_notify($5, '')",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Array<Text>, _>(items.iter().map(|item| item.kind).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(items.iter().map(|item| item.stream_id.0).collect::<Vec<_>>())
    .bind::<Array<Jsonb>, _>(items.iter().map(|item| &item.data).collect::<Vec<_>>())
    .bind::<Text, _>(CHANNEL)
    .execute(&mut conn)
    .await?;
    Ok(())
}

/// Something that was told.
#[derive(QueryableByName)]
#[diesel(table_name = feed)]
pub(crate) struct Told {
    pub(crate) id: i64,
    pub(crate) kind: String,
    pub(crate) stream_id: i64,
    pub(crate) data: Value,
}

/// Has this connection woken by what is told, from now on.
pub(crate) async fn listen(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    conn.batch_execute(&format!("LISTEN \"{CHANNEL}\"")).await
}

/// The id of what was told last; 0 if nothing ever was.
pub(crate) async fn last(conn: &mut AsyncPgConnection) -> QueryResult<i64> {
    #[derive(QueryableByName)]
    struct Last {
        #[diesel(sql_type = BigInt)]
        id: i64,
    }
    let last: Last = diesel::sql_query("SELECT coalesce(max(id), 0) AS id FROM feed").get_result(conn).await?;
    Ok(last.id)
}

/// What was told after `id`, the oldest first, at most `most`.
pub(crate) async fn after(conn: &mut AsyncPgConnection, id: i64, most: i64) -> QueryResult<Vec<Told>> {
    statement("SELECT id, kind, stream_id, data FROM feed WHERE id > $1 ORDER BY id LIMIT $2")
        .bind::<BigInt, _>(id)
        .bind::<BigInt, _>(most)
        .load(conn)
        .await
}

/// Whether everything that was told after `id` is still there.
pub(crate) async fn is_whole_after(conn: &mut AsyncPgConnection, id: i64) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Whole {
        #[diesel(sql_type = diesel::sql_types::Bool)]
        is_whole: bool,
    }
    // 0 stands for the beginning.
    let whole: Whole = diesel::sql_query(
        "SELECT EXISTS (SELECT FROM feed WHERE id = $1) OR ($1 = 0 AND coalesce((SELECT min(id) FROM feed), 1) = 1) AS is_whole",
    )
    .bind::<BigInt, _>(id)
    .get_result(conn)
    .await?;
    Ok(whole.is_whole)
}

/// Forgets what was told before `before`, and more than the last `most`. The very last stays: readers know it by its id.
pub(crate) async fn prune(conn: &mut AsyncPgConnection, before: DateTime<Utc>, most: i64) -> QueryResult<usize> {
    diesel::sql_query(
        "DELETE FROM feed
         WHERE (told_at < $1 OR id <= (SELECT id FROM feed ORDER BY id DESC OFFSET $2 LIMIT 1))
           AND id < (SELECT max(id) FROM feed)",
    )
    .bind::<Timestamptz, _>(before)
    .bind::<BigInt, _>(most)
    .execute(conn)
    .await
}
