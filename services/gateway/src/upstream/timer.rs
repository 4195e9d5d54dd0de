//! A deadline that is cheap to move.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// The deadline of whatever a connection waits for.
///
/// Nearly every deadline is cancelled long before it passes. So the runtime's timer is left running when one is
/// cancelled, and set again only when it fires too early: a busy connection touches it once a minute, not once a request.
#[derive(Debug, Default)]
pub(super) struct Timer {
    deadline: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Start to wait, unless it is already waited.
    pub(super) fn start(&mut self, wait: Duration) {
        if self.deadline.is_none() {
            self.deadline = Some(Instant::now() + wait);
        }
    }

    /// What was waited for has happened.
    pub(super) fn stop(&mut self) {
        self.deadline = None;
    }

    /// Ready when the time is up. Pending for ever when nothing was started.
    pub(super) fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // A shorter wait than the one the timer still runs for.
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() == deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_stopped_wait_does_not_end_the_next_one() {
        let mut timer = Timer::default();
        let began = Instant::now();
        timer.start(Duration::from_millis(5));
        assert!(poll_fn(|cx| Poll::Ready(timer.poll_elapsed(cx))).await.is_pending());
        timer.stop();

        timer.start(Duration::from_millis(30));
        poll_fn(|cx| timer.poll_elapsed(cx)).await;

        assert!(began.elapsed() >= Duration::from_millis(30));
    }

    #[tokio::test]
    async fn a_shorter_wait_is_not_kept_by_a_longer_one() {
        let mut timer = Timer::default();
        timer.start(Duration::from_secs(3600));
        assert!(poll_fn(|cx| Poll::Ready(timer.poll_elapsed(cx))).await.is_pending());
        timer.stop();

        timer.start(Duration::from_millis(5));
        poll_fn(|cx| timer.poll_elapsed(cx)).await;
    }
}
