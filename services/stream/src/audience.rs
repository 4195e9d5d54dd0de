//! Who watches over HLS. Players there only fetch files, so they say themselves that they play: by a beat every now and then,
//! which counts when the position has moved on since the one before.
//!
//! Beats go to the backplane, which all instances share, and to no table. Every few seconds each instance counts the
//! broadcasts that it was told of, and writes what has changed.
//!
//! When the backplane has lost its memory, viewers count again from their second beat, and how many there ever were is what
//! was written or has been counted since, whichever is more. The watch time that an instance has asked for and not yet
//! written goes with it when it is killed: some seconds.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backplane::{Away, Backplane, Lasting};
use chassis::db::Pool;
use common::{BroadcastId, StreamId};
use diesel_async::AsyncConnection as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::App;
use crate::domain::StreamName;
use crate::error::StreamError;
use crate::store::audience::{self, Counted};
use crate::store::feed;

/// What is live is read anew this often, while anybody watches.
const KNOWN_FOR: Duration = Duration::from_secs(2);
/// Of so many streams that are not live it is remembered meanwhile.
const MOST_OTHERS: usize = 10_000;
/// How many a broadcast had in all is remembered so long after the last beat: longer than viewers leave it alone.
const GROUP_LASTS: Duration = Duration::from_secs(24 * 60 * 60);

/// A stream that is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) stream_id: StreamId,
    pub(crate) broadcast_id: BroadcastId,
    pub(crate) playback_id: Uuid,
    /// Its number finds it; otherwise only its playback id does.
    pub(crate) is_public: bool,
    /// Who watched at the last count, over RTMP and HLS.
    pub(crate) viewers: u64,
    /// Who did over RTMP.
    pub(crate) players: u64,
}

/// What a viewer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) viewers: u64,
    pub(crate) is_counted: bool,
}

/// Takes beats.
pub(crate) struct Audience {
    backplane: Backplane,
    lasting: Lasting,
    known: Mutex<Arc<Known>>,
    /// Whoever reads what is live holds it, so that one does.
    reading: tokio::sync::Mutex<()>,
    /// Beats came for these since the last count.
    touched: Mutex<HashMap<BroadcastId, StreamId>>,
    is_away: AtomicBool,
}

/// What is live, as it was a moment ago.
struct Known {
    read_at: Option<Instant>,
    live: HashMap<StreamName, Arc<Live>>,
    /// Those that somebody asked for and that were not among them: what came of it.
    others: Mutex<HashMap<StreamName, Found>>,
}

/// `None`: there is no such stream. `Some(None)`: it is not live.
type Found = Option<Option<Arc<Live>>>;

impl Audience {
    /// `member_lasts`: how long a viewer counts after a beat.
    pub(crate) fn new(backplane: Backplane, member_lasts: Duration) -> Self {
        let lasting = Lasting { member: member_lasts, group: GROUP_LASTS.max(member_lasts) };
        let known = Known { read_at: None, live: HashMap::new(), others: Mutex::default() };
        Self {
            backplane,
            lasting,
            known: Mutex::new(Arc::new(known)),
            reading: tokio::sync::Mutex::default(),
            touched: Mutex::default(),
            is_away: AtomicBool::new(false),
        }
    }

    /// How often a player should beat: it may miss one and still counts.
    pub(crate) fn beat_every(&self) -> Duration {
        self.lasting.member / 3
    }

    /// A viewer says how far it has got.
    ///
    /// Without the backplane nobody is counted, and the numbers stay as they are.
    pub(crate) async fn beat(
        &self,
        pool: &Pool,
        name: StreamName,
        session: &str,
        position: Duration,
    ) -> Result<Told, StreamError> {
        let Some(found) = self.find(pool, name).await? else {
            return Err(StreamError::NoSuchName(name));
        };
        let live = found.ok_or(StreamError::OffAir)?;
        let position_ms = u64::try_from(position.as_millis()).unwrap_or(u64::MAX);
        let group = group_of(live.broadcast_id);
        let beat = self.backplane.beat(&group, session, position_ms, self.lasting).await;
        self.notice(&beat);
        Ok(match beat {
            Ok(beat) => {
                lock(&self.touched).insert(live.broadcast_id, live.stream_id);
                Told { viewers: live.players + beat.present, is_counted: beat.is_present }
            }
            Err(_) => Told { viewers: live.viewers, is_counted: false },
        })
    }

    async fn find(&self, pool: &Pool, name: StreamName) -> Result<Found, StreamError> {
        let known = self.known(pool).await?;
        if let Some(live) = known.live.get(&name) {
            return Ok(Some(Some(Arc::clone(live))));
        }
        if let Some(found) = lock(&known.others).get(&name) {
            return Ok(found.clone());
        }
        // It may have gone live since.
        let found = audience::find(&mut *pool.get().await?, name).await?;
        let found: Found = found.map(|live| live.map(Arc::new));
        let mut others = lock(&known.others);
        if others.len() < MOST_OTHERS {
            others.insert(name, found.clone());
        }
        Ok(found)
    }

    /// What is live. Read by one while the others go on with what was known before.
    async fn known(&self, pool: &Pool) -> Result<Arc<Known>, StreamError> {
        let now = || Arc::clone(&lock(&self.known));
        let known = now();
        if known.is_fresh() {
            return Ok(known);
        }
        let _reading = match (self.reading.try_lock(), known.read_at) {
            (Ok(reading), _) => reading,
            (Err(_), Some(_)) => return Ok(known),
            (Err(_), None) => self.reading.lock().await,
        };
        let known = now();
        if known.is_fresh() {
            return Ok(known);
        }
        let live = async { Ok::<_, StreamError>(audience::all_live(&mut *pool.get().await?).await?) };
        match live.await {
            Ok(live) => *lock(&self.known) = Arc::new(Known::of(live)),
            // Whoever watches goes on watching while the database is away.
            Err(error) if known.read_at.is_some() => tracing::debug!(%error, "what is live could not be read"),
            Err(error) => return Err(error),
        }
        Ok(now())
    }

    /// Logs once when the backplane has gone, and once when it is back.
    fn notice<T>(&self, answer: &Result<T, Away>) {
        let was_away = self.is_away.swap(answer.is_err(), Ordering::Relaxed);
        match answer {
            Err(error) if !was_away => {
                tracing::warn!(error = common::problem::chain(error), "viewers are not counted: their number stays");
            }
            Ok(_) if was_away => tracing::info!("viewers are counted again"),
            _ => {}
        }
    }
}

impl Known {
    fn of(all: Vec<Live>) -> Self {
        let mut live = HashMap::with_capacity(all.len() * 2);
        for one in all.into_iter().map(Arc::new) {
            if one.is_public {
                live.insert(StreamName::Id(one.stream_id), Arc::clone(&one));
            }
            live.insert(StreamName::Playback(one.playback_id), one);
        }
        Self { read_at: Some(Instant::now()), live, others: Mutex::default() }
    }

    fn is_fresh(&self) -> bool {
        self.read_at.is_some_and(|read_at| read_at.elapsed() < KNOWN_FOR)
    }
}

fn group_of(broadcast_id: BroadcastId) -> String {
    format!("viewers:{broadcast_id}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts, every `VIEWERS_FLUSH_EVERY` and a last time at `shutdown`.
pub(crate) async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let mut owed = BTreeMap::new();
    loop {
        let is_last = tokio::select! {
            () = tokio::time::sleep(app.config.viewers_flush_every) => false,
            () = shutdown.cancelled() => true,
        };
        if let Err(error) = count(&app, &mut owed).await {
            tracing::warn!(error = common::problem::chain(&error), "how many watch could not be written");
        }
        if is_last {
            return;
        }
    }
}

/// Writes how many watch what beats came for, and what was watched at the last count.
///
/// `owed`: seconds that the backplane has told and that are not yet written, by broadcast.
async fn count(app: &App, owed: &mut BTreeMap<BroadcastId, (StreamId, u64)>) -> Result<(), StreamError> {
    let audience = &app.audience;
    let mut conn = app.pool.get().await?;
    let watched = audience::find_watched(&mut conn).await?;
    let touched = mem::take(&mut *lock(&audience.touched));
    for (broadcast, stream) in watched.into_iter().chain(touched) {
        owed.entry(broadcast).or_insert((stream, 0));
    }
    if owed.is_empty() {
        return Ok(());
    }
    let groups: Vec<_> = owed.keys().map(|broadcast| group_of(*broadcast)).collect();
    let attendance = audience.backplane.attendance(&groups, audience.lasting).await;
    audience.notice(&attendance);
    let Ok(attendance) = attendance else { return Ok(()) };
    let mut counted = Vec::with_capacity(owed.len());
    for ((broadcast_id, (stream_id, seconds)), found) in owed.iter_mut().zip(attendance) {
        *seconds += found.seconds;
        counted.push(Counted {
            stream_id: *stream_id,
            broadcast_id: *broadcast_id,
            hls: i32::try_from(found.present).unwrap_or(i32::MAX),
            unique: i64::try_from(found.unique).unwrap_or(i64::MAX),
            seconds: i64::try_from(*seconds).unwrap_or(i64::MAX),
        });
    }
    conn.transaction(async |conn| {
        let changed = audience::note(conn, &counted).await?;
        let items: Vec<_> = changed.iter().map(|one| viewers_item(StreamId(one.stream_id), one.viewers)).collect();
        feed::tell(conn, &items, app.clock.now()).await
    })
    .await?;
    owed.clear();
    Ok(())
}

/// Tells lists of streams how many watch one.
pub(crate) fn viewers_item(stream_id: StreamId, viewers: i32) -> feed::Item {
    feed::Item { kind: "viewers", stream_id, data: json!({"streamId": stream_id, "viewers": viewers}) }
}
