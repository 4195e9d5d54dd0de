//! Keeps the last calls of media servers, for whoever wonders why a stream has ended.
//!
//! Nobody who calls waits for it: calls are written together, a moment later. Until then no more of them wait than are kept:
//! where more come, or the database is away, the oldest give way, which would be forgotten anyway.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diesel_async::AsyncConnection as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::error::StreamError;
use crate::store::webhook_calls::{self, Entry};

/// What comes in this time is written together. Also how long it takes until what could not be written is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// No more calls than these are written at once.
const BATCH: usize = 1000;
/// After so many new calls the oldest are forgotten, or after a part of what is kept, if that is less.
const TRIM_AFTER: usize = 1000;

/// Where calls are put down.
pub(crate) struct CallLog {
    /// How many calls are kept, and as many heartbeats.
    most: usize,
    waiting: Mutex<Waiting>,
    came: Notify,
    /// The second, since 1970, in which a call of a stranger was last put down.
    stranger_at: AtomicI64,
}

/// What is not written yet, with a number that tells the order.
#[derive(Default)]
struct Waiting {
    next: u64,
    routine: VecDeque<(u64, Entry)>,
    rest: VecDeque<(u64, Entry)>,
}

impl CallLog {
    pub(crate) fn new(most: u32) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Self { most, waiting: Mutex::default(), came: Notify::new(), stranger_at: AtomicI64::new(0) }
    }

    /// Puts a call down. It is in the table soon.
    pub(crate) fn keep(&self, entry: Entry) {
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next += 1;
        let queue = if entry.is_routine() { &mut waiting.routine } else { &mut waiting.rest };
        queue.push_back((number, entry));
        if queue.len() > self.most {
            queue.pop_front();
        }
        drop(waiting);
        self.came.notify_one();
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

    /// What waits, the oldest first.
    fn take(&self) -> Vec<(u64, Entry)> {
        let mut waiting = self.lock();
        let mut all: Vec<_> = waiting.rest.drain(..).collect();
        all.extend(waiting.routine.drain(..));
        drop(waiting);
        all.sort_unstable_by_key(|(number, _)| *number);
        all
    }

    /// Puts back what could not be written.
    fn put_back(&self, entries: Vec<(u64, Entry)>) {
        let mut waiting = self.lock();
        for (number, entry) in entries.into_iter().rev() {
            let queue = if entry.is_routine() { &mut waiting.routine } else { &mut waiting.rest };
            if queue.len() < self.most {
                queue.push_front((number, entry));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what was put down, until `shutdown`, and then what is left.
pub(crate) async fn write(app: Arc<App>, shutdown: CancellationToken) {
    let mut writer = Writer { app, since_trim: 0, is_failing: false };
    loop {
        if !writer.is_failing {
            tokio::select! {
                () = writer.app.call_log.came.notified() => {}
                () = shutdown.cancelled() => break,
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = shutdown.cancelled() => break,
        }
        writer.flush().await;
    }
    writer.flush().await;
}

struct Writer {
    app: Arc<App>,
    since_trim: usize,
    is_failing: bool,
}

impl Writer {
    /// Writes what waits. What cannot be written still waits.
    async fn flush(&mut self) {
        let mut entries = self.app.call_log.take();
        while !entries.is_empty() {
            let later = entries.split_off(entries.len().min(BATCH));
            if let Err(error) = self.insert(&entries).await {
                entries.extend(later);
                self.app.call_log.put_back(entries);
                // Said once, not at every try.
                if !self.is_failing {
                    self.is_failing = true;
                    tracing::warn!(
                        error = common::problem::chain(&error),
                        "calls of media servers wait to be written down"
                    );
                }
                return;
            }
            entries = later;
        }
        self.is_failing = false;
    }

    async fn insert(&mut self, entries: &[(u64, Entry)]) -> Result<(), StreamError> {
        let most = self.app.config.webhook_log;
        let trim_after = TRIM_AFTER.min(self.app.call_log.most / 10);
        let is_trimmed = self.since_trim + entries.len() > trim_after;
        let mut conn = self.app.pool.get().await?;
        conn.transaction(async |conn| {
            webhook_calls::insert(conn, entries.iter().map(|(_, entry)| entry)).await?;
            if is_trimmed {
                webhook_calls::trim(conn, most).await?;
            }
            Ok::<_, StreamError>(())
        })
        .await?;
        self.since_trim = if is_trimmed { 0 } else { self.since_trim + entries.len() };
        Ok(())
    }
}
