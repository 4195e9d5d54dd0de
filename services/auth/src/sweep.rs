//! Forgets what nobody needs any more. Every instance does it; a repeat changes nothing.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::AsyncConnection as _;
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::error::AuthError;
use crate::store::trust::{Notice, tell};
use crate::store::{sessions, signing_keys, tickets, trust};

const EVERY: Duration = Duration::from_secs(60);

/// Sweeps now and every minute until `shutdown`. What fails is done a minute later.
pub(crate) async fn run(app: Arc<App>, shutdown: CancellationToken) {
    loop {
        app.trust.forget_expired();
        if let Err(error) = sweep(&app).await {
            tracing::warn!(%error, "what has expired stays for now");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn sweep(app: &App) -> Result<(), AuthError> {
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    tickets::forget_expired(&mut conn, now).await?;
    trust::forget_ended(&mut conn, now).await?;
    while sessions::forget_expired(&mut conn, now).await? {}
    conn.transaction(async |conn| {
        signing_keys::lock(conn).await?;
        if signing_keys::delete_retired(conn, now).await? > 0 {
            tell(conn, &Notice::Keys).await?;
        }
        Ok(())
    })
    .await
}
