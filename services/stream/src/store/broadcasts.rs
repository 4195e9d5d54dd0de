//! Broadcasts: each time that a stream was on air. Callers hold the stream's row.

use chrono::{DateTime, Utc};
use common::{BroadcastId, StreamId};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use events::EndReason;

use crate::domain::{Broadcast, Encoder, MediaServer};

diesel::table! {
    broadcasts (id) {
        id -> BigInt,
        stream_id -> BigInt,
        media_server -> Text,
        server_run -> Text,
        client_id -> Text,
        started_at -> Timestamptz,
        last_seen_at -> Timestamptz,
        ended_at -> Nullable<Timestamptz>,
        end_reason -> Nullable<Text>,
    }
}

/// No more stale broadcasts than these are looked at in one go.
const BATCH: i64 = 100;

#[derive(Queryable, Selectable)]
#[diesel(table_name = broadcasts)]
struct BroadcastRow {
    id: i64,
    stream_id: i64,
    media_server: String,
    server_run: String,
    client_id: String,
    started_at: DateTime<Utc>,
    last_seen_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    end_reason: Option<String>,
}

impl From<BroadcastRow> for Broadcast {
    fn from(row: BroadcastRow) -> Self {
        Self {
            id: BroadcastId(row.id),
            stream_id: StreamId(row.stream_id),
            encoder: Encoder {
                media_server: MediaServer { name: row.media_server, run: row.server_run },
                client_id: row.client_id,
            },
            started_at: row.started_at,
            last_seen_at: row.last_seen_at,
            end: row.ended_at.zip(row.end_reason.as_deref().map(reason_of)),
        }
    }
}

fn text_of(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Left => "left",
        EndReason::Stale => "stale",
        EndReason::StoppedByOwner => "stopped_by_owner",
        EndReason::Replaced => "replaced",
    }
}

fn reason_of(text: &str) -> EndReason {
    let all = [EndReason::Left, EndReason::Stale, EndReason::StoppedByOwner, EndReason::Replaced];
    all.into_iter().find(|reason| text_of(*reason) == text).unwrap_or(EndReason::Left)
}

pub(crate) async fn insert(
    conn: &mut AsyncPgConnection,
    stream_id: StreamId,
    encoder: &Encoder,
    now: DateTime<Utc>,
) -> QueryResult<BroadcastId> {
    diesel::insert_into(broadcasts::table)
        .values((
            broadcasts::stream_id.eq(stream_id.0),
            broadcasts::media_server.eq(&encoder.media_server.name),
            broadcasts::server_run.eq(&encoder.media_server.run),
            broadcasts::client_id.eq(&encoder.client_id),
            broadcasts::started_at.eq(now),
            broadcasts::last_seen_at.eq(now),
        ))
        .returning(broadcasts::id)
        .get_result(conn)
        .await
        .map(BroadcastId)
}

/// The broadcast that is on air.
pub(crate) async fn find_live(conn: &mut AsyncPgConnection, stream_id: StreamId) -> QueryResult<Option<Broadcast>> {
    let row: Option<BroadcastRow> = broadcasts::table
        .filter(broadcasts::stream_id.eq(stream_id.0))
        .filter(broadcasts::ended_at.is_null())
        .select(BroadcastRow::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(Broadcast::from))
}

/// The newest broadcast of this encoder.
pub(crate) async fn find_last_of(
    conn: &mut AsyncPgConnection,
    stream_id: StreamId,
    encoder: &Encoder,
) -> QueryResult<Option<Broadcast>> {
    let row: Option<BroadcastRow> = broadcasts::table
        .filter(broadcasts::stream_id.eq(stream_id.0))
        .filter(broadcasts::media_server.eq(&encoder.media_server.name))
        .filter(broadcasts::server_run.eq(&encoder.media_server.run))
        .filter(broadcasts::client_id.eq(&encoder.client_id))
        .order(broadcasts::id.desc())
        .select(BroadcastRow::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(Broadcast::from))
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

/// Streams whose broadcast was not heard of since `before`.
pub(crate) async fn find_stale(conn: &mut AsyncPgConnection, before: DateTime<Utc>) -> QueryResult<Vec<StreamId>> {
    let ids: Vec<i64> = broadcasts::table
        .filter(broadcasts::ended_at.is_null())
        .filter(broadcasts::last_seen_at.lt(before))
        .order(broadcasts::id)
        .limit(BATCH)
        .select(broadcasts::stream_id)
        .load(conn)
        .await?;
    Ok(ids.into_iter().map(StreamId).collect())
}

/// The encoder was heard of.
pub(crate) async fn touch(conn: &mut AsyncPgConnection, id: BroadcastId, now: DateTime<Utc>) -> QueryResult<()> {
    diesel::update(broadcasts::table.find(id.0)).set(broadcasts::last_seen_at.eq(now)).execute(conn).await?;
    Ok(())
}

pub(crate) async fn end(
    conn: &mut AsyncPgConnection,
    id: BroadcastId,
    reason: EndReason,
    at: DateTime<Utc>,
) -> QueryResult<()> {
    diesel::update(broadcasts::table.find(id.0))
        .set((broadcasts::ended_at.eq(at), broadcasts::end_reason.eq(text_of(reason))))
        .execute(conn)
        .await?;
    Ok(())
}
