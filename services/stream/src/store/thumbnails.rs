//! Pictures of live streams: one a stream, the last.

use chrono::{DateTime, Utc};
use common::StreamId;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

diesel::table! {
    thumbnails (stream_id) {
        stream_id -> BigInt,
        jpeg -> Nullable<Bytea>,
        taken_at -> Nullable<Timestamptz>,
        due_at -> Timestamptz,
    }
}

/// A picture to take.
#[derive(Debug, QueryableByName)]
pub(crate) struct Due {
    #[diesel(sql_type = BigInt)]
    pub(crate) stream_id: i64,
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    pub(crate) playback_id: Uuid,
    /// Since when the stream is live.
    #[diesel(sql_type = Timestamptz)]
    pub(crate) live_since: DateTime<Utc>,
}

/// The picture that is due for longest, which is due again at `next`: so no other instance takes it.
pub(crate) async fn claim(
    conn: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    next: DateTime<Utc>,
) -> QueryResult<Option<Due>> {
    diesel::sql_query(
        "UPDATE thumbnails SET due_at = $2
         FROM streams s
         WHERE s.id = thumbnails.stream_id AND thumbnails.stream_id = (
             SELECT t.stream_id FROM thumbnails t JOIN streams live ON live.id = t.stream_id
             WHERE t.due_at <= $1 AND live.status = 'live'
             ORDER BY t.due_at LIMIT 1 FOR UPDATE OF t SKIP LOCKED
         )
         RETURNING s.id AS stream_id, s.playback_id, coalesce(s.start_time, $1) AS live_since",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(next)
    .get_result(conn)
    .await
    .optional()
}

/// The next picture of this stream is due at `at`.
pub(crate) async fn put_off(conn: &mut AsyncPgConnection, stream_id: i64, at: DateTime<Utc>) -> QueryResult<()> {
    diesel::update(thumbnails::table.find(stream_id)).set(thumbnails::due_at.eq(at)).execute(conn).await?;
    Ok(())
}

/// Keeps a picture, instead of the one before.
pub(crate) async fn keep(
    conn: &mut AsyncPgConnection,
    stream_id: i64,
    jpeg: &[u8],
    now: DateTime<Utc>,
) -> QueryResult<()> {
    diesel::update(thumbnails::table.find(stream_id))
        .set((thumbnails::jpeg.eq(jpeg), thumbnails::taken_at.eq(now)))
        .execute(conn)
        .await?;
    Ok(())
}

/// When the stream's picture was taken, if there is one.
pub(crate) async fn taken_at(conn: &mut AsyncPgConnection, stream_id: StreamId) -> QueryResult<Option<DateTime<Utc>>> {
    let taken_at: Option<Option<DateTime<Utc>>> =
        thumbnails::table.find(stream_id.0).select(thumbnails::taken_at).first(conn).await.optional()?;
    Ok(taken_at.flatten())
}

/// The stream's picture, and when it was taken.
pub(crate) async fn find(
    conn: &mut AsyncPgConnection,
    stream_id: StreamId,
) -> QueryResult<Option<(Vec<u8>, DateTime<Utc>)>> {
    type Row = (Option<Vec<u8>>, Option<DateTime<Utc>>);
    let found: Option<Row> = thumbnails::table
        .find(stream_id.0)
        .select((thumbnails::jpeg, thumbnails::taken_at))
        .first(conn)
        .await
        .optional()?;
    Ok(found.and_then(|(jpeg, taken_at)| jpeg.zip(taken_at)))
}
