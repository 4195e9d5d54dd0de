//! Ends broadcasts that no media server reports any more: nginx-rtmp sends nothing when it is killed.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::App;
use crate::broadcasting;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);

/// Looks until `shutdown`.
///
/// It begins a full `BROADCAST_STALE_AFTER` after the start: while we were away nobody could report to us, and no
/// outage of ours ends a broadcast.
pub(crate) async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let mut pause = app.config.stale_after;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
        pause = EVERY;
        if let Err(error) = broadcasting::end_silent(&app).await {
            tracing::warn!(error = common::problem::chain(&error), "stale broadcasts could not be looked for");
            // The database was away, and with it everybody's reports: they get a full period again.
            pause = app.config.stale_after;
        }
    }
}
