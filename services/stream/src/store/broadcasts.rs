//! Broadcasts: what viewers saw as one.

use chrono::{DateTime, Utc};
use common::{BroadcastId, Page, PageQuery, StreamId};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use events::EndReason;

use crate::store::recordings;

diesel::table! {
    broadcasts (id) {
        id -> BigInt,
        stream_id -> BigInt,
        started_at -> Timestamptz,
        ended_at -> Nullable<Timestamptz>,
        end_reason -> Nullable<Text>,
        open_until -> Nullable<Timestamptz>,
        closed_at -> Nullable<Timestamptz>,
        peak_viewers -> Integer,
        unique_viewers -> BigInt,
        watch_seconds -> BigInt,
    }
}

const REASONS: &[(EndReason, &str)] = &[
    (EndReason::Left, "left"),
    (EndReason::Stale, "stale"),
    (EndReason::Vanished, "vanished"),
    (EndReason::StoppedByOwner, "stopped_by_owner"),
    (EndReason::StoppedByAdministrator, "stopped_by_administrator"),
    (EndReason::KeyRevoked, "key_revoked"),
    (EndReason::Deleted, "deleted"),
    (EndReason::Replaced, "replaced"),
];

pub(crate) fn text_of(reason: EndReason) -> &'static str {
    REASONS.iter().find(|(other, _)| *other == reason).map_or("left", |(_, text)| text)
}

pub(crate) fn reason_of(text: &str) -> EndReason {
    REASONS.iter().find(|(_, other)| *other == text).map_or(EndReason::Left, |(reason, _)| *reason)
}

/// A broadcast, as its history tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) id: BroadcastId,
    pub(crate) started_at: DateTime<Utc>,
    /// When and why it went off the air; `None` while it is on.
    pub(crate) end: Option<(DateTime<Utc>, EndReason)>,
    pub(crate) peak_viewers: i32,
    pub(crate) unique_viewers: i64,
    pub(crate) watch_seconds: i64,
    /// How many files were recorded of it.
    pub(crate) recordings: i64,
}

/// A page of the stream's broadcasts, the newest first.
pub(crate) async fn page(
    conn: &mut AsyncPgConnection,
    stream_id: StreamId,
    query: PageQuery,
) -> QueryResult<Page<Past>> {
    type Row = (i64, DateTime<Utc>, Option<DateTime<Utc>>, Option<String>, i32, i64, i64);
    let of_stream = || broadcasts::table.filter(broadcasts::stream_id.eq(stream_id.0));
    let total = of_stream().count().get_result(conn).await?;
    let rows: Vec<Row> = of_stream()
        .order(broadcasts::id.desc())
        .limit(i64::from(query.limit))
        .offset(query.offset())
        .select((
            broadcasts::id,
            broadcasts::started_at,
            broadcasts::ended_at,
            broadcasts::end_reason,
            broadcasts::peak_viewers,
            broadcasts::unique_viewers,
            broadcasts::watch_seconds,
        ))
        .load(conn)
        .await?;
    let ids: Vec<i64> = rows.iter().map(|row| row.0).collect();
    let recordings = recordings::count(conn, &ids).await?;
    let past =
        rows.into_iter().map(|(id, started_at, ended_at, reason, peak_viewers, unique_viewers, watch_seconds)| Past {
            id: BroadcastId(id),
            started_at,
            end: ended_at.zip(reason.as_deref().map(reason_of)),
            peak_viewers,
            unique_viewers,
            watch_seconds,
            recordings: recordings.get(&id).copied().unwrap_or_default(),
        });
    Ok(Page::new(past.collect(), query, total))
}

/// Whether the stream has a broadcast that is not over for good.
pub(crate) async fn is_open(conn: &mut AsyncPgConnection, stream_id: StreamId) -> QueryResult<bool> {
    let open = broadcasts::table.filter(broadcasts::stream_id.eq(stream_id.0)).filter(broadcasts::closed_at.is_null());
    diesel::select(diesel::dsl::exists(open)).get_result(conn).await
}

/// The newest broadcast that had begun by `at`.
pub(crate) async fn find_at(
    conn: &mut AsyncPgConnection,
    stream_id: StreamId,
    at: DateTime<Utc>,
) -> QueryResult<Option<BroadcastId>> {
    let id: Option<i64> = broadcasts::table
        .filter(broadcasts::stream_id.eq(stream_id.0))
        .filter(broadcasts::started_at.le(at))
        .order(broadcasts::id.desc())
        .select(broadcasts::id)
        .first(conn)
        .await
        .optional()?;
    Ok(id.map(BroadcastId))
}

/// Streams whose broadcast nobody came back to in time.
pub(crate) async fn find_to_close(
    conn: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    most: i64,
) -> QueryResult<Vec<StreamId>> {
    let ids: Vec<i64> = broadcasts::table
        .filter(broadcasts::closed_at.is_null())
        .filter(broadcasts::open_until.le(now))
        .order(broadcasts::id)
        .limit(most)
        .select(broadcasts::stream_id)
        .load(conn)
        .await?;
    Ok(ids.into_iter().map(StreamId).collect())
}
