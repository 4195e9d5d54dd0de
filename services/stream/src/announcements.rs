//! Tells followers that a stream is live: a page of them an event, each in a transaction with how far it got. Whatever ends
//! in between, each follower is told once.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::AsyncConnection as _;
use events::StreamAnnounced;
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::error::StreamError;
use crate::store::{follows, notices};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// Followers an event: it stays small, however many there are.
const PAGE: usize = 500;

/// Tells until `shutdown`. Any number of instances may run it.
pub(crate) async fn run(app: Arc<App>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
        while !shutdown.is_cancelled() {
            match tell_page(&app).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(error = common::problem::chain(&error), "followers could not be told");
                    break;
                }
            }
        }
    }
}

/// Tells the next followers. `false`: nobody is left.
async fn tell_page(app: &App) -> Result<bool, StreamError> {
    let mut conn = app.pool.get().await?;
    conn.transaction(async |conn| {
        let Some(notice) = notices::take(conn).await? else { return Ok(false) };
        if !notice.is_due {
            notices::done(conn, notice.broadcast_id).await?;
            return Ok(true);
        }
        let most = i64::try_from(PAGE).unwrap_or(i64::MAX);
        let followers = follows::after(conn, notice.channel_id, notice.told_up_to, most).await?;
        match followers.last() {
            Some((last, _)) if followers.len() == PAGE => notices::told(conn, notice.broadcast_id, *last).await?,
            _ => notices::done(conn, notice.broadcast_id).await?,
        }
        if followers.is_empty() {
            return Ok(true);
        }
        let (by_mail, others): (Vec<_>, Vec<_>) = followers.into_iter().partition(|(_, by_mail)| *by_mail);
        let ids = |all: Vec<(_, bool)>| all.into_iter().map(|(user, _)| user).collect();
        let announced = StreamAnnounced {
            stream_id: notice.stream_id,
            broadcast_id: notice.broadcast_id,
            channel_id: notice.channel_id,
            playback_id: notice.playback_id,
            title: notice.title,
            started_at: notice.started_at,
            by_mail: ids(by_mail),
            others: ids(others),
        };
        outbox::enqueue(conn, &announced, app.clock.now()).await?;
        Ok(true)
    })
    .await
}
