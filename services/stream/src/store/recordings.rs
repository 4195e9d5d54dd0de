//! Files that media servers have recorded.

use chrono::{DateTime, Utc};
use common::BroadcastId;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

diesel::table! {
    recordings (id) {
        id -> BigInt,
        broadcast_id -> BigInt,
        media_server -> Text,
        path -> Text,
        ready_at -> Timestamptz,
    }
}

/// Whether the file is known.
pub(crate) async fn is_known(conn: &mut AsyncPgConnection, media_server: &str, path: &str) -> QueryResult<bool> {
    let found = recordings::table.filter(recordings::media_server.eq(media_server)).filter(recordings::path.eq(path));
    diesel::select(diesel::dsl::exists(found)).get_result(conn).await
}

/// Keeps the file; `false` when it was known already.
pub(crate) async fn insert(
    conn: &mut AsyncPgConnection,
    broadcast_id: BroadcastId,
    media_server: &str,
    path: &str,
    now: DateTime<Utc>,
) -> QueryResult<bool> {
    let inserted = diesel::insert_into(recordings::table)
        .values((
            recordings::broadcast_id.eq(broadcast_id.0),
            recordings::media_server.eq(media_server),
            recordings::path.eq(path),
            recordings::ready_at.eq(now),
        ))
        .on_conflict_do_nothing()
        .execute(conn)
        .await?;
    Ok(inserted > 0)
}
