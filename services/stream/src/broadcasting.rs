//! Carries out what the rules of going live say ([`crate::machine`]): for media servers, for owners, for silence.
//!
//! Calls of media servers that come while a transaction runs are settled together by the next one: hundreds of encoders
//! cost a few statements and one commit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use actix_web::ResponseError as _;
use actix_web::http::StatusCode;
use chrono::{DateTime, Utc};
use common::{BroadcastId, Problem, StreamId};
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use events::{EndReason, RecordingReady, StreamDeleted, StreamEnded, StreamWentLive};
use futures_util::try_join;
use outbox::Pending;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::App;
use crate::audience::viewers_item;
use crate::call::{Call, Name, What};
use crate::domain::{Connection, KeyId, MediaServer, Stream, Visibility};
use crate::error::StreamError;
use crate::heartbeats;
use crate::machine::{self, Answer, Change, Happening, Refusal, Rules, Situation};
use crate::store::situations::{self, GoesLive, TakenOff};
use crate::store::{broadcasts, feed, keys, players, recordings, streams};

/// No more calls than these are settled in one transaction.
const BATCH: usize = 100;
/// No more calls than these wait for their transaction: a few seconds of work.
const MOST_WAITING: usize = 2000;
/// Transactions side by side: while one commits the next is at work.
const WORKERS: usize = 2;
/// No more silent encoders than these are looked at in one go.
const MOST_SILENT: i64 = 100;
/// Followers are told of one broadcast in this time.
const FOLLOWERS_TOLD_EVERY: Duration = Duration::from_secs(60 * 60);

/// A call, and who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) media_server: MediaServer,
    pub(crate) call: Call,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) answer: Result<Answer, Refusal>,
    /// What was decided and why, in words, without secrets.
    pub(crate) verdict: String,
    /// Whose call it was, as far as that is known.
    pub(crate) stream_id: Option<StreamId>,
    pub(crate) key_id: Option<KeyId>,
}

/// Takes calls to the workers that settle them.
#[derive(Clone)]
pub(crate) struct Calls {
    /// Most of them wait for no transaction, so they have a queue of their own.
    heartbeats: mpsc::Sender<Waiting>,
    others: mpsc::Sender<Waiting>,
}

/// The other end of [`Calls`].
pub(crate) struct Queues {
    heartbeats: mpsc::Receiver<Waiting>,
    others: mpsc::Receiver<Waiting>,
}

pub(crate) struct Waiting {
    report: Report,
    settled: oneshot::Sender<Result<Outcome, StreamError>>,
}

impl Calls {
    /// Empty queues, and their other end, for [`work`].
    pub(crate) fn new() -> (Self, Queues) {
        let ((heartbeats, of_heartbeats), (others, of_others)) =
            (mpsc::channel(MOST_WAITING), mpsc::channel(MOST_WAITING));
        (Self { heartbeats, others }, Queues { heartbeats: of_heartbeats, others: of_others })
    }

    /// Settles a call. A repeat changes nothing more.
    pub(crate) async fn settle(&self, report: Report) -> Result<Outcome, StreamError> {
        let (settled, outcome) = oneshot::channel();
        let is_heartbeat = matches!(report.call.what, What::Heartbeat { .. });
        let queue = if is_heartbeat { &self.heartbeats } else { &self.others };
        queue.try_send(Waiting { report, settled }).map_err(|_full| StreamError::Busy)?;
        outcome.await.unwrap_or(Err(StreamError::Busy))
    }
}

/// Settles what waits, until `shutdown`.
pub(crate) async fn work(app: Arc<App>, queues: Queues, shutdown: CancellationToken) {
    let Queues { mut heartbeats, others } = queues;
    let others = tokio::sync::Mutex::new(others);
    let worker = async || {
        loop {
            let mut batch = Vec::new();
            let received = async { others.lock().await.recv_many(&mut batch, BATCH).await };
            tokio::select! {
                count = received => if count == 0 { return },
                () = shutdown.cancelled() => return,
            }
            settle_all(&app, batch).await;
        }
    };
    let heartbeats = async {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                count = heartbeats.recv_many(&mut batch, BATCH) => if count == 0 { return },
                () = shutdown.cancelled() => return,
            }
            answer_heartbeats(&app, batch).await;
        }
    };
    tokio::join!(heartbeats, futures_util::future::join_all([(); WORKERS].map(|()| worker())));
}

async fn settle_all(app: &App, batch: Vec<Waiting>) {
    let (reports, settled): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.report, one.settled)).unzip();
    match settle(app, &reports, Mode::ForGood).await {
        Ok(outcomes) => {
            for (outcome, settled) in outcomes.into_iter().zip(settled) {
                let _ = settled.send(Ok(outcome)); // Whoever asked may be gone.
            }
        }
        Err(error) => {
            let problem = Problem::from(error);
            if problem.status_code() == StatusCode::SERVICE_UNAVAILABLE {
                tracing::warn!(
                    calls = settled.len(),
                    "calls of media servers could not be settled: the database is away"
                );
                for settled in settled {
                    let _ = settled.send(Err(StreamError::Away));
                }
                return;
            }
            // Each by itself: one that cannot be settled takes no other with it.
            for (report, settled) in reports.into_iter().zip(settled) {
                let outcome = settle(app, &[report], Mode::ForGood).await;
                let _ = settled.send(outcome.and_then(|mut all| all.pop().ok_or(StreamError::Busy)));
            }
        }
    }
}

/// Answers those that need no transaction, and hands the others on.
async fn answer_heartbeats(app: &App, batch: Vec<Waiting>) {
    let now = app.clock.now();
    let reports = batch.iter().map(|one| &one.report);
    let answers = async { heartbeats::answer(&mut *app.pool.get().await?, reports).await }.await;
    // What failed fails again in a transaction, and is answered there.
    let answers = answers.unwrap_or_else(|_error| vec![None; batch.len()]);
    for (one, answer) in batch.into_iter().zip(answers) {
        match answer {
            Some((outcome, publication)) => {
                app.heard.note(publication, now);
                let _ = one.settled.send(Ok(outcome)); // Whoever asked may be gone.
            }
            None => {
                if let Err(full) = app.calls.others.try_send(one) {
                    let _ = full.into_inner().settled.send(Err(StreamError::Busy));
                }
            }
        }
    }
}

/// Whether what was decided is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    ForGood,
    /// Nothing is changed: only what would be is said.
    Dry,
}

/// Settles `reports`, in their order as far as they are of the same stream.
pub(crate) async fn settle(app: &App, reports: &[Report], mode: Mode) -> Result<Vec<Outcome>, StreamError> {
    app.heard.flush(&app.pool).await?;
    let mut conn = app.pool.get().await?;
    let result = conn
        .transaction(async |conn| {
            let mut effects = Effects::new(app.clock.now(), app.config.rules());
            let outcomes = settle_within(conn, &mut effects, reports, mode).await?;
            effects.tell(conn).await?;
            Ok::<_, StreamError>((outcomes, effects.changed))
        })
        .await;
    forget_changed(app, &result).await;
    Ok(result?.0)
}

/// The same, in a transaction of the caller's, who ends it with [`Effects::tell`].
pub(crate) async fn settle_within(
    conn: &mut AsyncPgConnection,
    effects: &mut Effects,
    reports: &[Report],
    mode: Mode,
) -> Result<Vec<Outcome>, StreamError> {
    let subjects = Subjects::find(conn, reports).await?;
    let mut outcomes: Vec<Option<Outcome>> = vec![None; reports.len()];
    // A stream's first calls, then each one's second, and so on: a call is decided by what the one before has left.
    let mut rounds: BTreeMap<usize, Vec<(usize, Asked)>> = BTreeMap::new();
    let mut seen: HashMap<StreamId, usize> = HashMap::new();
    for (index, report) in reports.iter().enumerate() {
        match subjects.of(&report.call.what) {
            Ok((stream, key_id)) => {
                let round = seen.entry(stream.id).or_default();
                rounds.entry(*round).or_default().push((index, Asked::by(report, stream.clone(), key_id)));
                *round += 1;
            }
            Err(unknown) => outcomes[index] = Some(unknown),
        }
    }
    for asked in rounds.into_values() {
        let (indexes, asked): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        for (index, outcome) in indexes.into_iter().zip(round(conn, effects, asked, mode).await?) {
            outcomes[index] = Some(outcome);
        }
    }
    // Each was either about no stream or in a round.
    Ok(outcomes.into_iter().flatten().collect())
}

/// Something happens to streams otherwise than by a call: an order, or silence. Returns what came of it, for each stream
/// that exists.
pub(crate) async fn happen(app: &App, all: &[(StreamId, Happening)]) -> Result<Vec<Outcome>, StreamError> {
    app.heard.flush(&app.pool).await?;
    let mut conn = app.pool.get().await?;
    let result = conn
        .transaction(async |conn| {
            let mut effects = Effects::new(app.clock.now(), app.config.rules());
            let outcomes = happen_within(conn, &mut effects, all).await?;
            effects.tell(conn).await?;
            Ok::<_, StreamError>((outcomes, effects.changed))
        })
        .await;
    forget_changed(app, &result).await;
    Ok(result?.0)
}

/// The same, in a transaction of the caller's, who ends it with [`Effects::tell`].
pub(crate) async fn happen_within(
    conn: &mut AsyncPgConnection,
    effects: &mut Effects,
    all: &[(StreamId, Happening)],
) -> Result<Vec<Outcome>, StreamError> {
    let ids: Vec<i64> = all.iter().map(|(id, _)| id.0).collect();
    let streams = situations::lock(conn, &[], &[], &ids).await?;
    let asked = all.iter().filter_map(|(id, happening)| {
        let stream = streams.iter().find(|stream| stream.id == *id)?.clone();
        Some(Asked { stream, key_id: None, to_do: ToDo::Decide(happening.clone()) })
    });
    round(conn, effects, asked.collect(), Mode::ForGood).await
}

/// Cached answers that are wrong now are dropped.
///
/// The number of viewers may be as old as a cached answer: it changes with every viewer, and dropping all answers each
/// time would leave no cache where it is needed most.
async fn forget_changed<T>(app: &App, result: &Result<(T, Vec<StreamId>), StreamError>) {
    match result {
        Ok((_, changed)) if changed.is_empty() => {}
        Ok((_, changed)) => app.cache.forget(changed).await,
        // Its commit may have arrived all the same.
        Err(_) => app.cache.forget_all().await,
    }
}

/// The streams that calls are about.
struct Subjects {
    by_id: HashMap<StreamId, Stream>,
    by_playback: HashMap<Uuid, StreamId>,
    by_key: HashMap<Vec<u8>, (KeyId, StreamId)>,
    by_key_id: HashMap<KeyId, StreamId>,
}

impl Subjects {
    async fn find(conn: &mut AsyncPgConnection, reports: &[Report]) -> Result<Self, StreamError> {
        let mut hashes = Vec::new();
        let mut playback_ids = Vec::new();
        let mut kept = Vec::new();
        for report in reports {
            match report.call.what.name() {
                Name::Key(key) => hashes.push(key.hash()),
                Name::Public(playback_id) => playback_ids.push(*playback_id),
                Name::Kept(key) => kept.extend(key),
            }
        }
        let by_key_id = if kept.is_empty() { HashMap::new() } else { keys::streams_of(conn, &kept).await? };
        let of_kept: Vec<i64> = by_key_id.values().map(|id| id.0).collect();
        let locked = situations::lock(conn, &hashes, &playback_ids, &of_kept).await?;
        let by_key = if hashes.is_empty() { HashMap::new() } else { situations::find_keys(conn, &hashes).await? };
        let by_playback = locked.iter().map(|stream| (stream.playback_id, stream.id)).collect();
        let by_id = locked.into_iter().map(|stream| (stream.id, stream)).collect();
        Ok(Self { by_id, by_playback, by_key, by_key_id })
    }

    /// Which stream a call is about, and with which key; or what becomes of a call about none.
    fn of(&self, what: &What) -> Result<(&Stream, Option<KeyId>), Outcome> {
        let found = match (what, what.name()) {
            // What everybody knows lets nobody publish.
            (What::Publish { .. }, Name::Public(_)) => None,
            (_, Name::Key(key)) => self.by_key.get(&key.hash()).map(|(key, stream)| (*stream, Some(*key))),
            (_, Name::Public(playback_id)) => self.by_playback.get(playback_id).map(|stream| (*stream, None)),
            (_, Name::Kept(key)) => key.and_then(|key| Some((*self.by_key_id.get(&key)?, Some(key)))),
        };
        let found = found.and_then(|(stream, key)| Some((self.by_id.get(&stream)?, key)));
        found.ok_or_else(|| {
            let (answer, verdict) = match what {
                What::Publish { .. } => (Err(Refusal::WrongKey), "refused: no stream has this key"),
                // This answer is what disconnects an encoder whose key was revoked.
                What::Heartbeat { .. } => (Err(Refusal::WrongKey), "sent away: no stream has this key any more"),
                What::Play { .. } | What::MayPlay { .. } => {
                    (Err(Refusal::NoSuchPlayback), "refused: nothing is played under this name")
                }
                What::HandOn { .. } => (Err(Refusal::NoSuchPlayback), "refused: no stream has this name"),
                What::Confirm { .. } | What::Leave { .. } => (Ok(Answer::Fine), "ignored: no stream has this name"),
                What::Recorded { .. } => (Ok(Answer::Fine), "ignored: a recording of no stream of ours"),
            };
            Outcome { answer, verdict: verdict.to_owned(), stream_id: None, key_id: None }
        })
    }
}

/// One thing to be settled.
struct Asked {
    stream: Stream,
    key_id: Option<KeyId>,
    to_do: ToDo,
}

enum ToDo {
    Decide(Happening),
    /// A file of this media server is to be noted.
    Keep {
        media_server: String,
        path: String,
    },
}

impl Asked {
    fn by(report: &Report, stream: Stream, key_id: Option<KeyId>) -> Self {
        let caller = Connection { media_server: report.media_server.clone(), client_id: report.call.client_id.clone() };
        let happening = match (&report.call.what, key_id) {
            (What::Recorded { path, .. }, _) => {
                let to_do = ToDo::Keep { media_server: caller.media_server.name, path: path.clone() };
                return Self { stream, key_id, to_do };
            }
            (What::Publish { under, .. }, Some(key)) => {
                Happening::Publish { caller: caller.clone(), key, under: under.clone() }
            }
            (What::Publish { .. } | What::Heartbeat { .. }, key) => {
                Happening::Heartbeat { caller: caller.clone(), key }
            }
            (What::Confirm { .. }, _) => Happening::Confirm { caller: caller.clone() },
            (What::Leave { .. }, _) => Happening::Leave { caller: caller.clone() },
            (What::Play { .. }, _) => Happening::Play { caller: caller.clone() },
            (What::MayPlay { .. }, _) => Happening::MayPlay,
            (What::HandOn { .. }, _) => Happening::HandOn,
        };
        Self { stream, key_id, to_do: ToDo::Decide(happening) }
    }
}

impl Asked {
    /// Whether the connection published or played before is asked of those that say that they do, or that they do not any more.
    fn whose_past_counts(&self) -> Option<&Connection> {
        match &self.to_do {
            ToDo::Decide(
                Happening::Heartbeat { caller, .. } | Happening::Confirm { caller } | Happening::Leave { caller },
            ) => Some(caller),
            _ => None,
        }
    }
}

/// Settles one thing for each of several streams.
async fn round(
    conn: &mut AsyncPgConnection,
    effects: &mut Effects,
    asked: Vec<Asked>,
    mode: Mode,
) -> Result<Vec<Outcome>, StreamError> {
    let streams = asked.iter().map(|one| (one.stream.clone(), one.whose_past_counts().cloned())).collect();
    let known = situations::load(conn, streams).await?;
    let mut outcomes = Vec::with_capacity(asked.len());
    let mut changes = Vec::new();
    for (one, situation) in asked.iter().zip(&known) {
        let (answer, verdict) = match &one.to_do {
            ToDo::Decide(happening) => {
                let step = machine::decide(situation, happening, effects.now, effects.rules);
                changes.extend(step.changes.into_iter().map(|change| (situation, change)));
                (step.answer, step.verdict)
            }
            ToDo::Keep { media_server, path } => {
                (Ok(Answer::Fine), keep(conn, effects, &one.stream, media_server, path, mode).await?.to_owned())
            }
        };
        outcomes.push(Outcome { answer, verdict, stream_id: Some(one.stream.id), key_id: one.key_id });
    }
    if mode == Mode::ForGood {
        effects.apply(conn, &changes).await?;
    }
    Ok(outcomes)
}

/// Notes a recorded file, once.
async fn keep(
    conn: &mut AsyncPgConnection,
    effects: &mut Effects,
    stream: &Stream,
    media_server: &str,
    path: &str,
    mode: Mode,
) -> Result<&'static str, StreamError> {
    let now = effects.now;
    // The file's name tells when it was begun. A broadcast may follow before the former one's file is reported.
    let begun = recording_begun(path).unwrap_or(now);
    let found = match broadcasts::find_at(conn, stream.id, begun).await? {
        // The media server's clock may be behind ours.
        None => broadcasts::find_at(conn, stream.id, now).await?,
        found => found,
    };
    let Some(broadcast_id) = found else {
        return Ok("ignored: a recording without a broadcast");
    };
    if mode == Mode::Dry {
        let is_known = recordings::is_known(conn, media_server, path).await?;
        return Ok(if is_known { "ignored: this recording was reported before" } else { "a recording is ready" });
    }
    if !recordings::insert(conn, broadcast_id, media_server, path, now).await? {
        return Ok("ignored: this recording was reported before");
    }
    effects.events.push(Pending::of(&RecordingReady {
        stream_id: stream.id,
        broadcast_id,
        user_id: stream.user_id,
        playback_id: stream.playback_id,
        media_server: media_server.to_owned(),
        path: path.to_owned(),
        ready_at: now,
    })?);
    Ok("a recording is ready")
}

/// When a file that nginx-rtmp names `<name>-<seconds since 1970>.flv` was begun (`record_unique on`), to the end of
/// that second.
fn recording_begun(path: &str) -> Option<DateTime<Utc>> {
    let stem = path.rsplit('/').next()?.strip_suffix(".flv")?;
    let seconds: i64 = stem.rsplit_once('-')?.1.parse().ok()?;
    DateTime::from_timestamp(seconds.checked_add(1)?, 0)
}

/// What a transaction changes besides the situation itself: what others are told of it, at its end.
pub(crate) struct Effects {
    now: DateTime<Utc>,
    rules: Rules,
    events: Vec<Pending>,
    feed: Vec<feed::Item>,
    /// Streams that look otherwise now.
    pub(crate) changed: Vec<StreamId>,
}

impl Effects {
    pub(crate) fn new(now: DateTime<Utc>, rules: Rules) -> Self {
        Self { now, rules, events: Vec::new(), feed: Vec::new(), changed: Vec::new() }
    }

    /// Tells of everything. The last thing in a transaction.
    pub(crate) async fn tell(&mut self, conn: &mut AsyncPgConnection) -> Result<(), StreamError> {
        let conn = &*conn;
        try_join!(outbox::enqueue_all(conn, &self.events, self.now), feed::tell(conn, &self.feed, self.now))?;
        Ok(())
    }

    /// Carries out `changes`: at most one of each kind a stream.
    async fn apply(
        &mut self,
        conn: &mut AsyncPgConnection,
        changes: &[(&Situation, Change)],
    ) -> Result<(), StreamError> {
        let now = self.now;
        let mut heard = Vec::new();
        let mut used = Vec::new();
        let mut taken_off = Vec::new();
        let (mut closed, mut closed_of) = (Vec::new(), Vec::new());
        let mut live = Vec::new();
        let mut came = Vec::new();
        let mut counted = Vec::new();
        for (Situation { stream, .. }, change) in changes {
            match change {
                Change::Heard(id) => heard.push(id.0),
                Change::Used(id) => used.push(id.0),
                Change::Rename(id, client_id) => situations::rename(conn, *id, client_id).await?,
                Change::TakeOff { publication, broadcast, off_air } => {
                    self.changed.push(stream.id);
                    taken_off.push(TakenOff {
                        stream: stream.id,
                        publication: *publication,
                        broadcast: *broadcast,
                        off_air: *off_air,
                    });
                }
                Change::Close { broadcast, started_at, off_air } => {
                    closed.push(broadcast.0);
                    closed_of.push(stream.id.0);
                    self.ended(stream, *broadcast, *started_at, off_air.since, off_air.reason)?;
                }
                Change::Begin { encoder, key } => {
                    let every = FOLLOWERS_TOLD_EVERY;
                    let is_told = stream.visibility == Visibility::Public
                        && stream.followers_told_at.is_none_or(|told_at| told_at + every <= now);
                    live.push(GoesLive { stream: stream.id, broadcast: None, encoder, key: *key, is_told });
                }
                Change::GoOn { broadcast, encoder, key } => {
                    let broadcast = Some(*broadcast);
                    live.push(GoesLive { stream: stream.id, broadcast, encoder, key: *key, is_told: false });
                }
                Change::Hold { until } => situations::hold(conn, stream.id, *until).await?,
                Change::PlayerCame(player) => {
                    came.push((stream.id, player));
                    counted.push(stream.id.0);
                }
                Change::PlayerLeft(player) => {
                    players::remove(conn, stream.id, player).await?;
                    counted.push(stream.id.0);
                }
            }
        }
        if !heard.is_empty() {
            situations::heard(conn, &heard, now).await?;
        }
        if !used.is_empty() {
            keys::used(conn, &used, now).await?;
        }
        if !taken_off.is_empty() {
            situations::take_off(conn, &taken_off, now).await?;
        }
        if !closed.is_empty() {
            situations::close(conn, &closed, &closed_of, now).await?;
        }
        if !live.is_empty() {
            let began = situations::go_live(conn, &live, now).await?;
            for (Situation { stream, .. }, change) in changes {
                self.went_live(stream, change, &began)?;
            }
        }
        if !came.is_empty() {
            players::put(conn, &came).await?;
        }
        if !counted.is_empty() {
            let changed = players::recount(conn, &counted).await?;
            self.feed.extend(changed.iter().map(|one| viewers_item(StreamId(one.stream_id), one.viewers)));
        }
        Ok(())
    }

    fn went_live(
        &mut self,
        stream: &Stream,
        change: &Change,
        broadcasts: &HashMap<StreamId, BroadcastId>,
    ) -> Result<(), StreamError> {
        if !matches!(change, Change::Begin { .. } | Change::GoOn { .. }) {
            return Ok(());
        }
        self.changed.push(stream.id);
        let (Change::Begin { .. }, Some(broadcast_id)) = (change, broadcasts.get(&stream.id)) else { return Ok(()) };
        self.events.push(Pending::of(&StreamWentLive {
            stream_id: stream.id,
            broadcast_id: *broadcast_id,
            user_id: stream.user_id,
            playback_id: stream.playback_id,
            title: stream.title.clone(),
            is_public: stream.visibility == Visibility::Public,
            started_at: self.now,
        })?);
        let data = json!({
            "streamId": stream.id,
            "userId": stream.user_id,
            "title": stream.title,
            "playbackId": stream.playback_id,
            "startTime": self.now,
        });
        self.say(stream, "live", data);
        Ok(())
    }

    fn ended(
        &mut self,
        stream: &Stream,
        broadcast_id: BroadcastId,
        started_at: DateTime<Utc>,
        ended_at: DateTime<Utc>,
        reason: EndReason,
    ) -> Result<(), StreamError> {
        self.changed.push(stream.id);
        self.events.push(Pending::of(&StreamEnded {
            stream_id: stream.id,
            broadcast_id,
            user_id: stream.user_id,
            started_at,
            ended_at,
            reason,
        })?);
        self.say(stream, "ended", json!({"streamId": stream.id, "endTime": ended_at, "reason": reason}));
        Ok(())
    }

    /// Puts something into the feed, where everybody may hear of the stream.
    fn say(&mut self, stream: &Stream, kind: &'static str, data: serde_json::Value) {
        if stream.visibility == Visibility::Public {
            self.feed.push(feed::Item { kind, stream_id: stream.id, data });
        }
    }
}

/// Does these one by one: each is looked at again under its lock, and one that fails takes no other with it.
pub(crate) async fn end_silent(app: &App, silent: Vec<(StreamId, Happening)>) -> Result<(), StreamError> {
    for (stream_id, happening) in silent {
        let is_gone = matches!(happening, Happening::Gone { .. });
        happen(app, &[(stream_id, happening)]).await?;
        if is_gone {
            tracing::info!(%stream_id, "the stream has ended: its encoder is gone");
        }
    }
    Ok(())
}

/// Encoders that were not heard of for too long.
pub(crate) async fn find_stale(
    conn: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    rules: Rules,
) -> Result<Vec<(StreamId, Happening)>, StreamError> {
    let stale = situations::find_stale(conn, now - rules.stale_after, MOST_SILENT).await?;
    let gone = |(stream, publication)| (stream, Happening::Gone { publication, reason: EndReason::Stale });
    Ok(stale.into_iter().map(gone).collect())
}

/// Broadcasts that nobody came back to.
pub(crate) async fn find_abandoned(
    conn: &mut AsyncPgConnection,
    now: DateTime<Utc>,
) -> Result<Vec<(StreamId, Happening)>, StreamError> {
    let abandoned = broadcasts::find_to_close(conn, now, MOST_SILENT).await?;
    Ok(abandoned.into_iter().map(|stream| (stream, Happening::Close)).collect())
}

/// Ends what is on air, and returns whom the media server is to send away, after the commit.
pub(crate) async fn stop(
    conn: &mut AsyncPgConnection,
    effects: &mut Effects,
    id: StreamId,
    reason: EndReason,
) -> Result<Vec<Connection>, StreamError> {
    let on_air = situations::find_on_air(conn, &[], Some(id)).await?;
    happen_within(conn, effects, &[(id, Happening::Stop { reason })]).await?;
    Ok(on_air.into_iter().map(|on_air| on_air.encoder).collect())
}

/// The same, if it is on air with this key, or nobody knows with which.
pub(crate) async fn end_of_key(
    conn: &mut AsyncPgConnection,
    effects: &mut Effects,
    id: StreamId,
    key: KeyId,
) -> Result<Vec<Connection>, StreamError> {
    let on_air = situations::find_on_air(conn, &[], Some(id)).await?;
    if on_air.iter().any(|on_air| on_air.key_id.is_none_or(|of| of == key)) {
        return stop(conn, effects, id, EndReason::KeyRevoked).await;
    }
    Ok(Vec::new())
}

/// What an owner is done with: everything of this stream is ended before it goes.
pub(crate) async fn end_before_deletion(
    conn: &mut AsyncPgConnection,
    effects: &mut Effects,
    ids: &[StreamId],
) -> Result<(), StreamError> {
    let all: Vec<_> = ids.iter().map(|id| (*id, Happening::Stop { reason: EndReason::Deleted })).collect();
    happen_within(conn, effects, &all).await?;
    for (stream_id, user_id) in streams::delete(conn, ids).await? {
        effects.events.push(Pending::of(&StreamDeleted { stream_id, user_id })?);
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
