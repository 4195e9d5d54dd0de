//! Those who want to open rooms: whether they are members, and how far the rooms are.
//!
//! Who comes alone is looked up at once. Where many come together, as they do when an instance has died, many are looked up
//! with one statement.

use std::collections::HashMap;
use std::time::Duration;

use chassis::db::Pool;
use common::{RoomId, UserId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::ChatError;
use crate::store::rooms::{self, Standing};

/// No more wait: beyond, a client comes back later.
const MOST_WAITING: usize = 16 * 1024;
/// No more are looked up with one statement.
const MOST_AT_ONCE: usize = 1024;
/// Of a crowd more come soon: for each of those that have come together others are waited for so long,
const GATHER_EACH: Duration = Duration::from_micros(500);
/// and no longer than this.
const GATHER: Duration = Duration::from_millis(50);

pub(super) struct Lobby(mpsc::Sender<Asked>);

pub(super) struct Asked {
    user_id: UserId,
    rooms: Vec<RoomId>,
    answer: oneshot::Sender<HashMap<RoomId, Standing>>,
}

impl Lobby {
    pub(super) fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        (Self(sender), receiver)
    }

    /// Those of these rooms that the user is a member of, as they are after this was asked.
    pub(super) async fn ask(
        &self,
        user_id: UserId,
        rooms: Vec<RoomId>,
    ) -> Result<HashMap<RoomId, Standing>, ChatError> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Asked { user_id, rooms, answer }).map_err(|_full| ChatError::Busy)?;
        answered.await.map_err(|_failed| ChatError::Away)
    }
}

/// Looks up who asks, until `shutdown`.
pub(super) async fn work(pool: Pool, mut queue: mpsc::Receiver<Asked>, shutdown: CancellationToken) {
    loop {
        let mut all = Vec::new();
        tokio::select! {
            count = queue.recv_many(&mut all, MOST_AT_ONCE) => if count == 0 { return },
            () = shutdown.cancelled() => return,
        }
        let others = u32::try_from(all.len()).unwrap_or(u32::MAX) - 1;
        if let Err(error) = answer(&pool, all).await {
            tracing::warn!(error = common::problem::chain(&error), "who opens rooms could not be looked up");
        }
        if others > 0 {
            tokio::time::sleep(GATHER.min(GATHER_EACH * others)).await;
        }
    }
}

async fn answer(pool: &Pool, all: Vec<Asked>) -> Result<(), ChatError> {
    let pairs = all.iter().flat_map(|one| one.rooms.iter().map(|room_id| (room_id.0, one.user_id.0)));
    let (rooms, users): (Vec<_>, Vec<_>) = pairs.unzip();
    let found = rooms::standings(&mut *pool.get().await?, &rooms, &users).await?;
    for Asked { user_id, rooms, answer } in all {
        let of_user = rooms.iter().filter_map(|room_id| Some((*room_id, *found.get(&(*room_id, user_id))?)));
        let _ = answer.send(of_user.collect()); // Whoever asked may be gone.
    }
    Ok(())
}
