//! Keeps the last calls of media servers, for whoever wonders why a stream has ended.
//!
//! Nobody who calls waits for it: calls are written together, a moment later. What comes faster than it can be written is
//! counted and left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use diesel_async::AsyncConnection as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::error::StreamError;
use crate::store::webhook_calls::{self, Entry};

/// What comes in this time is written together.
const PAUSE: Duration = Duration::from_millis(200);
/// No more calls than these wait to be written: those of a minute without a database.
const MOST_WAITING: usize = 4000;
/// No more calls than these are written at once: a statement has at most 65,535 values.
const BATCH: usize = 1000;
/// After so many new calls the oldest are forgotten, or after a part of what is kept, if that is less.
const TRIM_AFTER: usize = 1000;

/// Where calls are put down.
pub(crate) struct CallLog {
    queue: mpsc::Sender<Entry>,
    /// The second, since 1970, in which a call of a stranger was last put down.
    stranger_at: AtomicI64,
}

impl CallLog {
    /// One, and its other end, for [`write`].
    pub(crate) fn new() -> (Self, mpsc::Receiver<Entry>) {
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        (Self { queue: sender, stranger_at: AtomicI64::new(0) }, receiver)
    }

    /// Puts a call down. It is in the table soon.
    pub(crate) fn keep(&self, entry: Entry) {
        if self.queue.try_send(entry).is_err() {
            metrics::counter!("stream_webhook_log_dropped_total").increment(1);
        }
    }

    /// Puts down a call of somebody who did not prove to be a media server: one a second, so that no stranger pushes out
    /// what is worth keeping.
    pub(crate) fn keep_stranger(&self, entry: Entry) {
        metrics::counter!("stream_webhook_strangers_total").increment(1);
        let second = entry.received_at.timestamp();
        if self.stranger_at.swap(second, Ordering::Relaxed) != second {
            self.keep(entry);
        }
    }
}

/// Writes what was put down, until `shutdown`, and then what is left.
pub(crate) async fn write(app: Arc<App>, mut kept: mpsc::Receiver<Entry>, shutdown: CancellationToken) {
    let mut writer = Writer { app, waiting: Vec::new(), since_trim: 0, is_failing: false };
    loop {
        // While something could not be written, it is tried again without waiting for more.
        if writer.waiting.is_empty() {
            tokio::select! {
                _ = kept.recv_many(&mut writer.waiting, BATCH) => {}
                () = shutdown.cancelled() => break,
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = shutdown.cancelled() => break,
        }
        while writer.waiting.len() < BATCH
            && let Ok(entry) = kept.try_recv()
        {
            writer.waiting.push(entry);
        }
        writer.flush().await;
    }
    while let Ok(entry) = kept.try_recv() {
        writer.waiting.push(entry);
    }
    writer.flush().await;
}

struct Writer {
    app: Arc<App>,
    waiting: Vec<Entry>,
    since_trim: usize,
    is_failing: bool,
}

impl Writer {
    /// Writes what waits. If that fails it still waits.
    async fn flush(&mut self) {
        match self.try_flush().await {
            Ok(()) => self.is_failing = false,
            // Said once, not at every try.
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                tracing::warn!(
                    error = common::problem::chain(&error),
                    "calls of media servers wait to be written down"
                );
            }
            Err(_) => {}
        }
    }

    async fn try_flush(&mut self) -> Result<(), StreamError> {
        let most = self.app.config.webhook_log;
        let trim_after = TRIM_AFTER.min(usize::try_from(most).unwrap_or(TRIM_AFTER) / 10);
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(BATCH);
            let is_trimmed = self.since_trim + count > trim_after;
            let mut conn = self.app.pool.get().await?;
            let batch = &self.waiting[..count];
            conn.transaction(async |conn| {
                webhook_calls::insert(conn, batch).await?;
                if is_trimmed {
                    webhook_calls::trim(conn, most).await?;
                }
                Ok::<_, StreamError>(())
            })
            .await?;
            self.since_trim = if is_trimmed { 0 } else { self.since_trim + count };
            self.waiting.drain(..count);
        }
        Ok(())
    }
}
