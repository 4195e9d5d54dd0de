//! Who plays over RTMP now, and how many watch in all.

use common::StreamId;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use prepared::statement;

use crate::domain::{Connection, MediaServer};
use crate::store::audience::Changed;

diesel::table! {
    players (stream_id, media_server, server_run, client_id) {
        stream_id -> BigInt,
        media_server -> Text,
        server_run -> Text,
        client_id -> Text,
    }
}

/// Adds these connections. A repeat changes nothing.
pub(crate) async fn put(conn: &mut AsyncPgConnection, all: &[(StreamId, &Connection)]) -> QueryResult<()> {
    let rows: Vec<_> = all
        .iter()
        .map(|(stream, player)| {
            (
                players::stream_id.eq(stream.0),
                players::media_server.eq(&player.media_server.name),
                players::server_run.eq(&player.media_server.run),
                players::client_id.eq(&player.client_id),
            )
        })
        .collect();
    diesel::insert_into(players::table).values(rows).on_conflict_do_nothing().execute(conn).await?;
    Ok(())
}

/// Removes a connection. One that is not there is fine.
pub(crate) async fn remove(conn: &mut AsyncPgConnection, stream: StreamId, player: &Connection) -> QueryResult<()> {
    diesel::delete(players::table)
        .filter(players::stream_id.eq(stream.0))
        .filter(players::media_server.eq(&player.media_server.name))
        .filter(players::server_run.eq(&player.media_server.run))
        .filter(players::client_id.eq(&player.client_id))
        .execute(conn)
        .await?;
    Ok(())
}

/// Counts who watches these streams now, if they are live, and notes the most that there were. Callers hold the streams.
pub(crate) async fn recount(conn: &mut AsyncPgConnection, streams: &[i64]) -> QueryResult<Vec<Changed>> {
    statement(
        "WITH now AS (
             SELECT id, hls_viewers + (SELECT count(*) FROM players WHERE players.stream_id = s.id) AS viewers
             FROM streams s WHERE id = ANY ($1)
         ), counted AS (
             UPDATE streams s SET viewer_count = viewers FROM now
             WHERE s.id = now.id AND status = 'live' AND viewer_count <> viewers
             RETURNING s.id, viewer_count, visibility
         ), peaked AS (
             UPDATE broadcasts SET peak_viewers = viewer_count FROM counted
             WHERE broadcasts.stream_id = counted.id AND closed_at IS NULL AND peak_viewers < viewer_count
         )
         SELECT id AS stream_id, viewer_count AS viewers FROM counted WHERE visibility = 'public' ORDER BY id",
    )
    .bind::<Array<BigInt>, _>(streams)
    .load(conn)
    .await
}

/// Everybody who plays at this media server.
pub(crate) async fn all_at(
    conn: &mut AsyncPgConnection,
    media_server: &str,
) -> QueryResult<Vec<(StreamId, Connection)>> {
    let rows: Vec<(i64, String, String, String)> =
        players::table.filter(players::media_server.eq(media_server)).load(conn).await?;
    let all = rows.into_iter().map(|(stream_id, name, run, client_id)| {
        (StreamId(stream_id), Connection { media_server: MediaServer { name, run }, client_id })
    });
    Ok(all.collect())
}
