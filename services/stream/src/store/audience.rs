//! Who watches: what is live to be watched, and the numbers as the last count found them.

use common::{BroadcastId, StreamId, UserId};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use prepared::statement;
use uuid::Uuid;

use crate::audience::Live;
use crate::domain::StreamName;
use crate::store::broadcasts::broadcasts;
use crate::store::streams::streams;

diesel::allow_tables_to_appear_in_same_query!(streams, broadcasts);

/// Everything that is live and may be watched by whoever finds it.
pub(crate) async fn all_live(conn: &mut AsyncPgConnection) -> QueryResult<Vec<Live>> {
    let rows: Vec<LiveRow> = streams::table
        .inner_join(broadcasts::table.on(broadcasts::stream_id.eq(streams::id)))
        .filter(streams::status.eq("live"))
        .filter(streams::visibility.ne("private"))
        .filter(broadcasts::closed_at.is_null())
        .select(LiveRow::as_select())
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(LiveRow::live).collect())
}

/// Whether there is this stream, for whoever finds it, and what of it is live. `None`: there is none.
pub(crate) async fn find(conn: &mut AsyncPgConnection, name: StreamName) -> QueryResult<Option<Option<Live>>> {
    let mut query = streams::table
        .left_join(broadcasts::table.on(
            broadcasts::stream_id.eq(streams::id).and(broadcasts::closed_at.is_null()).and(streams::status.eq("live")),
        ))
        .select((streams::visibility, Option::<LiveRow>::as_select()))
        .into_boxed();
    query = match name {
        StreamName::Id(id) => query.filter(streams::id.eq(id.0)).filter(streams::visibility.eq("public")),
        StreamName::Playback(id) => query.filter(streams::playback_id.eq(id)).filter(streams::visibility.ne("private")),
    };
    let row: Option<(String, Option<LiveRow>)> = query.first(conn).await.optional()?;
    Ok(row.map(|(_, live)| live.map(LiveRow::live)))
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = streams)]
struct LiveRow {
    id: i64,
    playback_id: Uuid,
    visibility: String,
    viewer_count: i32,
    hls_viewers: i32,
    #[diesel(select_expression = broadcasts::id)]
    broadcast_id: i64,
}

impl LiveRow {
    fn live(self) -> Live {
        Live {
            stream_id: StreamId(self.id),
            broadcast_id: BroadcastId(self.broadcast_id),
            playback_id: self.playback_id,
            is_public: self.visibility == "public",
            viewers: self.viewer_count.unsigned_abs().into(),
            players: (self.viewer_count - self.hls_viewers).max(0).unsigned_abs().into(),
        }
    }
}

/// Live streams that somebody watched over HLS at the last count, each with its broadcast.
pub(crate) async fn find_watched(conn: &mut AsyncPgConnection) -> QueryResult<Vec<(BroadcastId, StreamId)>> {
    let rows: Vec<(i64, i64)> = streams::table
        .inner_join(broadcasts::table.on(broadcasts::stream_id.eq(streams::id)))
        .filter(streams::status.eq("live"))
        .filter(streams::hls_viewers.gt(0))
        .filter(broadcasts::closed_at.is_null())
        .select((broadcasts::id, streams::id))
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(|(broadcast, stream)| (BroadcastId(broadcast), StreamId(stream))).collect())
}

/// What a count has found of a broadcast.
pub(crate) struct Counted {
    pub(crate) stream_id: StreamId,
    pub(crate) broadcast_id: BroadcastId,
    /// Watching over HLS now.
    pub(crate) hls: i32,
    /// Who ever did.
    pub(crate) unique: i64,
    /// Watched since the count before, in seconds.
    pub(crate) seconds: i64,
}

/// A public stream that is watched by more or fewer than before.
#[derive(QueryableByName)]
pub(crate) struct Changed {
    #[diesel(sql_type = BigInt)]
    pub(crate) stream_id: i64,
    #[diesel(sql_type = Integer)]
    pub(crate) viewers: i32,
}

/// Notes what a count has found. Rows are written of what has changed only. In a transaction of the caller's.
///
/// Two that note the same count change nothing more, but for `seconds`, which are added.
pub(crate) async fn note(conn: &mut AsyncPgConnection, counted: &[Counted]) -> QueryResult<Vec<Changed>> {
    let streams: Vec<i64> = counted.iter().map(|one| one.stream_id.0).collect();
    // In the order of their ids, as everybody who locks several: nobody waits for each other.
    statement("SELECT id FROM streams WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE")
        .bind::<Array<BigInt>, _>(&streams)
        .execute(conn)
        .await?;
    statement(
        "WITH counted AS (
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::bigint[], $5::bigint[])
                 AS counted (stream_id, broadcast_id, hls, uniques, seconds)
         ), watched AS (
             UPDATE streams s
             SET hls_viewers = hls, viewer_count = hls + (SELECT count(*) FROM players WHERE players.stream_id = s.id)
             FROM counted JOIN broadcasts b ON b.id = counted.broadcast_id AND b.closed_at IS NULL
             WHERE s.id = counted.stream_id AND s.status = 'live' AND s.hls_viewers <> hls
             RETURNING s.id, counted.broadcast_id, s.viewer_count, s.visibility
         ), noted AS (
             UPDATE broadcasts b SET
                 peak_viewers = greatest(peak_viewers, viewer_count),
                 unique_viewers = greatest(unique_viewers, uniques),
                 watch_seconds = watch_seconds + seconds
             FROM counted LEFT JOIN watched USING (broadcast_id)
             WHERE b.id = broadcast_id AND (seconds > 0 OR unique_viewers < uniques OR peak_viewers < viewer_count)
         )
         SELECT id AS stream_id, viewer_count AS viewers FROM watched WHERE visibility = 'public' ORDER BY id",
    )
    .bind::<Array<BigInt>, _>(streams)
    .bind::<Array<BigInt>, _>(counted.iter().map(|one| one.broadcast_id.0).collect::<Vec<_>>())
    .bind::<Array<Integer>, _>(counted.iter().map(|one| one.hls).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(counted.iter().map(|one| one.unique).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(counted.iter().map(|one| one.seconds).collect::<Vec<_>>())
    .load(conn)
    .await
}

/// How a stream is watched.
#[derive(QueryableByName)]
pub(crate) struct Numbers {
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    owner: Uuid,
    #[diesel(sql_type = Text)]
    visibility: String,
    #[diesel(sql_type = Bool)]
    is_live: bool,
    #[diesel(sql_type = Integer)]
    viewer_count: i32,
    #[diesel(sql_type = Integer)]
    hls_viewers: i32,
    /// The broadcast that is on, or else the last one.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub(crate) broadcast_id: Option<i64>,
    #[diesel(sql_type = Integer)]
    pub(crate) peak: i32,
    #[diesel(sql_type = BigInt)]
    pub(crate) unique: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) watch_seconds: i64,
}

impl Numbers {
    /// Whether somebody who names the stream like this may know of it.
    pub(crate) fn are_for(&self, name: StreamName, caller: Option<UserId>) -> bool {
        match (&*self.visibility, name) {
            ("public", _) | ("unlisted", StreamName::Playback(_)) => true,
            _ => caller.is_some_and(|caller| caller.0 == self.owner),
        }
    }

    /// Watching now: in all, and of them over HLS.
    pub(crate) fn now(&self) -> (i32, i32) {
        if self.is_live { (self.viewer_count, self.hls_viewers) } else { (0, 0) }
    }
}

/// The numbers of a stream, whoever may see it.
pub(crate) async fn numbers(conn: &mut AsyncPgConnection, name: StreamName) -> QueryResult<Option<Numbers>> {
    let (id, playback_id) = match name {
        StreamName::Id(id) => (Some(id.0), None),
        StreamName::Playback(id) => (None, Some(id)),
    };
    diesel::sql_query(
        "SELECT user_id AS owner, visibility, status = 'live' AS is_live, viewer_count, hls_viewers, last.id AS broadcast_id,
                coalesce(peak_viewers, 0) AS peak, coalesce(unique_viewers, 0) AS unique,
                coalesce(watch_seconds, 0) AS watch_seconds
         FROM streams s
         LEFT JOIN LATERAL (SELECT * FROM broadcasts WHERE stream_id = s.id ORDER BY id DESC LIMIT 1) AS last ON true
         WHERE s.id = $1 OR s.playback_id = $2",
    )
    .bind::<Nullable<BigInt>, _>(id)
    .bind::<Nullable<diesel::sql_types::Uuid>, _>(playback_id)
    .get_result(conn)
    .await
    .optional()
}
