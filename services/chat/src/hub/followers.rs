//! Connections that hear all rooms of their user, also those that the user comes into later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use actix_http::ws::CloseCode;
use common::{RoomId, UserId};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Hub, lock};
use crate::error::ChatError;
use crate::socket::Outbox;
use crate::store::members;

/// A user's name on the backplane.
pub(super) const CHANNEL: &str = "chat:user:";
/// No more changes than these wait for a connection; one for which more wait is to come back and read all anew.
const MOST_WAITING: usize = 1024;

/// What happened to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Change {
    /// Is a member of this room now.
    Entered { room_id: RoomId },
    /// Is a member of it no more.
    Removed { room_id: RoomId },
}

#[derive(Default)]
pub(super) struct Followers(Mutex<HashMap<UserId, Vec<Follower>>>);

struct Follower {
    id: u64,
    changes: mpsc::Sender<Change>,
    outbox: Arc<Outbox>,
}

/// A connection that is told what happens to its user, until this is dropped.
pub(crate) struct Following {
    hub: Arc<Hub>,
    user_id: UserId,
    id: u64,
    changes: mpsc::Receiver<Change>,
}

impl Following {
    /// What happens next. Safe to drop.
    pub(crate) async fn next(&mut self) -> Change {
        match self.changes.recv().await {
            Some(change) => change,
            // The connection is being closed.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut followers = lock(&self.hub.followers.0);
        let Some(of_user) = followers.get_mut(&self.user_id) else { return };
        of_user.retain(|follower| follower.id != self.id);
        if of_user.is_empty() {
            followers.remove(&self.user_id);
            // While the followers are held: whoever follows next finds it left, and joins again.
            self.hub.listener.leave(&format!("{CHANNEL}{}", self.user_id));
        }
    }
}

impl Hub {
    /// From now on the connection is told what happens to the user.
    pub(crate) async fn follow(self: &Arc<Self>, user_id: UserId, outbox: Arc<Outbox>) -> Following {
        let id = fastrand::u64(..);
        let (sender, changes) = mpsc::channel(MOST_WAITING);
        lock(&self.followers.0).entry(user_id).or_default().push(Follower { id, changes: sender, outbox });
        let following = Following { hub: Arc::clone(self), user_id, id, changes };
        self.listener.join([format!("{CHANNEL}{user_id}")]).await;
        following
    }

    /// Tells all connections of the user, here and elsewhere, that the user is a member of the room now.
    pub(crate) async fn enter(&self, room_id: RoomId, user_id: UserId) {
        let change = Change::Entered { room_id };
        self.publish(&format!("{CHANNEL}{user_id}"), &change).await;
        self.tell_followers(user_id, change);
    }

    /// Tells those on this instance.
    pub(super) fn tell_followers(&self, user_id: UserId, change: Change) {
        let mut followers = lock(&self.followers.0);
        let Some(of_user) = followers.get_mut(&user_id) else { return };
        of_user.retain(|follower| {
            let is_told = follower.changes.try_send(change).is_ok();
            if !is_told {
                follower.outbox.close(CloseCode::Again, "too much has changed: come back");
            }
            is_told
        });
    }

    /// Tells everybody on this instance of all their rooms: what was missed is among them.
    pub(super) async fn tell_all_rooms(&self) -> Result<(), ChatError> {
        let users: Vec<_> = lock(&self.followers.0).keys().map(|user| user.0).collect();
        if users.is_empty() {
            return Ok(());
        }
        for (user_id, room_id) in members::conversations_of(&mut *self.pool.get().await?, &users).await? {
            self.tell_followers(user_id, Change::Entered { room_id });
        }
        Ok(())
    }
}
