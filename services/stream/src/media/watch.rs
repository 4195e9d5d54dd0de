//! Asks media servers, every few seconds, who is there: an encoder that they show is heard of; one that they do not show any
//! more is gone, also when nobody has said so; what they have recorded is known, also when `record_done` was lost.
//!
//! A media server that does not answer tells nothing: then `BROADCAST_STALE_AFTER` decides.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use common::StreamId;
use diesel_async::AsyncConnection as _;
use events::EndReason;
use tokio_util::sync::CancellationToken;

use super::{Address, NoAnswer, Seen};
use crate::App;
use crate::broadcasting::{self, Mode, Report};
use crate::call::{Call, Name, What};
use crate::domain::{Connection, MediaServer, PublicationId};
use crate::error::StreamError;
use crate::machine::Happening;
use crate::store::situations::OnAir;
use crate::store::{players, situations};

/// Who has just begun or left may not be shown as that yet: it counts from so many looks on.
const SETTLES_IN: u32 = 2;
/// Whoever is missing in so many answers in a row is gone.
const MISSING_TWICE: u32 = 2;
/// Recordings are listed with every so many looks.
const LOOKS_A_LIST: u32 = 6;
/// A file that nothing was added to for this long is complete.
const QUIET_FOR: Duration = Duration::from_secs(10);
/// No more recordings are noted in one transaction.
const BATCH: usize = 100;

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    #[error(transparent)]
    Ours(#[from] StreamError),
}

impl From<diesel::result::Error> for Trouble {
    fn from(error: diesel::result::Error) -> Self {
        Self::Ours(error.into())
    }
}

/// Looks after all media servers until `shutdown`.
pub(crate) async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let each = app.media.all.iter().map(|server| look_after(&app, server, &shutdown));
    futures_util::future::join_all(each).await;
}

async fn look_after(app: &App, server: &Address, shutdown: &CancellationToken) {
    let mut memory = Memory::default();
    let mut is_told = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(app.config.media_poll_every) => {}
            () = shutdown.cancelled() => return,
        }
        let name = &server.name;
        match memory.look(app, server).await {
            Ok(()) if is_told => {
                tracing::info!(media_server = name, "the media server tells who is there again");
                is_told = false;
            }
            Err(error) if !is_told => {
                let error = common::problem::chain(&error);
                tracing::warn!(media_server = name, error, "the media server does not tell who is there");
                is_told = true;
            }
            _ => {}
        }
    }
}

/// What one look leaves for the next.
#[derive(Default)]
struct Memory {
    /// Encoders on air that were not shown, and how often in a row.
    missing: HashMap<PublicationId, u32>,
    /// Players that were not shown the last time.
    absent: HashSet<(StreamId, Connection)>,
    /// Recordings that need no look any more.
    done_with: HashSet<String>,
    looks: u32,
}

impl Memory {
    async fn look(&mut self, app: &App, server: &Address) -> Result<(), Trouble> {
        let asked_at = app.clock.now();
        // Asked before, so that nobody counts as missing who came after the answer.
        let players = players::all_at(&mut *connection(app).await?, &server.name).await?;
        let seen = app.media.look(server).await?;

        let on_air =
            situations::find_on_air(&mut *connection(app).await?, std::slice::from_ref(&server.name), None).await?;
        let (there, missing): (Vec<_>, Vec<_>) = on_air.into_iter().partition(|one| seen.publishes(&one.encoder));
        if !there.is_empty() {
            let ids: Vec<i64> = there.iter().map(|one| one.id.0).collect();
            let now = app.clock.now();
            let before = now - app.config.media_poll_every / 2;
            situations::still_there(&mut *connection(app).await?, &ids, now, before).await?;
        }
        self.end_who_is_gone(app, missing, asked_at).await?;
        self.forget_players(app, players, &seen).await?;
        let is_known = |id: &String| there.iter().any(|one| one.encoder.client_id == *id);
        let unknown: Vec<String> = seen.publishers.iter().filter(|id| !is_known(id)).cloned().collect();
        decide_anew(app, server, &seen, unknown, asked_at).await?;

        if self.looks.is_multiple_of(LOOKS_A_LIST) {
            self.note_recordings(app, server).await?;
        }
        self.looks = self.looks.wrapping_add(1);
        Ok(())
    }

    async fn end_who_is_gone(
        &mut self,
        app: &App,
        missing: Vec<OnAir>,
        asked_at: DateTime<Utc>,
    ) -> Result<(), StreamError> {
        let mut still = HashMap::new();
        let mut gone = Vec::new();
        for one in missing.into_iter().filter(|one| one.began_at + settles_in(app) < asked_at) {
            let times = self.missing.get(&one.id).copied().unwrap_or_default() + 1;
            if times < MISSING_TWICE {
                still.insert(one.id, times);
                continue;
            }
            tracing::info!(stream_id = %one.stream_id, "the stream has ended: its media server does not have it any more");
            gone.push((one.stream_id, Happening::Gone { publication: one.id, reason: EndReason::Vanished }));
        }
        if !gone.is_empty() {
            broadcasting::happen(app, &gone).await?;
        }
        self.missing = still;
        Ok(())
    }

    /// Forgets players whose leaving was never told.
    async fn forget_players(
        &mut self,
        app: &App,
        players: Vec<(StreamId, Connection)>,
        seen: &Seen,
    ) -> Result<(), StreamError> {
        let absent: HashSet<_> = players.into_iter().filter(|(_, player)| !seen.plays(player)).collect();
        let gone: Vec<_> = absent.intersection(&self.absent).cloned().collect();
        if !gone.is_empty() {
            let remove = async |conn: &mut chassis::db::Connection| {
                let mut ids: Vec<i64> = gone.iter().map(|(stream, _)| stream.0).collect();
                ids.sort_unstable();
                ids.dedup();
                situations::lock(conn, &[], &[], &ids).await?;
                for (stream, player) in &gone {
                    players::remove(conn, *stream, player).await?;
                }
                players::recount(conn, &ids).await?;
                Ok::<_, StreamError>(())
            };
            connection(app).await?.transaction(remove).await?;
        }
        self.absent = absent.into_iter().filter(|one| !gone.contains(one)).collect();
        Ok(())
    }

    async fn note_recordings(&mut self, app: &App, server: &Address) -> Result<(), Trouble> {
        let mut all = app.media.recordings(server).await?;
        let listed: HashSet<&String> = all.iter().map(|one| &one.path).collect();
        self.done_with.retain(|path| listed.contains(path));
        // What is on air is being recorded, into the newest file of that name.
        let on_air = situations::names_on_air(&mut *connection(app).await?, &server.name).await?;
        let mut newest: HashMap<_, i64> = HashMap::new();
        for one in &all {
            let begun = newest.entry(one.playback_id).or_insert(one.begun);
            *begun = one.begun.max(*begun);
        }
        all.retain(|one| {
            let is_recording = on_air.contains(&one.playback_id) && newest.get(&one.playback_id) == Some(&one.begun);
            one.quiet_for >= QUIET_FOR && !is_recording && !self.done_with.contains(&one.path)
        });
        for some in all.chunks(BATCH) {
            let reports: Vec<_> = some
                .iter()
                .map(|one| Report {
                    media_server: MediaServer { name: server.name.clone(), run: String::new() },
                    call: Call {
                        client_id: String::new(),
                        what: What::Recorded { name: Name::Public(one.playback_id), path: one.path.clone() },
                    },
                })
                .collect();
            broadcasting::settle(app, &reports, Mode::ForGood).await?;
            self.done_with.extend(some.iter().map(|one| one.path.clone()));
        }
        Ok(())
    }
}

/// Publishers that are shown and not on air: those that were seen as gone by mistake are back on air, and those that were
/// ended here and have not noticed are told again.
async fn decide_anew(
    app: &App,
    server: &Address,
    seen: &Seen,
    publishers: Vec<String>,
    asked_at: DateTime<Utc>,
) -> Result<(), StreamError> {
    if publishers.is_empty() {
        return Ok(());
    }
    let ended = situations::find_ended(&mut *connection(app).await?, &server.name, &publishers).await?;
    for one in ended {
        if !seen.publishes(&one.encoder) || one.ended_at + settles_in(app) > asked_at {
            continue;
        }
        let is_refused = match one.key_id {
            Some(key) => {
                let heartbeat = Happening::Heartbeat { caller: one.encoder.clone(), key: Some(key) };
                let outcomes = broadcasting::happen(app, &[(one.stream_id, heartbeat)]).await?;
                outcomes.iter().any(|outcome| outcome.answer.is_err())
            }
            // Its key was revoked.
            None => true,
        };
        if is_refused {
            app.media.send_away(&one.encoder).await;
        }
    }
    Ok(())
}

fn settles_in(app: &App) -> Duration {
    app.config.media_poll_every * SETTLES_IN
}

async fn connection(app: &App) -> Result<chassis::db::Connection, StreamError> {
    Ok(app.pool.get().await?)
}
