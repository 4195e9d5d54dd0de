//! Broadcasts that followers are still to be told of.

use chrono::{DateTime, Utc};
use common::{BroadcastId, StreamId, UserId};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::store::broadcasts::broadcasts;
use crate::store::streams::streams;

diesel::table! {
    notices (broadcast_id) {
        broadcast_id -> BigInt,
        stream_id -> BigInt,
        after_user_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(notices, streams);
diesel::allow_tables_to_appear_in_same_query!(notices, broadcasts);

/// A broadcast whose followers are being told.
pub(crate) struct Notice {
    pub(crate) broadcast_id: BroadcastId,
    pub(crate) stream_id: StreamId,
    /// Those up to this one were.
    pub(crate) told_up_to: Option<UserId>,
    pub(crate) channel_id: UserId,
    pub(crate) playback_id: Uuid,
    pub(crate) title: String,
    pub(crate) started_at: DateTime<Utc>,
    /// Whether there is still something to tell: the stream is in lists, and the broadcast not over.
    pub(crate) is_due: bool,
}

/// The oldest that nobody else is at, held until the transaction ends.
pub(crate) async fn take(conn: &mut AsyncPgConnection) -> QueryResult<Option<Notice>> {
    let held: Option<(i64, i64, Option<Uuid>)> = notices::table
        .order((notices::created_at, notices::broadcast_id))
        .select((notices::broadcast_id, notices::stream_id, notices::after_user_id))
        .for_update()
        .skip_locked()
        .first(conn)
        .await
        .optional()?;
    let Some((broadcast_id, stream_id, told_up_to)) = held else { return Ok(None) };
    type Row = (Uuid, Uuid, String, String, DateTime<Utc>, Option<DateTime<Utc>>);
    let (channel_id, playback_id, title, visibility, started_at, closed_at): Row = broadcasts::table
        .inner_join(streams::table.on(streams::id.eq(broadcasts::stream_id)))
        .filter(broadcasts::id.eq(broadcast_id))
        .select((
            streams::user_id,
            streams::playback_id,
            streams::title,
            streams::visibility,
            broadcasts::started_at,
            broadcasts::closed_at,
        ))
        .first(conn)
        .await?;
    Ok(Some(Notice {
        broadcast_id: BroadcastId(broadcast_id),
        stream_id: StreamId(stream_id),
        told_up_to: told_up_to.map(UserId),
        channel_id: UserId(channel_id),
        playback_id,
        title,
        started_at,
        is_due: visibility == "public" && closed_at.is_none(),
    }))
}

/// Everybody up to `user` has been told.
pub(crate) async fn told(conn: &mut AsyncPgConnection, id: BroadcastId, user: UserId) -> QueryResult<()> {
    diesel::update(notices::table.find(id.0)).set(notices::after_user_id.eq(user.0)).execute(conn).await?;
    Ok(())
}

/// Nobody is left to be told.
pub(crate) async fn done(conn: &mut AsyncPgConnection, id: BroadcastId) -> QueryResult<()> {
    diesel::delete(notices::table.find(id.0)).execute(conn).await?;
    Ok(())
}
