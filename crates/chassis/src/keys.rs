//! Keeps the keys that verify tokens fresh, so that verifying one needs no I/O.

use std::time::Duration;

use common::Verifier;
use common::token::Jwks;
use tokio_util::sync::CancellationToken;

use crate::env::Origin;

/// How often the keys are loaded when nothing asks for it sooner.
const REFRESH: Duration = Duration::from_secs(60);
/// Tokens with made-up key ids do not make us ask more often than this.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// How long to wait for auth.
const PATIENCE: Duration = Duration::from_secs(2);
/// How soon to ask again while there is no key at all.
const RETRY: Duration = Duration::from_millis(100);

/// Loads the keys of the auth service at `auth` into `verifier`, now, every minute, and when a token names a key
/// that is not known; until `shutdown`. While auth is away, the keys it had stay.
pub async fn keep_fresh(verifier: Verifier, auth: Origin, client: reqwest::Client, shutdown: CancellationToken) {
    let url = format!("{auth}/.well-known/jwks.json");
    loop {
        match load(&client, &url).await {
            Ok(jwks) => verifier.replace_keys(&jwks),
            Err(error) if verifier.has_keys() => tracing::warn!(%error, "the keys could not be refreshed"),
            Err(error) => tracing::debug!(%error, "the keys are not there yet"),
        }
        let pause = async {
            if verifier.has_keys() {
                tokio::time::sleep(AT_MOST_EVERY).await;
                let _ = tokio::time::timeout(REFRESH, verifier.unknown_key()).await;
            } else {
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = pause => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn load(client: &reqwest::Client, url: &str) -> reqwest::Result<Jwks> {
    client.get(url).timeout(PATIENCE).send().await?.error_for_status()?.json().await
}
