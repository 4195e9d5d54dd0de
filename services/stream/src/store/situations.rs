//! What is known of streams when something happens to them, and what is changed then: all streams of a batch at once.
//!
//! Callers are in a transaction. What does not depend on each other is asked in one go: PostgreSQL works while the next
//! question is on its way.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use common::{BroadcastId, StreamId};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::try_join;
use prepared::statement;
use uuid::Uuid;

use crate::domain::{Broadcast, Connection, KeyId, MediaServer, OffAir, Publication, PublicationId, Stream};
use crate::machine::Situation;
use crate::store::broadcasts::{broadcasts, reason_of, text_of};
use crate::store::keys::stream_keys;
use crate::store::players::players;
use crate::store::streams::{StreamRow, streams};

diesel::allow_tables_to_appear_in_same_query!(publications, stream_keys);

diesel::table! {
    publications (id) {
        id -> BigInt,
        stream_id -> BigInt,
        broadcast_id -> BigInt,
        key_id -> Nullable<BigInt>,
        media_server -> Text,
        server_run -> Text,
        client_id -> Text,
        began_at -> Timestamptz,
        last_seen_at -> Timestamptz,
        ended_at -> Nullable<Timestamptz>,
        end_reason -> Nullable<Text>,
    }
}

/// The streams that these keys (as hashes), playback ids and ids belong to, held until the transaction ends.
pub(crate) async fn lock(
    conn: &mut AsyncPgConnection,
    keys: &[Vec<u8>],
    playback_ids: &[Uuid],
    ids: &[i64],
) -> QueryResult<Vec<Stream>> {
    let mut ids = ids.to_vec();
    if !keys.is_empty() {
        let of_keys = stream_keys::table.filter(stream_keys::key_hash.eq_any(keys)).select(stream_keys::stream_id);
        ids.extend(of_keys.load::<i64>(conn).await?);
    }
    if !playback_ids.is_empty() {
        let of_names = streams::table.filter(streams::playback_id.eq_any(playback_ids)).select(streams::id);
        ids.extend(of_names.load::<i64>(conn).await?);
    }
    // In the order of their ids, so that two that lock several streams never wait for each other.
    let rows: Vec<StreamRow> = streams::table
        .filter(streams::id.eq_any(ids))
        .order(streams::id)
        .select(StreamRow::as_select())
        .for_update()
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(|row| row.named(None)).collect())
}

/// Whose keys these are. Asked after [`lock`], so that a key that was revoked meanwhile is not found.
pub(crate) async fn find_keys(
    conn: &mut AsyncPgConnection,
    hashes: &[Vec<u8>],
) -> QueryResult<HashMap<Vec<u8>, (KeyId, StreamId)>> {
    let rows: Vec<(Vec<u8>, i64, i64)> = stream_keys::table
        .filter(stream_keys::key_hash.eq_any(hashes))
        .select((stream_keys::key_hash, stream_keys::id, stream_keys::stream_id))
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(|(hash, key, stream)| (hash, (KeyId(key), StreamId(stream)))).collect())
}

/// What is known of each of `streams`; of some with the past of the connection that calls.
pub(crate) async fn load(
    conn: &mut AsyncPgConnection,
    streams: Vec<(Stream, Option<Connection>)>,
) -> QueryResult<Vec<Situation>> {
    let ids: Vec<i64> = streams.iter().map(|(stream, _)| stream.id.0).collect();
    let conn = &*conn;
    let (mut broadcasts, mut on_air) = try_join!(open_broadcasts(conn, &ids), on_air(conn, &ids))?;
    // Whoever is on air has no past that counts: that is nearly everybody, as heartbeats are most of all calls.
    let others = streams.iter().filter_map(|(stream, caller)| {
        let caller = caller.as_ref()?;
        let is_on_air = on_air.get(&stream.id.0).is_some_and(|current| current.encoder == *caller);
        (!is_on_air).then_some((stream.id.0, caller))
    });
    let others: Vec<_> = others.collect();
    let (mut last, players) = try_join!(last_of(conn, &others), players_of(conn, &others))?;
    let situations = streams.into_iter().map(|(stream, caller)| Situation {
        broadcast: broadcasts.remove(&stream.id.0),
        on_air: on_air.remove(&stream.id.0),
        callers_last: last.remove(&stream.id.0),
        is_player: caller.is_some_and(|caller| players.contains(&(stream.id.0, caller))),
        stream,
    });
    Ok(situations.collect())
}

async fn open_broadcasts(mut conn: &AsyncPgConnection, ids: &[i64]) -> QueryResult<HashMap<i64, Broadcast>> {
    type Row = (i64, i64, DateTime<Utc>, Option<DateTime<Utc>>, Option<String>, Option<DateTime<Utc>>);
    let rows: Vec<Row> = broadcasts::table
        .filter(broadcasts::stream_id.eq_any(ids))
        .filter(broadcasts::closed_at.is_null())
        .select((
            broadcasts::stream_id,
            broadcasts::id,
            broadcasts::started_at,
            broadcasts::ended_at,
            broadcasts::end_reason,
            broadcasts::open_until,
        ))
        .load(&mut conn)
        .await?;
    let broadcasts = rows.into_iter().map(|(stream_id, id, started_at, ended_at, reason, open_until)| {
        let off_air =
            ended_at.zip(reason).map(|(since, reason)| OffAir { since, reason: reason_of(&reason), open_until });
        (stream_id, Broadcast { id: BroadcastId(id), started_at, off_air })
    });
    Ok(broadcasts.collect())
}

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = publications)]
struct PublicationRow {
    id: i64,
    stream_id: i64,
    media_server: String,
    server_run: String,
    client_id: String,
    last_seen_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    end_reason: Option<String>,
}

/// By their streams.
fn by_stream(rows: Vec<PublicationRow>) -> HashMap<i64, Publication> {
    let publications = rows.into_iter().map(|row| {
        let media_server = MediaServer { name: row.media_server, run: row.server_run };
        let publication = Publication {
            id: PublicationId(row.id),
            encoder: Connection { media_server, client_id: row.client_id },
            last_seen_at: row.last_seen_at,
            end: row.ended_at.zip(row.end_reason.as_deref().map(reason_of)),
        };
        (row.stream_id, publication)
    });
    publications.collect()
}

async fn on_air(mut conn: &AsyncPgConnection, ids: &[i64]) -> QueryResult<HashMap<i64, Publication>> {
    let rows = publications::table
        .filter(publications::stream_id.eq_any(ids))
        .filter(publications::ended_at.is_null())
        .select(PublicationRow::as_select())
        .load(&mut conn)
        .await?;
    Ok(by_stream(rows))
}

/// The last publication that has ended, of each of these connections at its stream.
async fn last_of(
    mut conn: &AsyncPgConnection,
    callers: &[(i64, &Connection)],
) -> QueryResult<HashMap<i64, Publication>> {
    if callers.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<PublicationRow> = statement(
        "SELECT last.id, last.stream_id, last.media_server, last.server_run, last.client_id, last.last_seen_at,
                last.ended_at, last.end_reason
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) AS caller (stream_id, media_server, server_run, client_id)
         CROSS JOIN LATERAL (
             SELECT * FROM publications p
             WHERE p.stream_id = caller.stream_id AND p.client_id = caller.client_id
               AND p.media_server = caller.media_server AND p.server_run = caller.server_run
             ORDER BY p.id DESC LIMIT 1
         ) AS last
         WHERE last.ended_at IS NOT NULL",
    )
    .bind::<Array<BigInt>, _>(callers.iter().map(|(id, _)| *id).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(callers.iter().map(|(_, caller)| &*caller.media_server.name).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(callers.iter().map(|(_, caller)| &*caller.media_server.run).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(callers.iter().map(|(_, caller)| &*caller.client_id).collect::<Vec<_>>())
    .load(&mut conn)
    .await?;
    Ok(by_stream(rows))
}

/// Which of these connections are players of their stream.
async fn players_of(
    mut conn: &AsyncPgConnection,
    callers: &[(i64, &Connection)],
) -> QueryResult<HashSet<(i64, Connection)>> {
    if callers.is_empty() {
        return Ok(HashSet::new());
    }
    let rows: Vec<(i64, String, String, String)> = players::table
        .filter(players::stream_id.eq_any(callers.iter().map(|(id, _)| *id).collect::<Vec<_>>()))
        .filter(players::client_id.eq_any(callers.iter().map(|(_, caller)| &*caller.client_id).collect::<Vec<_>>()))
        .select((players::stream_id, players::media_server, players::server_run, players::client_id))
        .load(&mut conn)
        .await?;
    let players = rows.into_iter().map(|(stream_id, name, run, client_id)| {
        (stream_id, Connection { media_server: MediaServer { name, run }, client_id })
    });
    Ok(players.collect())
}

/// These encoders were heard of.
pub(crate) async fn heard(conn: &mut AsyncPgConnection, ids: &[i64], now: DateTime<Utc>) -> QueryResult<()> {
    diesel::update(publications::table.filter(publications::id.eq_any(ids)))
        .set(publications::last_seen_at.eq(now))
        .execute(conn)
        .await?;
    Ok(())
}

/// These encoders were heard of then, and may have been heard of since.
///
/// What somebody else is changing is left out: a call that is being settled says the same, or more.
pub(crate) async fn heard_at(
    conn: &mut AsyncPgConnection,
    heard: &HashMap<PublicationId, DateTime<Utc>>,
) -> QueryResult<()> {
    statement(
        "WITH heard AS (
             SELECT p.id, at FROM unnest($1::bigint[], $2::timestamptz[]) AS heard (id, at) JOIN publications p USING (id)
             WHERE ended_at IS NULL AND last_seen_at < at
             FOR NO KEY UPDATE OF p SKIP LOCKED
         )
         UPDATE publications p SET last_seen_at = at FROM heard WHERE p.id = heard.id",
    )
    .bind::<Array<BigInt>, _>(heard.keys().map(|id| id.0).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(heard.values().copied().collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// Who is on air with a key.
pub(crate) struct OnAirWith {
    pub(crate) stream_id: StreamId,
    pub(crate) key_id: KeyId,
    pub(crate) publication: PublicationId,
    pub(crate) encoder: Connection,
}

/// Who is on air on the streams of these keys, which are given as hashes, as is what is returned.
pub(crate) async fn on_air_with(
    conn: &mut AsyncPgConnection,
    keys: &[&Vec<u8>],
) -> QueryResult<HashMap<Vec<u8>, OnAirWith>> {
    type Row = (Vec<u8>, i64, i64, i64, String, String, String);
    let rows: Vec<Row> = stream_keys::table
        .inner_join(publications::table.on(publications::stream_id.eq(stream_keys::stream_id)))
        .filter(stream_keys::key_hash.eq_any(keys))
        .filter(publications::ended_at.is_null())
        .select((
            stream_keys::key_hash,
            stream_keys::id,
            publications::stream_id,
            publications::id,
            publications::media_server,
            publications::server_run,
            publications::client_id,
        ))
        .load(conn)
        .await?;
    let on_air = rows.into_iter().map(|(hash, key_id, stream_id, publication, name, run, client_id)| {
        let encoder = Connection { media_server: MediaServer { name, run }, client_id };
        let (stream_id, publication) = (StreamId(stream_id), PublicationId(publication));
        (hash, OnAirWith { stream_id, key_id: KeyId(key_id), publication, encoder })
    });
    Ok(on_air.collect())
}

pub(crate) async fn rename(conn: &mut AsyncPgConnection, id: PublicationId, client_id: &str) -> QueryResult<()> {
    diesel::update(publications::table.find(id.0)).set(publications::client_id.eq(client_id)).execute(conn).await?;
    Ok(())
}

/// A publication that has ended, and with it, for now, the broadcast of its stream.
pub(crate) struct TakenOff {
    pub(crate) stream: StreamId,
    pub(crate) publication: PublicationId,
    pub(crate) broadcast: BroadcastId,
    pub(crate) off_air: OffAir,
}

pub(crate) async fn take_off(conn: &mut AsyncPgConnection, all: &[TakenOff], now: DateTime<Utc>) -> QueryResult<()> {
    statement(
        "WITH gone AS (
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::text[], $6::timestamptz[])
                 AS gone (stream_id, publication_id, broadcast_id, since, reason, open_until)
         ), ended AS (
             UPDATE publications SET ended_at = since, end_reason = reason FROM gone WHERE id = publication_id
         ), off_air AS (
             UPDATE broadcasts b SET ended_at = since, end_reason = reason, open_until = gone.open_until
             FROM gone WHERE b.id = broadcast_id
         )
         UPDATE streams SET status = 'ended', end_time = since, viewer_count = 0, hls_viewers = 0, updated_at = $7
         FROM gone WHERE id = gone.stream_id",
    )
    .bind::<Array<BigInt>, _>(all.iter().map(|one| one.stream.0).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(all.iter().map(|one| one.publication.0).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(all.iter().map(|one| one.broadcast.0).collect::<Vec<_>>())
    .bind::<Array<Timestamptz>, _>(all.iter().map(|one| one.off_air.since).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(all.iter().map(|one| text_of(one.off_air.reason)).collect::<Vec<_>>())
    .bind::<Array<Nullable<Timestamptz>>, _>(all.iter().map(|one| one.off_air.open_until).collect::<Vec<_>>())
    .bind::<Timestamptz, _>(now)
    .execute(conn)
    .await?;
    Ok(())
}

/// These broadcasts are over for good, and nobody plays them any more.
pub(crate) async fn close(
    conn: &mut AsyncPgConnection,
    broadcasts: &[i64],
    streams: &[i64],
    now: DateTime<Utc>,
) -> QueryResult<()> {
    statement(
        "WITH gone AS (DELETE FROM players WHERE stream_id = ANY ($1))
         UPDATE broadcasts SET closed_at = $2, open_until = NULL WHERE id = ANY ($3)",
    )
    .bind::<Array<BigInt>, _>(streams)
    .bind::<Timestamptz, _>(now)
    .bind::<Array<BigInt>, _>(broadcasts)
    .execute(conn)
    .await?;
    Ok(())
}

/// An encoder that goes on air.
pub(crate) struct GoesLive<'a> {
    pub(crate) stream: StreamId,
    /// The broadcast that it goes on with; `None`: a new one.
    pub(crate) broadcast: Option<BroadcastId>,
    pub(crate) encoder: &'a Connection,
    pub(crate) key: Option<KeyId>,
    /// Whether followers are to be told.
    pub(crate) is_told: bool,
}

#[derive(QueryableByName)]
struct WentLive {
    #[diesel(sql_type = BigInt)]
    stream_id: i64,
    #[diesel(sql_type = BigInt)]
    broadcast_id: i64,
}

/// Puts these on air, and returns which broadcast each stream has.
///
/// A schedule that this broadcast is the fulfilment of is done with.
pub(crate) async fn go_live(
    conn: &mut AsyncPgConnection,
    all: &[GoesLive<'_>],
    now: DateTime<Utc>,
) -> QueryResult<HashMap<StreamId, BroadcastId>> {
    let rows: Vec<WentLive> = statement(
        "WITH live AS (
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::boolean[])
                 AS live (stream_id, broadcast_id, media_server, server_run, client_id, key_id, is_told)
         ), began AS (
             INSERT INTO broadcasts (stream_id, started_at)
             SELECT stream_id, $8 FROM live WHERE broadcast_id IS NULL ORDER BY stream_id
             RETURNING id, stream_id
         ), went_on AS (
             UPDATE broadcasts b SET ended_at = NULL, end_reason = NULL, open_until = NULL
             FROM live WHERE b.id = live.broadcast_id
             RETURNING b.id, b.stream_id, b.started_at
         ), of_stream AS (
             SELECT id, stream_id, $8 AS started_at FROM began
             UNION ALL SELECT id, stream_id, started_at FROM went_on
         ), published AS (
             INSERT INTO publications
                 (stream_id, broadcast_id, key_id, media_server, server_run, client_id, began_at, last_seen_at)
             SELECT stream_id, of_stream.id, key_id, media_server, server_run, client_id, $8, $8
             FROM live JOIN of_stream USING (stream_id)
         ), pictured AS (
             INSERT INTO thumbnails (stream_id, due_at) SELECT stream_id, $8 FROM live
             ON CONFLICT (stream_id) DO UPDATE SET due_at = excluded.due_at
         ), noticed AS (
             INSERT INTO notices (broadcast_id, stream_id, created_at)
             SELECT began.id, stream_id, $8 FROM began JOIN live USING (stream_id) WHERE is_told
         ), updated AS (
             UPDATE streams s SET
                 status = 'live', start_time = of_stream.started_at, end_time = NULL, updated_at = $8,
                 viewer_count = (SELECT count(*) FROM players WHERE players.stream_id = s.id), hls_viewers = 0,
                 followers_told_at = CASE WHEN is_told THEN $8 ELSE followers_told_at END,
                 scheduled_at = CASE WHEN scheduled_at > $8 + interval '1 hour' THEN scheduled_at END
             FROM live JOIN of_stream USING (stream_id) WHERE s.id = live.stream_id
         )
         SELECT stream_id, id AS broadcast_id FROM of_stream",
    )
    .bind::<Array<BigInt>, _>(all.iter().map(|one| one.stream.0).collect::<Vec<_>>())
    .bind::<Array<Nullable<BigInt>>, _>(all.iter().map(|one| one.broadcast.map(|id| id.0)).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(all.iter().map(|one| &*one.encoder.media_server.name).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(all.iter().map(|one| &*one.encoder.media_server.run).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(all.iter().map(|one| &*one.encoder.client_id).collect::<Vec<_>>())
    .bind::<Array<Nullable<BigInt>>, _>(all.iter().map(|one| one.key.map(|id| id.0)).collect::<Vec<_>>())
    .bind::<Array<diesel::sql_types::Bool>, _>(all.iter().map(|one| one.is_told).collect::<Vec<_>>())
    .bind::<Timestamptz, _>(now)
    .load(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (StreamId(row.stream_id), BroadcastId(row.broadcast_id))).collect())
}

/// No encoder of this stream is taken until then.
pub(crate) async fn hold(conn: &mut AsyncPgConnection, id: StreamId, until: DateTime<Utc>) -> QueryResult<()> {
    use crate::store::streams::streams;
    diesel::update(streams::table.find(id.0)).set(streams::refused_until.eq(until)).execute(conn).await?;
    Ok(())
}

/// Streams whose encoder was not heard of since `before`.
pub(crate) async fn find_stale(
    conn: &mut AsyncPgConnection,
    before: DateTime<Utc>,
    most: i64,
) -> QueryResult<Vec<(StreamId, PublicationId)>> {
    let rows: Vec<(i64, i64)> = publications::table
        .filter(publications::ended_at.is_null())
        .filter(publications::last_seen_at.lt(before))
        .order(publications::id)
        .limit(most)
        .select((publications::stream_id, publications::id))
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(|(stream, publication)| (StreamId(stream), PublicationId(publication))).collect())
}

/// An encoder on air, for those who ask its media server about it.
pub(crate) struct OnAir {
    pub(crate) stream_id: StreamId,
    pub(crate) id: PublicationId,
    pub(crate) key_id: Option<KeyId>,
    pub(crate) encoder: Connection,
    pub(crate) began_at: DateTime<Utc>,
}

/// Who is on air: all on the media servers called `servers`, or those of `stream`.
pub(crate) async fn find_on_air(
    conn: &mut AsyncPgConnection,
    servers: &[String],
    stream: Option<StreamId>,
) -> QueryResult<Vec<OnAir>> {
    type Row = (i64, i64, Option<i64>, String, String, String, DateTime<Utc>);
    let mut query = publications::table
        .filter(publications::ended_at.is_null())
        .order(publications::id)
        .select((
            publications::stream_id,
            publications::id,
            publications::key_id,
            publications::media_server,
            publications::server_run,
            publications::client_id,
            publications::began_at,
        ))
        .into_boxed();
    query = match stream {
        Some(id) => query.filter(publications::stream_id.eq(id.0)),
        None => query.filter(publications::media_server.eq_any(servers)),
    };
    let rows: Vec<Row> = query.load(conn).await?;
    let on_air = rows.into_iter().map(|(stream_id, id, key_id, name, run, client_id, began_at)| OnAir {
        stream_id: StreamId(stream_id),
        id: PublicationId(id),
        key_id: key_id.map(KeyId),
        encoder: Connection { media_server: MediaServer { name, run }, client_id },
        began_at,
    });
    Ok(on_air.collect())
}

/// These encoders are there, as far as they were not heard of since `before`.
///
/// What somebody else is changing is left out: a call that it waits for says the same, or more.
pub(crate) async fn still_there(
    conn: &mut AsyncPgConnection,
    ids: &[i64],
    now: DateTime<Utc>,
    before: DateTime<Utc>,
) -> QueryResult<()> {
    statement(
        "UPDATE publications SET last_seen_at = $1 WHERE id IN (
             SELECT id FROM publications WHERE id = ANY ($2) AND ended_at IS NULL AND last_seen_at < $3
             FOR UPDATE SKIP LOCKED
         )",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Array<BigInt>, _>(ids)
    .bind::<Timestamptz, _>(before)
    .execute(conn)
    .await?;
    Ok(())
}

/// What is on air at this media server, as viewers call it.
pub(crate) async fn names_on_air(conn: &mut AsyncPgConnection, media_server: &str) -> QueryResult<HashSet<Uuid>> {
    #[derive(QueryableByName)]
    struct Name {
        #[diesel(sql_type = diesel::sql_types::Uuid)]
        playback_id: Uuid,
    }
    let names: Vec<Name> = statement(
        "SELECT playback_id FROM publications p JOIN streams s ON s.id = p.stream_id
         WHERE p.ended_at IS NULL AND p.media_server = $1",
    )
    .bind::<Text, _>(media_server)
    .load(conn)
    .await?;
    Ok(names.into_iter().map(|name| name.playback_id).collect())
}

/// An encoder that is not on air any more.
pub(crate) struct Ended {
    pub(crate) stream_id: StreamId,
    /// Its key, if that still exists.
    pub(crate) key_id: Option<KeyId>,
    pub(crate) encoder: Connection,
    pub(crate) ended_at: DateTime<Utc>,
}

/// The last publication of each of these connections of a media server, as far as it has ended.
pub(crate) async fn find_ended(
    conn: &mut AsyncPgConnection,
    media_server: &str,
    client_ids: &[String],
) -> QueryResult<Vec<Ended>> {
    type Row = (i64, Option<i64>, String, String, String, Option<DateTime<Utc>>);
    let rows: Vec<Row> = publications::table
        .filter(publications::media_server.eq(media_server))
        .filter(publications::client_id.eq_any(client_ids))
        .distinct_on((publications::server_run, publications::client_id))
        .order((publications::server_run, publications::client_id, publications::id.desc()))
        .select((
            publications::stream_id,
            publications::key_id,
            publications::media_server,
            publications::server_run,
            publications::client_id,
            publications::ended_at,
        ))
        .load(conn)
        .await?;
    let ended = rows.into_iter().filter_map(|(stream_id, key_id, name, run, client_id, ended_at)| {
        Some(Ended {
            stream_id: StreamId(stream_id),
            key_id: key_id.map(KeyId),
            encoder: Connection { media_server: MediaServer { name, run }, client_id },
            ended_at: ended_at?,
        })
    });
    Ok(ended.collect())
}
