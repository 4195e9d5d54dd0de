//! Files that media servers have recorded.

use std::collections::HashMap;

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

/// How many files each of these broadcasts has; those without any are left out.
pub(crate) async fn count(conn: &mut AsyncPgConnection, broadcasts: &[i64]) -> QueryResult<HashMap<i64, i64>> {
    let counts: Vec<(i64, i64)> = recordings::table
        .filter(recordings::broadcast_id.eq_any(broadcasts))
        .group_by(recordings::broadcast_id)
        .select((recordings::broadcast_id, diesel::dsl::count_star()))
        .load(conn)
        .await?;
    Ok(counts.into_iter().collect())
}
