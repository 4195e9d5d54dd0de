//! What follows from a callback: who is on air, and since when.
//!
//! One encoder is on air per stream at a time, known by its media server and connection. Only its own connection
//! ends its broadcast: `done` is sent for players and for refused second publishers too, under the same name.

use chrono::{DateTime, Utc};
use common::BroadcastId;
use diesel::QueryResult;
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use events::{EndReason, RecordingReady, StreamEnded, StreamWentLive};
use uuid::Uuid;

use crate::App;
use crate::callback::Callback;
use crate::domain::{Broadcast, Encoder, MediaServer, Stream, StreamKey};
use crate::error::StreamError;
use crate::store::{broadcasts, recordings, streams, viewers};

/// What the media server is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Go on.
    Fine,
    /// Hand the broadcast on to viewers under this name.
    PublishAs(Uuid),
}

/// What was decided: the answer, and the verdict in words for the log.
struct Decision {
    answer: Answer,
    verdict: &'static str,
    /// Whether cached answers are wrong now. The number of viewers may be as old as a cached answer: it changes with
    /// every viewer, and dropping all answers each time would leave no cache where it is needed most.
    changed: bool,
}

impl Decision {
    fn changed(verdict: &'static str) -> Self {
        Self { answer: Answer::Fine, verdict, changed: true }
    }

    fn unchanged(verdict: &'static str) -> Self {
        Self { answer: Answer::Fine, verdict, changed: false }
    }
}

/// Does what follows from `callback`, as `media_server` sent it.
///
/// A repeat changes nothing more, except of `Publish`: that its connection publishes again means that it had stopped.
///
/// An error is a refusal: the media server then disconnects the encoder or player.
pub(crate) async fn react(app: &App, media_server: &MediaServer, callback: Callback) -> Result<Answer, StreamError> {
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    let is_heartbeat = matches!(callback, Callback::UpdatePublish { .. });
    let encoder = |client_id| Encoder { media_server: media_server.clone(), client_id };
    let decision = conn
        .transaction(async |conn| match callback {
            Callback::Publish { key, client } => publish(app, conn, &StreamKey::of(&key), encoder(client), now).await,
            Callback::UpdatePublish { key, client } => {
                heartbeat(conn, &StreamKey::of(&key), encoder(client), now).await
            }
            Callback::Done { name, client } => done(conn, &name, encoder(client), now).await,
            Callback::Play { name, client } => play(conn, &name, encoder(client)).await,
            Callback::RecordDone { name, path } => recorded(conn, &name, &media_server.name, path, now).await,
        })
        .await;
    // Dropped also when the transaction failed: its commit may have arrived all the same.
    if decision.as_ref().map_or(true, |decision| decision.changed) {
        app.cache.forget().await;
    }
    let decision = decision?;
    let (media_server, verdict) = (&media_server.name, decision.verdict);
    match is_heartbeat {
        // One every few seconds from each encoder.
        true => tracing::debug!(media_server, verdict, "media server's callback"),
        false => tracing::info!(media_server, verdict, "media server's callback"),
    }
    Ok(decision.answer)
}

async fn publish(
    app: &App,
    conn: &mut AsyncPgConnection,
    key: &StreamKey,
    encoder: Encoder,
    now: DateTime<Utc>,
) -> Result<Decision, StreamError> {
    let stream = streams::lock_by_key(conn, key).await?.ok_or(StreamError::WrongKey)?;
    if let Some(current) = broadcasts::find_live(conn, stream.id).await? {
        let (old, new) = (&current.encoder.media_server, &encoder.media_server);
        let was_restarted = old.name == new.name && old.run != new.run;
        let reason = if current.encoder == encoder {
            // The same connection publishes again: its `done` got lost.
            EndReason::Replaced
        } else if was_restarted || current.is_stale(now, app.config.stale_after) {
            EndReason::Stale
        } else {
            return Err(StreamError::AlreadyLive(stream.id));
        };
        end(conn, &stream, &current, reason, now).await?;
    }
    begin(conn, &stream, &encoder, now).await?;
    let answer = Answer::PublishAs(stream.playback_id);
    Ok(Decision { answer, verdict: "the stream is live", changed: true })
}

async fn heartbeat(
    conn: &mut AsyncPgConnection,
    key: &StreamKey,
    encoder: Encoder,
    now: DateTime<Utc>,
) -> Result<Decision, StreamError> {
    // A key that is not known any more ends the broadcast: this answer is what disconnects its encoder.
    let stream = streams::lock_by_key(conn, key).await?.ok_or(StreamError::WrongKey)?;
    let current = broadcasts::find_live(conn, stream.id).await?;
    if let Some(current) = &current
        && current.encoder == encoder
    {
        broadcasts::touch(conn, current.id, now).await?;
        return Ok(Decision::unchanged("the encoder is still there"));
    }
    let last = broadcasts::find_last_of(conn, stream.id, &encoder).await?;
    match (current, last.and_then(|broadcast| broadcast.end)) {
        // We thought it gone because nobody could report to us; it was there all the time.
        (None, Some((_, EndReason::Stale))) => {
            begin(conn, &stream, &encoder, now).await?;
            Ok(Decision::changed("the stream is live again, its encoder had never left"))
        }
        // It may be reported before its `publish` is answered.
        (_, None) => Ok(Decision::unchanged("this encoder has not been accepted yet")),
        (_, Some(_)) => Err(StreamError::BroadcastEnded(stream.id)),
    }
}

async fn done(
    conn: &mut AsyncPgConnection,
    name: &str,
    connection: Encoder,
    now: DateTime<Utc>,
) -> Result<Decision, StreamError> {
    if let Some(stream) = streams::lock_by_key(conn, &StreamKey::of(name)).await? {
        return match broadcasts::find_live(conn, stream.id).await? {
            Some(current) if current.encoder == connection => {
                end(conn, &stream, &current, EndReason::Left, now).await?;
                Ok(Decision::changed("the encoder left, the stream has ended"))
            }
            Some(_) => Ok(Decision::unchanged("ignored: another encoder is on air")),
            None => Ok(Decision::unchanged("ignored: the stream has ended already")),
        };
    }
    let Some(stream) = lock_by_playback_name(conn, name).await? else {
        return Ok(Decision::unchanged("ignored: no stream has this name"));
    };
    match broadcasts::find_live(conn, stream.id).await? {
        Some(current) if viewers::remove(conn, current.id, &connection).await? => {
            streams::count_viewers(conn, stream.id, current.id).await?;
            Ok(Decision::unchanged("a viewer left"))
        }
        _ => Ok(Decision::unchanged("ignored: neither the encoder nor a viewer we know")),
    }
}

async fn play(conn: &mut AsyncPgConnection, name: &str, player: Encoder) -> Result<Decision, StreamError> {
    let stream = lock_by_playback_name(conn, name).await?.ok_or(StreamError::NoSuchPlayback)?;
    let Some(current) = broadcasts::find_live(conn, stream.id).await? else {
        return Ok(Decision::unchanged("a viewer waits for the stream to begin"));
    };
    viewers::put(conn, current.id, &player).await?;
    streams::count_viewers(conn, stream.id, current.id).await?;
    Ok(Decision::unchanged("a viewer came"))
}

async fn recorded(
    conn: &mut AsyncPgConnection,
    name: &str,
    media_server: &str,
    path: String,
    now: DateTime<Utc>,
) -> Result<Decision, StreamError> {
    let Some(stream) = lock_by_playback_name(conn, name).await? else {
        return Ok(Decision::unchanged("ignored: a recording of no stream of ours"));
    };
    // The file's name tells when it was begun. A broadcast may follow before the former one's file is reported.
    let begun = recording_begun(&path).unwrap_or(now);
    let found = match broadcasts::find_at(conn, stream.id, begun).await? {
        // The media server's clock may be behind ours.
        None => broadcasts::find_at(conn, stream.id, now).await?,
        found => found,
    };
    let Some(broadcast_id) = found else {
        return Ok(Decision::unchanged("ignored: a recording without a broadcast"));
    };
    if !recordings::insert(conn, broadcast_id, media_server, &path, now).await? {
        return Ok(Decision::unchanged("ignored: this recording was reported before"));
    }
    let ready = RecordingReady {
        stream_id: stream.id,
        broadcast_id,
        user_id: stream.user_id,
        playback_id: stream.playback_id,
        media_server: media_server.to_owned(),
        path,
        ready_at: now,
    };
    outbox::enqueue(conn, &ready, now).await?;
    Ok(Decision::unchanged("a recording is ready"))
}

/// When a file that nginx-rtmp names `<name>-<seconds since 1970>.flv` was begun (`record_unique on`), to the end of
/// that second.
fn recording_begun(path: &str) -> Option<DateTime<Utc>> {
    let stem = path.rsplit('/').next()?.strip_suffix(".flv")?;
    let seconds: i64 = stem.rsplit_once('-')?.1.parse().ok()?;
    DateTime::from_timestamp(seconds.checked_add(1)?, 0)
}

/// The stream that is played under `name`, held until the transaction ends.
async fn lock_by_playback_name(conn: &mut AsyncPgConnection, name: &str) -> Result<Option<Stream>, StreamError> {
    match name.parse() {
        Ok(playback_id) => Ok(streams::lock_by_playback(conn, playback_id).await?),
        Err(_not_one) => Ok(None),
    }
}

async fn begin(
    conn: &mut AsyncPgConnection,
    stream: &Stream,
    encoder: &Encoder,
    now: DateTime<Utc>,
) -> Result<BroadcastId, StreamError> {
    let broadcast_id = broadcasts::insert(conn, stream.id, encoder, now).await?;
    streams::set_live(conn, stream.id, now).await?;
    let live = StreamWentLive {
        stream_id: stream.id,
        broadcast_id,
        user_id: stream.user_id,
        playback_id: stream.playback_id,
        started_at: now,
    };
    outbox::enqueue(conn, &live, now).await?;
    Ok(broadcast_id)
}

/// Ends `broadcast` and with it the stream. The caller holds the stream's row.
pub(crate) async fn end(
    conn: &mut AsyncPgConnection,
    stream: &Stream,
    broadcast: &Broadcast,
    reason: EndReason,
    now: DateTime<Utc>,
) -> QueryResult<()> {
    // Clocks of instances differ a little; an end is never before its beginning.
    let ended_at = now.max(broadcast.started_at);
    broadcasts::end(conn, broadcast.id, reason, ended_at).await?;
    viewers::remove_all(conn, broadcast.id).await?;
    streams::set_ended(conn, stream.id, ended_at).await?;
    let ended = StreamEnded {
        stream_id: stream.id,
        broadcast_id: broadcast.id,
        user_id: stream.user_id,
        started_at: broadcast.started_at,
        ended_at,
        reason,
    };
    outbox::enqueue(conn, &ended, now).await?;
    Ok(())
}

/// Ends every broadcast that was not heard of for `BROADCAST_STALE_AFTER`.
pub(crate) async fn end_stale(app: &App) -> Result<(), StreamError> {
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    for stream_id in broadcasts::find_stale(&mut conn, now - app.config.stale_after).await? {
        let ended = conn
            .transaction(async |conn| {
                let Some(stream) = streams::lock(conn, stream_id).await? else { return Ok(false) };
                // It may have been heard of, or have ended, since we looked.
                match broadcasts::find_live(conn, stream_id).await? {
                    Some(current) if current.is_stale(now, app.config.stale_after) => {
                        end(conn, &stream, &current, EndReason::Stale, now).await?;
                        Ok::<_, StreamError>(true)
                    }
                    _ => Ok(false),
                }
            })
            .await?;
        if ended {
            app.cache.forget().await;
            tracing::info!(%stream_id, "the stream has ended: its media server does not report it any more");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::recording_begun;

    #[test]
    fn a_recordings_name_tells_when_it_was_begun() {
        let begun = recording_begun("/rec/0190c2e0-7e1a-7c3b-9d1e-2f3a4b5c6d7e-1795226177.flv").unwrap();
        assert_eq!(begun.timestamp(), 1_795_226_178);
        for other in
            ["", "/rec/name.flv", "/rec/name-x.flv", "/rec/name-1795226177.mp4", "/rec/n-9223372036854775807.flv"]
        {
            assert_eq!(recording_begun(other), None, "{other}");
        }
    }
}
