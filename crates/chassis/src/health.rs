//! Whether a process can do its work: one check per dependency, with a reason in words.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::Trace;
use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;

/// A check that has not answered by then has failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a failed check means for requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importance {
    /// Requests fail without it: not ready.
    Required,
    /// Answers stay right without it, only slower or later: ready, and said to be degraded.
    Helpful,
}

type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The checks of a process. Clones share them.
#[derive(Clone)]
pub struct Health {
    checks: Arc<Mutex<Vec<(String, Importance, Probe)>>>,
    /// What it needs has not been there yet.
    starting: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    instance: u64,
}

impl Default for Health {
    fn default() -> Self {
        // Unlike any other, which is all that is asked of it; 0 stands for none.
        let instance = (Trace::begin().trace_id as u64).max(1);
        Self { checks: Arc::default(), starting: Arc::default(), stopping: Arc::default(), instance }
    }
}

/// The whole answer of `/readyz`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `ready`, `degraded` or `unavailable`.
    pub status: &'static str,
    /// One entry a dependency: `ok`, or what is wrong.
    pub checks: BTreeMap<String, String>,
}

impl Report {
    /// Whether requests should be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status != "unavailable"
    }
}

impl Health {
    /// Adds a check. `probe` answers `Err` with the reason in words; it carries no secret.
    pub fn check<F>(&self, name: impl Into<String>, importance: Importance, probe: F)
    where
        F: Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static,
    {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.push((name.into(), importance, Arc::new(probe)));
    }

    /// Until [`Self::started`], this process takes no requests: it may listen, but could answer nothing.
    pub fn starting(&self) {
        self.starting.store(true, Ordering::Relaxed);
    }

    /// What this process needs has been there, or was waited for for long enough.
    pub fn started(&self) {
        self.starting.store(false, Ordering::Relaxed);
    }

    /// From now on this process is not ready, whatever the checks say.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// A name of this process, for as long as it lives. What a client may only go on with here carries it in front, as 16
    /// hexadecimal digits and a dot: then the gateway brings it back here.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// Whether this process was asked to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether this process takes requests: what a load balancer asks of each instance, every second.
    ///
    /// It costs nothing, and asks no dependency: one that is away is away for the other instances too, and a service's own
    /// answer says more than that there is none.
    #[must_use]
    pub fn takes_requests(&self) -> bool {
        !self.starting.load(Ordering::Relaxed) && !self.is_stopping()
    }

    /// Runs every check, all at once, each for at most two seconds.
    pub async fn report(&self) -> Report {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let results = join_all(checks.into_iter().map(|(name, importance, probe)| async move {
            let result = tokio::time::timeout(PATIENCE, probe())
                .await
                .unwrap_or_else(|_elapsed| Err(format!("no answer within {} s", PATIENCE.as_secs())));
            (name, importance, result)
        }))
        .await;
        let failed = |wanted| results.iter().any(|(_, importance, result)| result.is_err() && *importance == wanted);
        let mut status = match (failed(Importance::Required), failed(Importance::Helpful)) {
            (true, _) => "unavailable",
            (false, true) => "degraded",
            (false, false) => "ready",
        };
        let mut checks: BTreeMap<_, _> = results
            .into_iter()
            .map(|(name, _, result)| (name, result.err().unwrap_or_else(|| "ok".to_owned())))
            .collect();
        if self.stopping.load(Ordering::Relaxed) {
            status = "unavailable";
            checks.insert("process".to_owned(), "stopping".to_owned());
        }
        Report { status, checks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_helpful_dependency_that_is_away_degrades_and_a_required_one_stops() {
        let health = Health::default();
        health.check("redis", Importance::Helpful, || Box::pin(async { Err("refused".to_owned()) }));
        assert_eq!(health.report().await.status, "degraded");

        health.check("postgresql", Importance::Required, || Box::pin(async { Err("refused".to_owned()) }));
        let report = health.report().await;
        assert_eq!(report.status, "unavailable");
        assert_eq!(report.checks["postgresql"], "refused");
    }

    #[tokio::test]
    async fn a_process_that_is_stopping_is_not_ready() {
        let health = Health::default();
        health.stopping();
        assert!(!health.report().await.is_ready());
    }
}
