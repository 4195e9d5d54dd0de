//! What this instance knows about tokens, and who is told when it changes.
//!
//! PostgreSQL is the truth. [`follow`] hears of every change there, whichever instance made it, and keeps [`Trust`] like it;
//! all readers of the feed share that. While PostgreSQL is away nothing can change, so what is known stays right.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::web::Bytes;
use anyhow::{Context as _, bail};
use chassis::db::Pool;
use common::token::Jwks;
use common::trust::{EndedSession, Trust as Line, UserRole};
use common::{Claims, Role, Secret, SessionId, SharedClock, UserId, Verifier};
use deadpool::managed::Manager as _;
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use futures_util::StreamExt as _;
use tokio::sync::broadcast::{self, Receiver, error::RecvError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::keys::Keys;
use crate::store::signing_keys;
use crate::store::trust::{self, Notice};

/// A reader that falls behind by more lines gets a new snapshot instead.
const MOST_LINES_BEHIND: usize = 256;
/// A feed is silent for at most 250 ms, told from its reader's side.
const BEAT_AFTER: Duration = Duration::from_millis(150);
/// How often the connection that hears of changes is asked whether it still lives, and how long it may take to answer. So
/// a connection that is dead without having been closed is noticed.
const PROBE_EVERY: Duration = Duration::from_millis(250);
const PROBE_WITHIN: Duration = Duration::from_millis(500);
/// How long to wait for a new connection, for everything that the database knows, and between tries.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const LOOK_WITHIN: Duration = Duration::from_secs(3);
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What this instance knows.
pub(crate) struct Trust {
    known: Mutex<Known>,
    lines: broadcast::Sender<Bytes>,
    /// This process verifies tokens too, and hears of changes first.
    verifier: Verifier,
    clock: SharedClock,
    secret: Secret,
}

/// Everything there is to know.
struct Known {
    keys: Arc<Keys>,
    /// Until when, in seconds since 1970.
    ended: HashMap<SessionId, i64>,
    roles: HashMap<UserId, (Role, i64)>,
    /// Why changes are not heard of now.
    deaf: Option<String>,
}

impl Trust {
    /// What the database says now.
    pub(crate) async fn load(
        conn: &mut AsyncPgConnection,
        secret: Secret,
        verifier: Verifier,
        clock: SharedClock,
    ) -> anyhow::Result<Self> {
        let known = Known {
            keys: Arc::new(Keys::open(&signing_keys::all(conn).await?, &secret)?),
            ended: HashMap::new(),
            roles: HashMap::new(),
            deaf: None,
        };
        let trust = Self {
            known: Mutex::new(known),
            lines: broadcast::Sender::new(MOST_LINES_BEHIND),
            verifier,
            clock,
            secret,
        };
        trust.look(conn).await?;
        trust.verifier.learn(trust.lock().snapshot(trust.clock.now().timestamp()));
        Ok(trust)
    }

    /// The public keys that verify tokens now.
    pub(crate) fn jwks(&self) -> Jwks {
        self.lock().keys.public()
    }

    /// The token that says `claims`.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        let keys = Arc::clone(&self.lock().keys);
        keys.sign(claims, self.clock.now())
    }

    /// Whether changes are heard of, in words, for `/readyz`.
    pub(crate) fn probe(&self) -> Result<(), String> {
        self.lock().deaf.clone().map_or(Ok(()), Err)
    }

    /// The feed of one reader: a snapshot, and from there every change.
    pub(crate) fn feed(self: &Arc<Self>, stopping: CancellationToken) -> Feed {
        let (first, lines) = self.subscribe();
        Feed { trust: Arc::clone(self), first: Some(first), lines, stopping }
    }

    fn subscribe(&self) -> (Bytes, Receiver<Bytes>) {
        // Under one lock, so that no change is in neither.
        let known = self.lock();
        let lines = self.lines.subscribe();
        let snapshot = known.snapshot(self.clock.now().timestamp());
        drop(known);
        (line(&snapshot), lines)
    }

    /// Takes everything from the database, and tells readers if it is not what was known.
    async fn look(&self, conn: &mut AsyncPgConnection) -> anyhow::Result<()> {
        let now = self.clock.now();
        let ended = trust::ended(conn, now).await?;
        let roles = trust::roles(conn, now).await?;
        let keys = Keys::open(&signing_keys::all(conn).await?, &self.secret)?;
        let mut known = self.lock();
        known.forget_expired(now.timestamp());
        let ended = ended.into_iter().map(|session| (session.sid, session.until)).collect();
        let roles = by_user(roles);
        let is_known = known.ended == ended && known.roles == roles && known.keys.public() == keys.public();
        (known.ended, known.roles, known.keys) = (ended, roles, Arc::new(keys));
        if !is_known {
            self.tell(&known.snapshot(now.timestamp()));
        }
        Ok(())
    }

    async fn hear(&self, conn: &mut AsyncPgConnection, notice: Notice) -> anyhow::Result<()> {
        match notice {
            Notice::Ended { ended } => {
                let mut known = self.lock();
                known.ended.extend(ended.iter().map(|session| (session.sid, session.until)));
                self.tell(&Line::Ended { ended });
            }
            Notice::Roles => {
                let roles = trust::roles(conn, self.clock.now()).await?;
                let mut known = self.lock();
                known.roles = by_user(roles.clone());
                self.tell(&Line::Roles { roles });
            }
            Notice::Keys => {
                let keys = Keys::open(&signing_keys::all(conn).await?, &self.secret)?;
                let mut known = self.lock();
                known.keys = Arc::new(keys);
                let jwks = known.keys.public();
                self.tell(&Line::Keys { keys: jwks.keys });
            }
        }
        Ok(())
    }

    /// Lets go of what concerns no token any more.
    pub(crate) fn forget_expired(&self) {
        self.lock().forget_expired(self.clock.now().timestamp());
    }

    /// To be called under the lock, so that lines come in the order of changes.
    fn tell(&self, change: &Line) {
        self.verifier.learn(change.clone());
        // Nobody may be reading.
        let _ = self.lines.send(line(change));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn snapshot(&self, now: i64) -> Line {
        let ended = self.ended.iter().map(|(sid, until)| EndedSession { sid: *sid, until: *until });
        let roles = self.roles.iter().map(|(sub, (role, until))| UserRole { sub: *sub, role: *role, until: *until });
        Line::Snapshot {
            keys: self.keys.public().keys,
            ended: ended.filter(|session| session.until > now).collect(),
            roles: roles.filter(|role| role.until > now).collect(),
        }
    }

    fn forget_expired(&mut self, now: i64) {
        self.ended.retain(|_, until| *until > now);
        self.roles.retain(|_, (_, until)| *until > now);
    }
}

fn by_user(roles: Vec<UserRole>) -> HashMap<UserId, (Role, i64)> {
    roles.into_iter().map(|role| (role.sub, (role.role, role.until))).collect()
}

fn line(line: &Line) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// What one reader is sent.
pub(crate) struct Feed {
    trust: Arc<Trust>,
    first: Option<Bytes>,
    lines: Receiver<Bytes>,
    stopping: CancellationToken,
}

impl Feed {
    /// The next line; `None` when this instance stops.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        tokio::select! {
            () = self.stopping.cancelled() => None,
            heard = timeout(BEAT_AFTER, self.lines.recv()) => match heard {
                Ok(Ok(change)) => Some(change),
                Ok(Err(RecvError::Lagged(_))) => {
                    let (snapshot, lines) = self.trust.subscribe();
                    self.lines = lines;
                    Some(snapshot)
                }
                Ok(Err(RecvError::Closed)) => None,
                Err(_quiet) => Some(line(&Line::Beat)),
            },
        }
    }
}

/// Keeps `trust` like the database, until `shutdown`.
pub(crate) async fn follow(trust: Arc<Trust>, pool: Pool, shutdown: CancellationToken) {
    let forever = async {
        loop {
            let Err(error) = hear_all(&trust, &pool).await;
            let reason = format!("changes of trust are not heard of: {error:#}");
            if trust.lock().deaf.replace(reason.clone()).is_none() {
                tracing::warn!("{reason}");
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    };
    tokio::select! {
        () = forever => {}
        () = shutdown.cancelled() => {}
    }
}

/// Hears of changes on a connection of its own, until that is lost.
async fn hear_all(trust: &Trust, pool: &Pool) -> anyhow::Result<std::convert::Infallible> {
    // A new one: those of the pool may be dead as the one before was.
    let conn = timeout(CONNECT_WITHIN, pool.manager().create()).await.context("no connection in time")?;
    let mut conn = conn.context("no connection")?;
    // First listen, then look: what changes in between is heard of afterwards.
    timeout(CONNECT_WITHIN, trust::listen(&mut conn)).await.context("no answer in time")??;
    timeout(LOOK_WITHIN, trust.look(&mut conn)).await.context("no answer in time")??;
    if trust.lock().deaf.take().is_some() {
        tracing::info!("changes of trust are heard of again");
    }
    loop {
        let heard = timeout(PROBE_EVERY, pin!(conn.notifications_stream()).next()).await;
        match heard {
            Ok(Some(notification)) => {
                let payload = notification?.payload;
                match serde_json::from_str(&payload) {
                    Ok(notice) => timeout(LOOK_WITHIN, trust.hear(&mut conn, notice)).await.context("no answer")??,
                    // Of a newer instance, during an upgrade.
                    Err(_unknown) => trust.look(&mut conn).await?,
                }
            }
            Ok(None) => bail!("the connection was closed"),
            Err(_quiet) => {
                let probe = diesel::sql_query("select 1").execute(&mut conn);
                timeout(PROBE_WITHIN, probe).await.context("the connection is silent")??;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use common::{Clock as _, SystemClock};

    use super::*;

    fn trust() -> Arc<Trust> {
        let (secret, clock) = (Secret::new("a secret"), Arc::new(SystemClock));
        let key = crate::keys::make(&secret, clock.now(), clock.now()).unwrap();
        let keys = Arc::new(Keys::open(&[key], &secret).unwrap());
        let known = Known { keys, ended: HashMap::new(), roles: HashMap::new(), deaf: None };
        let verifier = Verifier::new("amphi", clock.clone());
        let lines = broadcast::Sender::new(MOST_LINES_BEHIND);
        Arc::new(Trust { known: Mutex::new(known), lines, verifier, clock, secret })
    }

    impl Trust {
        fn end(&self, until: i64) -> EndedSession {
            let ended = EndedSession { sid: SessionId::new(), until };
            let mut known = self.lock();
            known.ended.insert(ended.sid, until);
            self.tell(&Line::Ended { ended: vec![ended] });
            ended
        }
    }

    async fn next(feed: &mut Feed) -> Line {
        serde_json::from_slice(&feed.next().await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_reader_that_falls_behind_misses_nothing() {
        let trust = trust();
        let mut feed = trust.feed(CancellationToken::new());
        assert!(matches!(next(&mut feed).await, Line::Snapshot { ended, .. } if ended.is_empty()));

        let first = trust.end(i64::MAX);
        assert_eq!(next(&mut feed).await, Line::Ended { ended: vec![first] });
        for _ in 0..=MOST_LINES_BEHIND {
            trust.end(i64::MAX);
        }

        assert!(matches!(next(&mut feed).await, Line::Snapshot { ended, .. } if ended.len() == MOST_LINES_BEHIND + 2));
        let last = trust.end(i64::MAX);
        assert_eq!(next(&mut feed).await, Line::Ended { ended: vec![last] });
        assert_eq!(next(&mut feed).await, Line::Beat);
    }

    #[tokio::test]
    async fn what_concerns_no_token_any_more_is_not_told_and_forgotten() {
        let trust = trust();
        let now = SystemClock.now().timestamp();
        trust.end(now);
        let lasting = trust.end(now + 3600);

        let mut feed = trust.feed(CancellationToken::new());

        assert!(matches!(next(&mut feed).await, Line::Snapshot { ended, .. } if ended == [lasting]));
        assert_eq!(trust.lock().ended.len(), 2);
        trust.forget_expired();
        assert_eq!(trust.lock().ended.len(), 1);
    }

    #[tokio::test]
    async fn a_feed_ends_when_the_server_is_about_to_stop() {
        let (trust, stopping) = (trust(), CancellationToken::new());
        let mut feed = trust.feed(stopping.clone());
        next(&mut feed).await;
        stopping.cancel();
        assert!(feed.next().await.is_none());
    }
}
