//! Streams that begin soon.

use std::time::Duration;

use chrono::{DateTime, Utc};
use common::{StreamId, UserId};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Timestamptz, Varchar};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    user_id: Uuid,
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    playback_id: Uuid,
    #[diesel(sql_type = Varchar)]
    title: String,
    #[diesel(sql_type = Timestamptz)]
    scheduled_at: DateTime<Utc>,
}

/// A stream that begins soon.
pub(crate) struct Soon {
    pub(crate) stream_id: StreamId,
    pub(crate) user_id: UserId,
    pub(crate) playback_id: Uuid,
    pub(crate) title: String,
    pub(crate) scheduled_at: DateTime<Utc>,
}

/// Takes public streams that begin within `soon` and were not taken for this schedule yet, at most `most`.
///
/// Whoever else asks meanwhile gets others.
pub(crate) async fn take_due(
    conn: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    soon: Duration,
    most: i64,
) -> QueryResult<Vec<Soon>> {
    let rows: Vec<Row> = diesel::sql_query(
        "WITH due AS (
             SELECT id FROM streams
             WHERE scheduled_at > $1 AND scheduled_at <= $2 AND soon_told_at IS NULL
               AND visibility = 'public' AND status <> 'live'
             ORDER BY scheduled_at, id LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED
         )
         UPDATE streams s SET soon_told_at = $1 FROM due WHERE s.id = due.id
         RETURNING s.id, s.user_id, s.playback_id, s.title, s.scheduled_at",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(now + soon)
    .bind::<BigInt, _>(most)
    .load(conn)
    .await?;
    let taken = rows.into_iter().map(|row| Soon {
        stream_id: StreamId(row.id),
        user_id: UserId(row.user_id),
        playback_id: row.playback_id,
        title: row.title,
        scheduled_at: row.scheduled_at,
    });
    Ok(taken.collect())
}
