//! How often somebody may guess: shared by all instances through the backplane, and by each alone while that is away.
//!
//! Attempts are counted before the work that they ask for, so that many at once are no way around the limit, and an attempt
//! that comes too soon costs nothing but the look.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use backplane::{Backplane, Pace};
use ring::digest::{SHA256, digest};

use crate::client::Client;
use crate::error::AuthError;

/// One account from one place: a person who mistypes, or a machine that guesses.
pub(crate) const PAIR: Limit = Limit {
    name: "pair",
    pace: Pace { free: 5, first: Duration::from_secs(2), longest: minutes(15), forget: minutes(60) },
};
/// One account from anywhere. Generous, and its pauses short: whoever knows an address could lock its owner out.
pub(crate) const ACCOUNT: Limit = Limit {
    name: "account",
    pace: Pace { free: 100, first: Duration::from_secs(1), longest: Duration::from_secs(10), forget: minutes(60) },
};
/// Any account from one place, which may be a whole school.
pub(crate) const PLACE: Limit = Limit {
    name: "place",
    pace: Pace { free: 50, first: Duration::from_secs(2), longest: minutes(5), forget: minutes(60) },
};

/// After a failure of the backplane it is left alone for so long: while it hangs, each call would wait for it.
const LEFT_ALONE: Duration = Duration::from_secs(1);
/// How long it is known that somebody has logged in from a place.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// What is limited, and how far.
pub(crate) struct Limit {
    /// Unlike any other's.
    pub(crate) name: &'static str,
    pub(crate) pace: Pace,
}

/// Counts attempts.
pub(crate) struct Throttle {
    shared: Backplane,
    /// While the shared one is away.
    own: Backplane,
    away_until: Mutex<Option<Instant>>,
}

impl Throttle {
    pub(crate) fn new(shared: Backplane) -> Self {
        Self { shared, own: Backplane::in_process(), away_until: Mutex::new(None) }
    }

    /// Counts an attempt of each of these: a limit, and who it is about (an e-mail address, a user id, a network). If it
    /// comes too soon for one of them none is counted, and the error says how long to wait.
    pub(crate) async fn attempt(&self, attempts: &[(&Limit, &str)]) -> Result<(), AuthError> {
        let tries: Vec<_> = attempts.iter().map(|(limit, who)| (key(limit, who), limit.pace)).collect();
        let wait = match self.ask(self.shared.attempt(&tries)).await {
            Some(wait) => wait,
            None => self.own.attempt(&tries).await.unwrap_or_default(),
        };
        match wait {
            None => Ok(()),
            Some(wait) => {
                metrics::counter!("auth_throttled_total").increment(1);
                Err(AuthError::TooManyAttempts(wait))
            }
        }
    }

    /// The attempt was a good one: it counts no more.
    pub(crate) async fn take_back(&self, limit: &Limit, who: &str) {
        let key = key(limit, who);
        // What was counted here while the backplane was away is taken back here.
        if self.ask(self.shared.take_back(&key)).await.is_none() {
            let _ = self.own.take_back(&key).await;
        }
    }

    /// All attempts are forgotten: whoever it was has proved themselves.
    pub(crate) async fn forget(&self, limit: &Limit, who: &str) {
        let key = key(limit, who);
        let _ = self.ask(self.shared.forget_tries(&key)).await;
        let _ = self.own.forget_tries(&key).await;
    }

    /// What the backplane answers; `None` when it is away.
    async fn ask<T>(&self, call: impl Future<Output = Result<T, backplane::Away>>) -> Option<T> {
        let is_away = {
            let away_until = self.away_until.lock().unwrap_or_else(PoisonError::into_inner);
            away_until.is_some_and(|until| Instant::now() < until)
        };
        if is_away {
            return None;
        }
        match call.await {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::debug!(%error, "attempts are counted by this instance alone");
                let until = Instant::now() + LEFT_ALONE;
                *self.away_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
                None
            }
        }
    }
}

/// An attempt to show that one knows the password of an account.
pub(crate) struct Attempt<'a> {
    throttle: &'a Throttle,
    account: String,
    network: String,
    /// The owner was not known to be at this place, so it counted for the account too.
    is_new_place: bool,
}

impl<'a> Attempt<'a> {
    /// Counts it, before the password is looked at. `account` is an e-mail address, whether or not it is known.
    pub(crate) async fn begin(throttle: &'a Throttle, account: &str, client: &Client) -> Result<Self, AuthError> {
        let network = client.network();
        let mut attempt = Self { throttle, account: account.to_owned(), network, is_new_place: true };
        let pair = attempt.pair();
        attempt.is_new_place = throttle.ask(throttle.shared.get(&known_key(&pair))).await.flatten().is_none();
        let mut attempts = vec![(&PAIR, pair.as_str()), (&PLACE, attempt.network.as_str())];
        // Where the owner has been before, strangers elsewhere cannot lock them out.
        if attempt.is_new_place {
            attempts.push((&ACCOUNT, account));
        }
        throttle.attempt(&attempts).await?;
        Ok(attempt)
    }

    /// The password was right: those that were wrong are forgotten.
    pub(crate) async fn succeed(self) {
        let pair = self.pair();
        self.throttle.forget(&PAIR, &pair).await;
        self.take_back_others().await;
        let _ = self.throttle.ask(self.throttle.shared.set(&known_key(&pair), Vec::new(), KNOWN_FOR)).await;
    }

    /// The password was not looked at after all.
    pub(crate) async fn take_back(self) {
        self.throttle.take_back(&PAIR, &self.pair()).await;
        self.take_back_others().await;
    }

    async fn take_back_others(&self) {
        self.throttle.take_back(&PLACE, &self.network).await;
        if self.is_new_place {
            self.throttle.take_back(&ACCOUNT, &self.account).await;
        }
    }

    fn pair(&self) -> String {
        format!("{} {}", self.account, self.network)
    }
}

/// Of one length, however long what a client sent; and it tells nobody who looks into Redis whom it is about.
fn key(limit: &Limit, who: &str) -> String {
    format!("auth:{}:{}", limit.name, fingerprint(who))
}

fn known_key(pair: &str) -> String {
    format!("auth:known:{}", fingerprint(pair))
}

fn fingerprint(who: &str) -> String {
    digest(&SHA256, who.as_bytes()).as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
