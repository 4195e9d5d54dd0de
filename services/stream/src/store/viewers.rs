//! Who plays over RTMP now.

use common::BroadcastId;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::domain::Encoder;

diesel::table! {
    viewers (broadcast_id, media_server, server_run, client_id) {
        broadcast_id -> BigInt,
        media_server -> Text,
        server_run -> Text,
        client_id -> Text,
    }
}

/// Adds the viewer's connection. A repeat changes nothing.
pub(crate) async fn put(conn: &mut AsyncPgConnection, broadcast: BroadcastId, viewer: &Encoder) -> QueryResult<()> {
    diesel::insert_into(viewers::table)
        .values((
            viewers::broadcast_id.eq(broadcast.0),
            viewers::media_server.eq(&viewer.media_server.name),
            viewers::server_run.eq(&viewer.media_server.run),
            viewers::client_id.eq(&viewer.client_id),
        ))
        .on_conflict_do_nothing()
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes the viewer's connection, and says whether it was there.
pub(crate) async fn remove(
    conn: &mut AsyncPgConnection,
    broadcast: BroadcastId,
    viewer: &Encoder,
) -> QueryResult<bool> {
    let removed = diesel::delete(viewers::table)
        .filter(viewers::broadcast_id.eq(broadcast.0))
        .filter(viewers::media_server.eq(&viewer.media_server.name))
        .filter(viewers::server_run.eq(&viewer.media_server.run))
        .filter(viewers::client_id.eq(&viewer.client_id))
        .execute(conn)
        .await?;
    Ok(removed > 0)
}

pub(crate) async fn remove_all(conn: &mut AsyncPgConnection, broadcast: BroadcastId) -> QueryResult<()> {
    diesel::delete(viewers::table).filter(viewers::broadcast_id.eq(broadcast.0)).execute(conn).await?;
    Ok(())
}
