//! Tasks that run beside requests. Each is tracked, so that shutdown can wait for it.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks and ends them. Clones share the same set.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    has_panicked: Arc<AtomicBool>,
}

impl Tasks {
    /// Starts `task`, which ends by itself soon after [`Tasks::shutdown`] is cancelled.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let has_panicked = Arc::clone(&self.has_panicked);
        self.tracker.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                // The panic itself has been printed. What the task did is not done any more.
                tracing::error!("a task has panicked; restart the process");
                has_panicked.store(true, Ordering::Relaxed);
            }
        });
    }

    /// Cancelled when the process is to end.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Whether every task still does its work, for `/readyz`.
    pub fn probe(&self) -> Result<(), String> {
        match self.has_panicked.load(Ordering::Relaxed) {
            true => Err("a task has panicked; restart the process".to_owned()),
            false => Ok(()),
        }
    }

    /// Asks every task to end and waits for them, at most `deadline`. Returns whether all ended.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.shutdown.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_told_of_in_readiness() {
        let tasks = Tasks::default();
        tasks.spawn(async { panic!("on purpose") });
        assert!(tasks.stop(Duration::from_secs(5)).await);
        assert!(tasks.probe().is_err());
    }
}
