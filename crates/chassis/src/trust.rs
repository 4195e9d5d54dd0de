//! Follows what auth tells of tokens, so that verifying one needs no I/O and knows within a second of what has ended.

use std::time::Duration;

use common::Verifier;
use common::trust::{BEAT_EVERY, PATH, Trust};
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::env::{Origin, Origins};

/// A feed that is silent for longer is given up, and another one opened: two beats may be late.
const PATIENCE: Duration = Duration::from_millis(3 * BEAT_EVERY.as_millis() as u64);
/// How long to wait for a feed to begin: its first line may be long.
const PATIENCE_AT_FIRST: Duration = Duration::from_secs(2);
/// How soon to ask again.
const RETRY: Duration = Duration::from_millis(100);
/// The longest line taken, in bytes: a snapshot of some hundred thousand ended sessions.
const LONGEST_LINE: usize = 64 * 1024 * 1024;
/// How long the feed may be away before readiness says so.
const GRACE: Duration = Duration::from_secs(1);

/// Since when the feed has been away; `None` while it is there.
pub type Away = watch::Receiver<Option<Instant>>;

/// Why a feed ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("auth cannot be asked: {0}")]
    Request(#[from] reqwest::Error),
    #[error("auth has said nothing for {0:?}")]
    Silent(Duration),
    #[error("auth has closed the feed")]
    Closed,
    #[error("a line of the feed cannot be read: {0}")]
    Line(#[from] serde_json::Error),
    #[error("a line of the feed is longer than {LONGEST_LINE} bytes")]
    TooLong,
}

/// Lets `verifier` learn what an auth service tells, one of `auth` after the other, until `shutdown`.
///
/// While all are away, what was learned stays: tokens go on to be verified, and what is ended meanwhile is learned later.
pub async fn follow(
    verifier: Verifier,
    auth: Origins,
    client: reqwest::Client,
    away: watch::Sender<Option<Instant>>,
    shutdown: CancellationToken,
) {
    let learn = async {
        for origin in auth.iter().cycle() {
            let ended = listen(&verifier, origin, &client, &away).await;
            // Said once, not with every try.
            let was_there = away.send_if_modified(|away| away.is_none() && away.replace(Instant::now()).is_none());
            match ended {
                Err(error) if was_there => tracing::warn!(%error, %origin, "the feed of auth broke off"),
                Err(error) => tracing::debug!(%error, %origin, "the feed of auth is not there"),
                Ok(never) => match never {},
            }
            sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = learn => {}
        () = shutdown.cancelled() => {}
    }
}

/// Reads one feed to its end.
async fn listen(
    verifier: &Verifier,
    origin: &Origin,
    client: &reqwest::Client,
    away: &watch::Sender<Option<Instant>>,
) -> Result<std::convert::Infallible, Ended> {
    let request = client.get(format!("{origin}{PATH}")).send();
    let answer = timeout(PATIENCE_AT_FIRST, request).await.map_err(|_elapsed| Ended::Silent(PATIENCE_AT_FIRST))??;
    let mut pieces = answer.error_for_status()?.bytes_stream();
    let mut text = Vec::new();
    let mut patience = PATIENCE_AT_FIRST;
    loop {
        let piece = timeout(patience, pieces.next()).await.map_err(|_elapsed| Ended::Silent(patience))?;
        let mut searched = text.len();
        text.extend_from_slice(&piece.ok_or(Ended::Closed)??);
        while let Some(end) = text[searched..].iter().position(|byte| *byte == b'\n') {
            let line: Trust = serde_json::from_slice(&text[..searched + end])?;
            text.drain(..=searched + end);
            searched = 0;
            verifier.learn(line);
            away.send_if_modified(|away| away.take().is_some());
            patience = PATIENCE;
        }
        if text.len() > LONGEST_LINE {
            return Err(Ended::TooLong);
        }
    }
}

/// Whether what is ended becomes known here in time, for `/readyz`.
pub fn probe(away: &Away) -> Result<(), String> {
    match *away.borrow() {
        Some(since) if since.elapsed() > GRACE => Err(format!(
            "auth has told nothing for {} s: tokens are verified, but logging out takes effect late",
            since.elapsed().as_secs()
        )),
        _ => Ok(()),
    }
}
