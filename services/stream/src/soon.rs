//! Tells everybody that a stream begins soon: once for each schedule.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::AsyncConnection as _;
use events::StreamScheduledSoon;
use outbox::Pending;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::error::StreamError;
use crate::store::{feed, schedules};

/// How often it looks: a schedule is told of this much later at most.
const EVERY: Duration = Duration::from_secs(10);
/// No more than these are told of in one transaction.
const MOST: i64 = 100;

/// Tells until `shutdown`. Any number of instances may run it.
pub(crate) async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let every = EVERY.min(app.config.scheduled_soon / 10).max(Duration::from_millis(100));
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = shutdown.cancelled() => return,
        }
        if let Err(error) = tell(&app).await {
            tracing::warn!(error = common::problem::chain(&error), "what begins soon could not be told");
        }
    }
}

async fn tell(app: &App) -> Result<(), StreamError> {
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    conn.transaction(async |conn| {
        let (mut events, mut items) = (Vec::new(), Vec::new());
        for soon in schedules::take_due(conn, now, app.config.scheduled_soon, MOST).await? {
            let data = json!({
                "streamId": soon.stream_id,
                "userId": soon.user_id,
                "title": soon.title,
                "scheduledAt": soon.scheduled_at,
            });
            items.push(feed::Item { kind: "scheduled", stream_id: soon.stream_id, data });
            events.push(Pending::of(&StreamScheduledSoon {
                stream_id: soon.stream_id,
                user_id: soon.user_id,
                playback_id: soon.playback_id,
                title: soon.title,
                scheduled_at: soon.scheduled_at,
            })?);
        }
        outbox::enqueue_all(conn, &events, now).await?;
        feed::tell(conn, &items, now).await?;
        Ok(())
    })
    .await
}
