//! Lists and details of streams, kept for a moment: many viewers ask the same.
//!
//! Entries belong to a generation. A change begins a new one, so that everything older is never read again, also
//! what a slow reader stores late. Without the backplane every answer comes from the database.

use std::future::Future;
use std::time::Duration;

use backplane::Backplane;
use common::StreamId;

use crate::error::StreamError;

const GENERATION: &str = "streams:generation";
/// Longer than any entry lives: a counter that starts again must not meet entries of its former life.
const GENERATION_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) struct Cache {
    backplane: Backplane,
    ttl: Duration,
}

impl Cache {
    pub(crate) fn new(backplane: Backplane, ttl: Duration) -> Self {
        Self { backplane, ttl }
    }

    /// The answer under `key`, from the cache, or else from `load`, which is then kept.
    pub(crate) async fn get_or(
        &self,
        key: &str,
        load: impl Future<Output = Result<Vec<u8>, StreamError>>,
    ) -> Result<Vec<u8>, StreamError> {
        let Ok(generation) = self.backplane.count(GENERATION).await else { return load.await };
        let key = format!("streams:{generation}:{key}");
        if let Ok(Some(answer)) = self.backplane.get(&key).await {
            metrics::counter!("stream_cache_total", "outcome" => "hit").increment(1);
            return Ok(answer);
        }
        let answer = load.await?;
        metrics::counter!("stream_cache_total", "outcome" => "miss").increment(1);
        // Kept or not, the answer is right.
        let _ = self.backplane.set(&key, answer.clone(), self.ttl).await;
        Ok(answer)
    }

    /// Forgets all lists and these streams: call it after the commit of a change, before it is answered.
    pub(crate) async fn forget(&self, _changed: &[StreamId]) {
        self.forget_all().await;
    }

    /// Forgets everything.
    pub(crate) async fn forget_all(&self) {
        if let Err(error) = self.backplane.increment(GENERATION, GENERATION_LIFETIME).await {
            // Whoever still reaches the backplane reads what it has, for `ttl` at most.
            tracing::debug!(%error, "cached streams could not be dropped");
        }
    }
}
