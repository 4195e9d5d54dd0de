//! Heartbeats of encoders that are on air: nearly all calls of media servers.
//!
//! Nothing is decided anew by them, so they wait for no lock and no commit: one query answers all that came together, and
//! when each encoder was heard of is written a moment later, once for many. A process that is killed loses a fraction of a
//! second of that, which the next heartbeats make up for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chassis::db::Pool;
use chrono::{DateTime, Utc};
use diesel_async::AsyncPgConnection;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::broadcasting::{Outcome, Report};
use crate::call::{Name, What};
use crate::domain::PublicationId;
use crate::error::StreamError;
use crate::machine;
use crate::store::situations;

/// What is heard in this time is written together.
const PAUSE: Duration = Duration::from_millis(200);

/// When encoders were heard of, as far as that is not written.
#[derive(Default)]
pub(crate) struct Heard {
    at: Mutex<HashMap<PublicationId, DateTime<Utc>>>,
    came: Notify,
    /// Held while it is written.
    writing: tokio::sync::Mutex<()>,
}

impl Heard {
    /// This encoder is there.
    pub(crate) fn note(&self, id: PublicationId, at: DateTime<Utc>) {
        self.merge([(id, at)]);
        self.came.notify_one();
    }

    /// Writes what was heard. Whoever judges encoders by their silence calls it first.
    pub(crate) async fn flush(&self, pool: &Pool) -> Result<(), StreamError> {
        let _writing = self.writing.lock().await;
        let heard = std::mem::take(&mut *self.lock());
        if heard.is_empty() {
            return Ok(());
        }
        let written = async { Ok(situations::heard_at(&mut *pool.get().await?, &heard).await?) }.await;
        if written.is_err() {
            self.merge(heard);
        }
        written
    }

    fn merge(&self, heard: impl IntoIterator<Item = (PublicationId, DateTime<Utc>)>) {
        let mut known = self.lock();
        for (id, at) in heard {
            match known.entry(id) {
                Entry::Occupied(mut last) => *last.get_mut() = at.max(*last.get()),
                Entry::Vacant(unknown) => _ = unknown.insert(at),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PublicationId, DateTime<Utc>>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what was heard, until `shutdown`, and then what is left.
pub(crate) async fn write(app: Arc<App>, shutdown: CancellationToken) {
    let mut is_stopping = false;
    while !is_stopping {
        let pause = async {
            app.heard.came.notified().await;
            tokio::time::sleep(PAUSE).await;
        };
        tokio::select! {
            () = pause => {}
            () = shutdown.cancelled() => is_stopping = true,
        }
        if let Err(error) = app.heard.flush(&app.pool).await {
            tracing::warn!(error = common::problem::chain(&error), "heartbeats could not be written down");
        }
    }
}

/// Answers those of `reports` that are heartbeats of who is on air, as [`machine::decide`] would. All others are `None`:
/// they are decided by the rules.
pub(crate) async fn answer(
    conn: &mut AsyncPgConnection,
    reports: impl Iterator<Item = &Report> + Clone,
) -> Result<Vec<Option<(Outcome, PublicationId)>>, StreamError> {
    let key = |report: &Report| match &report.call.what {
        What::Heartbeat { name: Name::Key(key) } => Some(key.hash()),
        _ => None,
    };
    let keys: Vec<Option<Vec<u8>>> = reports.clone().map(key).collect();
    let hashes: Vec<&Vec<u8>> = keys.iter().flatten().collect();
    let on_air = if hashes.is_empty() { HashMap::new() } else { situations::on_air_with(conn, &hashes).await? };
    let answers = reports.zip(&keys).map(|(report, key)| {
        let on_air = on_air.get(key.as_ref()?)?;
        let is_its_own =
            on_air.encoder.media_server == report.media_server && on_air.encoder.client_id == report.call.client_id;
        is_its_own.then(|| {
            let step = machine::still_there(on_air.publication);
            let (stream_id, key_id) = (Some(on_air.stream_id), Some(on_air.key_id));
            (Outcome { answer: step.answer, verdict: step.verdict, stream_id, key_id }, on_air.publication)
        })
    });
    Ok(answers.collect())
}
