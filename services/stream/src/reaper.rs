//! Ends broadcasts that no media server reports any more (nginx-rtmp sends nothing when it is killed), and closes those
//! that nobody came back to.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::broadcasting;
use crate::error::StreamError;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);

/// Looks until `shutdown`.
///
/// Silence counts from a full `BROADCAST_STALE_AFTER` after the start: while we were away nobody could report to us, and no
/// outage of ours ends a broadcast.
pub(crate) async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let mut silence_counts_from = Instant::now() + app.config.stale_after;
    while tokio::time::timeout(EVERY, shutdown.cancelled()).await.is_err() {
        if let Err(error) = look(&app, silence_counts_from).await {
            tracing::warn!(error = common::problem::chain(&error), "silent broadcasts could not be looked for");
            // The database was away, and with it everybody's reports: they get a full period again.
            silence_counts_from = Instant::now() + app.config.stale_after;
        }
    }
}

async fn look(app: &App, silence_counts_from: Instant) -> Result<(), StreamError> {
    app.heard.flush(&app.pool).await?;
    let now = app.clock.now();
    let mut silent = Vec::new();
    {
        let mut conn = app.pool.get().await?;
        if silence_counts_from <= Instant::now() {
            silent = broadcasting::find_stale(&mut conn, now, app.config.rules()).await?;
        }
        silent.extend(broadcasting::find_abandoned(&mut conn, now).await?);
    }
    broadcasting::end_silent(app, silent).await
}
