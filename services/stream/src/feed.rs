//! Tells readers of `/streams/events` what happens, as it happens.
//!
//! PostgreSQL is the truth: the table `feed`, whose ids become visible in their order. One connection of the process hears
//! of what is new ([`follow`]); it is encoded once, and all readers share that. While PostgreSQL is away nothing happens
//! that could be told; what happened on other instances meanwhile is told when it is back.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::web::Bytes;
use anyhow::{Context as _, bail};
use chassis::db::Pool;
use common::StreamId;
use deadpool::managed::Manager as _;
use diesel_async::AsyncPgConnection;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::store::feed::{self, Told};

/// A reader that falls behind by more is cut off; it comes back and goes on where it was.
const MOST_BEHIND: usize = 1024;
/// So many of the last are kept for readers that come back: all of them at once, after a restart of what is in front of us.
const KEPT: usize = 1024;
/// So many are read from the database at once.
const PAGE: i64 = 500;
/// A reader hears something this often, so that it and everything between notices when the other end is gone.
const BEAT_EVERY: Duration = Duration::from_secs(15);
/// A notification may be lost, and a connection may be dead without having been closed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// How often old news is thrown away, and how much is kept in any case.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
const MOST_KEPT: i64 = 100_000;

/// What a reader is told first: how long to wait before it comes back.
const RETRY: &str = "retry: 2000\n";

/// Something that was told, as it is sent.
#[derive(Debug)]
struct Line {
    id: i64,
    stream_id: StreamId,
    text: Bytes,
}

impl From<Told> for Line {
    fn from(told: Told) -> Self {
        let Told { id, kind, stream_id, data } = told;
        Self { id, stream_id: StreamId(stream_id), text: format!("id: {id}\nevent: {kind}\ndata: {data}\n\n").into() }
    }
}

/// What this process knows of the feed.
pub(crate) struct Feed {
    recent: Mutex<Recent>,
    lines: broadcast::Sender<Arc<Line>>,
}

/// The end of the feed: everything after `floor`, up to `head`.
struct Recent {
    floor: i64,
    head: i64,
    lines: VecDeque<Arc<Line>>,
}

/// What a reader has missed, and what comes.
type Subscription = (Vec<Arc<Line>>, broadcast::Receiver<Arc<Line>>);

impl Feed {
    /// The feed from now on.
    pub(crate) async fn open(pool: &Pool) -> anyhow::Result<Self> {
        let head = feed::last(&mut *pool.get().await?).await?;
        let recent = Mutex::new(Recent { floor: head, head, lines: VecDeque::new() });
        Ok(Self { recent, lines: broadcast::Sender::new(MOST_BEHIND) })
    }

    /// What comes, and before it what is kept of what came after `id`; `None` if that is not kept.
    fn subscribe_after(&self, id: i64) -> Option<Subscription> {
        // Under one lock, so that nothing is in neither or in both.
        let recent = self.lock();
        (recent.floor..=recent.head).contains(&id).then(|| {
            let kept = recent.lines.iter().filter(|line| line.id > id).cloned().collect();
            (kept, self.lines.subscribe())
        })
    }

    fn head(&self) -> i64 {
        self.lock().head
    }

    fn add(&self, told: Vec<Told>) {
        let mut recent = self.lock();
        for told in told {
            let line = Arc::new(Line::from(told));
            recent.head = line.id;
            recent.lines.push_back(Arc::clone(&line));
            if recent.lines.len() > KEPT
                && let Some(oldest) = recent.lines.pop_front()
            {
                recent.floor = oldest.id;
            }
            // Nobody may be reading.
            let _ = self.lines.send(line);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears of everything that is told, until `shutdown`.
pub(crate) async fn follow(app: Arc<App>, shutdown: CancellationToken) {
    let forever = async {
        let mut is_told = false;
        loop {
            let Err(error) = hear_all(&app.feed, &app.pool, &mut is_told).await;
            if !is_told {
                tracing::warn!("the feed of streams stands still: {error:#}");
                is_told = true;
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    };
    tokio::select! {
        () = forever => {}
        () = shutdown.cancelled() => {}
    }
}

/// Hears on a connection of its own, until that is lost.
async fn hear_all(feed: &Feed, pool: &Pool, is_told: &mut bool) -> anyhow::Result<Infallible> {
    // A new one: those of the pool may be dead as the one before was.
    let conn = timeout(CONNECT_WITHIN, pool.manager().create()).await.context("no connection in time")?;
    let mut conn = conn.context("no connection")?;
    // First listen, then look: what is told in between is heard of afterwards.
    timeout(ANSWER_WITHIN, feed::listen(&mut conn)).await.context("no answer in time")??;
    loop {
        let told = timeout(ANSWER_WITHIN, feed::after(&mut conn, feed.head(), PAGE)).await;
        let told = told.context("no answer in time")??;
        if std::mem::take(is_told) {
            tracing::info!("the feed of streams goes on");
        }
        let is_all = told.len() < usize::try_from(PAGE)?;
        feed.add(told);
        if is_all {
            wake(&mut conn).await?;
        }
    }
}

/// Waits until there may be something new. Several notifications that have come are one.
async fn wake(conn: &mut AsyncPgConnection) -> anyhow::Result<()> {
    let mut notifications = pin!(conn.notifications_stream());
    let Ok(mut notification) = timeout(LOOK_EVERY, notifications.next()).await else { return Ok(()) };
    loop {
        match notification {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
            None => bail!("the connection was closed"),
        }
        match notifications.next().now_or_never() {
            Some(next) => notification = next,
            None => return Ok(()),
        }
    }
}

/// Throws away what is older than `FEED_KEEP`, until `shutdown`.
pub(crate) async fn prune(app: Arc<App>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PRUNE_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
        let pruned = async {
            let mut conn = app.pool.get().await?;
            feed::prune(&mut conn, app.clock.now() - app.config.feed_keep, MOST_KEPT).await?;
            anyhow::Ok(())
        };
        if let Err(error) = pruned.await {
            tracing::debug!("old news of streams could not be thrown away: {error:#}");
        }
    }
}

/// One reader's way through the feed.
pub(crate) struct Reader {
    app: Arc<App>,
    /// Only of these; of all, if there are none.
    of: HashSet<StreamId>,
    stage: Stage,
    /// Everything up to here was sent, or is not for this reader.
    position: i64,
    /// The last id that it was told.
    told: i64,
    next_beat: Instant,
    stopping: CancellationToken,
}

enum Stage {
    /// It has said where it was, and that has to be found.
    Searching,
    /// It is sent what it has missed, from the database.
    CatchingUp,
    /// It is sent what comes.
    Following { kept: VecDeque<Arc<Line>>, lines: broadcast::Receiver<Arc<Line>> },
}

impl Reader {
    /// A reader that goes on after `last`, or begins now.
    pub(crate) fn new(app: Arc<App>, last: Option<i64>, of: HashSet<StreamId>, stopping: CancellationToken) -> Self {
        let position = last.unwrap_or_else(|| app.feed.head());
        Self {
            app,
            of,
            stage: Stage::Searching,
            position,
            told: position,
            next_beat: Instant::now() + BEAT_EVERY,
            stopping,
        }
    }

    /// What every answer begins with: where to go on, should it end before anything happens.
    pub(crate) fn greeting(&self) -> Bytes {
        format!("{RETRY}id: {}\n\n", self.position).into()
    }

    /// What to send next; `None` when the answer ends: this instance stops, or the reader is too slow.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let (stopping, beat_at) = (self.stopping.clone(), self.next_beat);
        let text = tokio::select! {
            () = stopping.cancelled() => return None,
            () = tokio::time::sleep_until(beat_at) => self.beat(),
            text = self.news() => text?,
        };
        self.next_beat = Instant::now() + BEAT_EVERY;
        Some(text)
    }

    /// That the connection lives, and where to go on, where that has changed without anything to send.
    fn beat(&mut self) -> Bytes {
        if self.told == self.position || matches!(self.stage, Stage::Searching) {
            return Bytes::from_static(b": still here\n\n");
        }
        self.told = self.position;
        format!("id: {}\n: still here\n\n", self.position).into()
    }

    /// Safe to drop: what was not returned is found again.
    async fn news(&mut self) -> Option<Bytes> {
        loop {
            match &mut self.stage {
                Stage::Searching => {
                    if let Some(news) = self.find_place().await {
                        return Some(news);
                    }
                }
                Stage::CatchingUp => {
                    if let Some((kept, lines)) = self.app.feed.subscribe_after(self.position) {
                        self.stage = Stage::Following { kept: kept.into(), lines };
                        continue;
                    }
                    let page = self.ask_database(async |conn, id| feed::after(conn, id, PAGE).await).await;
                    if page.is_empty() {
                        // What it was told by another instance has not been heard of here yet.
                        tokio::time::sleep(RETRY_AFTER).await;
                        continue;
                    }
                    let lines = page.into_iter().map(|told| Arc::new(Line::from(told)));
                    let mut text = Vec::new();
                    for line in lines {
                        self.take(&line, &mut text);
                    }
                    if !text.is_empty() {
                        return Some(text.into());
                    }
                }
                Stage::Following { kept, lines } => {
                    let first = match kept.pop_front() {
                        Some(line) => line,
                        None => match lines.recv().await {
                            Ok(line) => line,
                            Err(RecvError::Lagged(_) | RecvError::Closed) => return None,
                        },
                    };
                    // Whatever is there goes out together.
                    let mut all = vec![first];
                    all.extend(kept.drain(..));
                    while let Ok(line) = lines.try_recv() {
                        all.push(line);
                    }
                    let mut text = Vec::new();
                    for line in all {
                        self.take(&line, &mut text);
                    }
                    if !text.is_empty() {
                        return Some(text.into());
                    }
                }
            }
        }
    }

    fn take(&mut self, line: &Line, text: &mut Vec<u8>) {
        if line.id <= self.position {
            return;
        }
        self.position = line.id;
        if self.of.is_empty() || self.of.contains(&line.stream_id) {
            self.told = line.id;
            text.extend_from_slice(&line.text);
        }
    }

    /// Finds what it was told last. If that cannot be gone on from, it begins now, and is told so.
    async fn find_place(&mut self) -> Option<Bytes> {
        if let Some((kept, lines)) = self.app.feed.subscribe_after(self.position) {
            self.stage = Stage::Following { kept: kept.into(), lines };
            return None;
        }
        let is_whole = self.ask_database(async |conn, id| feed::is_whole_after(conn, id).await).await;
        if is_whole {
            self.stage = Stage::CatchingUp;
            return None;
        }
        self.position = self.app.feed.head();
        self.told = self.position;
        let data = serde_json::json!({
            "reason": "what you heard last is not kept any more",
            "whatToDo": "load the list of streams again: GET /api/v1/streams",
        });
        Some(format!("id: {}\nevent: reset\ndata: {data}\n\n", self.position).into())
    }

    /// Asks the database, for as long as it takes.
    async fn ask_database<T>(&self, ask: impl AsyncFn(&mut AsyncPgConnection, i64) -> diesel::QueryResult<T>) -> T {
        loop {
            if let Ok(mut conn) = self.app.pool.get().await
                && let Ok(found) = ask(&mut conn, self.position).await
            {
                return found;
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(id: i64) -> Told {
        Told { id, kind: "live".to_owned(), stream_id: 7, data: json!({"title": "one\ntwo"}) }
    }

    fn feed(head: i64) -> Feed {
        let recent = Mutex::new(Recent { floor: head, head, lines: VecDeque::new() });
        Feed { recent, lines: broadcast::Sender::new(MOST_BEHIND) }
    }

    #[test]
    fn an_event_is_one_line_of_data() {
        let line = Line::from(told(3));
        assert_eq!(line.text, "id: 3\nevent: live\ndata: {\"title\":\"one\\ntwo\"}\n\n");
    }

    #[test]
    fn who_comes_back_gets_exactly_what_it_has_missed_as_long_as_that_is_kept() {
        let feed = feed(10);
        feed.add((11..=15).map(told).collect());

        let ids = |after| {
            let (kept, _) = feed.subscribe_after(after)?;
            Some(kept.iter().map(|line| line.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(10), Some(vec![11, 12, 13, 14, 15]));
        assert_eq!(ids(13), Some(vec![14, 15]));
        assert_eq!(ids(15), Some(vec![]));
        assert_eq!((ids(9), ids(16)), (None, None), "that is for the database to say");
    }

    #[test]
    fn only_the_last_are_kept() {
        let feed = feed(0);
        let most = i64::try_from(KEPT).unwrap();
        feed.add((1..=most + 5).map(told).collect());

        assert!(feed.subscribe_after(4).is_none());
        assert_eq!(feed.subscribe_after(5).unwrap().0.len(), KEPT);
    }

    #[test]
    fn a_reader_that_is_too_slow_is_not_waited_for() {
        let feed = feed(0);
        let (_, mut lines) = feed.subscribe_after(0).unwrap();
        feed.add((1..=i64::try_from(MOST_BEHIND).unwrap() + 1).map(told).collect());

        assert!(matches!(lines.try_recv(), Err(broadcast::error::TryRecvError::Lagged(1))));
    }
}
