//! Who has a room open, at whatever instance: somebody with several devices is there once.
//!
//! Each instance puts a note of who is there with it where the others read it, tells them that it has, and tells its own
//! clients what has changed. A note is renewed; that of an instance that is gone (`peers`) counts no more.
//!
//! In a crowd nobody is told who comes and goes: told to all of them, it would grow with the square of how many they are.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{RoomId, UserId};
use futures_util::{StreamExt as _, stream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{CHANNEL, Hub, OfRoom, Room, lock};
use crate::event::{Event, Told};

/// What changes within this time is told together: who comes back at once was not away.
const GATHER: Duration = Duration::from_millis(50);
/// How often a note is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(20);
/// How long a note counts that is not renewed.
const LASTS: Duration = Duration::from_secs(60);
/// So many notes are written at once.
const AT_ONCE: usize = 32;
/// More than these are a crowd. If all of so many come back at once, that is 10,000 frames: as much as 20 messages to 500.
const MOST_TOLD: usize = 100;
/// A crowd is one until it is no more than these, so that it does not change with each who comes or goes.
const FEW_AGAIN: usize = 80;
/// How often a crowd is told how many it is, if that has changed.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Rooms where somebody has come or gone.
#[derive(Default)]
pub(super) struct Stirred {
    rooms: Mutex<HashMap<RoomId, Where>>,
    notify: Notify,
}

/// At which instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    Here,
    Elsewhere,
}

/// Who has the room open.
#[derive(Default)]
pub(super) struct Present {
    /// As the clients here know it. `None`: they know nothing yet.
    known: Option<BTreeSet<UserId>>,
    /// At this instance, as the others know it.
    noted: BTreeSet<UserId>,
    /// At other instances.
    elsewhere: BTreeSet<UserId>,
    /// How many the clients here know that they are, if they are a crowd.
    crowd: Option<usize>,
}

impl Present {
    /// The user is no member any more, which was told.
    pub(super) fn forget(&mut self, user_id: UserId) {
        if let Some(known) = &mut self.known {
            known.remove(&user_id);
        }
    }
}

impl Hub {
    /// Somebody has come or gone.
    pub(super) fn stir(&self, room_id: RoomId, at: Where) {
        keep(&mut lock(&self.stirred.rooms), room_id, at);
        self.stirred.notify.notify_one();
    }

    fn is_crowd(&self, room_id: RoomId) -> bool {
        self.find(room_id).is_some_and(|room| room.lock().present.crowd.is_some())
    }

    async fn take_notes(&self, rooms: HashMap<RoomId, Where>) {
        let notes = stream::iter(rooms);
        notes.for_each_concurrent(AT_ONCE, async |(room_id, at)| self.take_note(room_id, at).await).await;
    }

    /// Who has the room open, at whatever instance.
    pub(crate) async fn present(&self, room_id: RoomId) -> BTreeSet<UserId> {
        let room = self.find(room_id);
        let notes = self.backplane.notes(&board(room_id), &self.name()).await;
        let mut present = match (notes, &room) {
            (Ok(notes), _) => self.read(&notes),
            // As it was before the backplane went away.
            (Err(_away), Some(room)) => room.lock().present.elsewhere.clone(),
            (Err(_away), None) => BTreeSet::new(),
        };
        present.extend(room.map(|room| room.here()).unwrap_or_default());
        present
    }

    /// This instance, where notes are.
    pub(super) fn name(&self) -> String {
        format!("{:016x}", self.instance)
    }

    async fn take_note(&self, room_id: RoomId, at: Where) {
        let room = self.find(room_id);
        let here = room.as_ref().map(|room| room.here()).unwrap_or_default();
        let mut elsewhere = None;
        if self.backplane.is_remote() {
            let note = (!here.is_empty()).then(|| self.write(&here));
            elsewhere = self.backplane.note(&board(room_id), &self.name(), note, LASTS).await.ok();
            let is_news = || room.as_ref().map_or(at == Where::Here, |room| room.is_news(&here));
            if elsewhere.is_some() && is_news() {
                self.publish(&format!("{CHANNEL}{room_id}"), &OfRoom::<()>::Stirred).await;
            }
        }
        if let Some(room) = room {
            room.show(here, elsewhere.map(|notes| self.read(&notes)));
        }
    }

    /// A note: who has put it up, and the users' ids, one after the other.
    fn write(&self, users: &BTreeSet<UserId>) -> Vec<u8> {
        let ids = users.iter().flat_map(|user| user.0.into_bytes());
        self.instance.to_be_bytes().into_iter().chain(ids).collect()
    }

    /// The users in the notes of instances that are not gone.
    fn read(&self, notes: &[Vec<u8>]) -> BTreeSet<UserId> {
        let notes = notes.iter().filter_map(|note| note.split_first_chunk());
        let live = notes.filter(|(instance, _)| !self.peers.is_gone(u64::from_be_bytes(**instance)));
        let ids = live.flat_map(|(_, ids)| ids.as_chunks::<16>().0);
        ids.map(|bytes| UserId(uuid::Uuid::from_bytes(*bytes))).collect()
    }
}

impl Room {
    fn here(&self) -> BTreeSet<UserId> {
        // One who does not sit yet may turn out to be no member.
        self.lock().seats.iter().filter(|seat| seat.held.is_none()).map(|seat| seat.user_id).collect()
    }

    /// Whether other instances do not know yet that these are here.
    fn is_news(&self, here: &BTreeSet<UserId>) -> bool {
        let mut state = self.lock();
        let is_news = state.present.noted != *here;
        state.present.noted.clone_from(here);
        is_news
    }

    /// Tells the clients here what has changed. `elsewhere`: `None` if it cannot be known, and is taken to be as it was.
    fn show(&self, here: BTreeSet<UserId>, elsewhere: Option<BTreeSet<UserId>>) {
        let mut state = self.lock();
        if let Some(elsewhere) = elsewhere {
            state.present.elsewhere = elsewhere;
        }
        let elsewhere = &state.present.elsewhere;
        let before = state.present.known.clone().unwrap_or_else(|| elsewhere.clone());
        let now: BTreeSet<_> = here.union(elsewhere).copied().collect();
        let was_crowd = state.present.crowd.is_some();
        let is_crowd = now.len() > if was_crowd { FEW_AGAIN } else { MOST_TOLD };
        match (was_crowd, is_crowd) {
            (false, false) => {
                let joined = now.difference(&before).map(|user_id| Event::Joined { user_id: *user_id });
                let left = before.difference(&now).map(|user_id| Event::Left { user_id: *user_id });
                for event in joined.chain(left) {
                    state.send(&Arc::new(Told::new(self.place, event)));
                }
            }
            (true, true) => {}
            (false, true) | (true, false) => {
                state.present.crowd = is_crowd.then_some(now.len());
                state.send(&Arc::new(Told::new(self.place, Event::Online { count: now.len() })));
            }
        }
        state.present.known = Some(now);
    }

    /// Tells a crowd how many it is, if that has changed.
    fn count(&self) {
        let mut state = self.lock();
        let count = state.present.known.as_ref().map_or(0, BTreeSet::len);
        if state.present.crowd.is_some_and(|told| told != count) {
            state.present.crowd = Some(count);
            state.send(&Arc::new(Told::new(self.place, Event::Online { count })));
        }
    }
}

/// Keeps notes and tells who comes and goes, until `shutdown`.
pub(crate) async fn attend(hub: Arc<Hub>, shutdown: CancellationToken) {
    let mut renew = tokio::time::interval(RENEW_EVERY);
    let mut count = tokio::time::interval(COUNT_EVERY);
    let mut crowds = HashMap::new();
    loop {
        let rooms = tokio::select! {
            () = hub.stirred.notify.notified() => {
                tokio::time::sleep(GATHER).await;
                let stirred = std::mem::take(&mut *lock(&hub.stirred.rooms)).into_iter();
                // The note of a crowd is long: it is written when the crowd is counted.
                let (of_crowds, rooms): (Vec<_>, Vec<_>) = stirred.partition(|(room_id, _)| hub.is_crowd(*room_id));
                of_crowds.into_iter().for_each(|(room_id, at)| keep(&mut crowds, room_id, at));
                rooms.into_iter().collect()
            }
            _ = renew.tick(), if hub.backplane.is_remote() => {
                hub.open_rooms().iter().map(|room| (room.place.room_id, Where::Elsewhere)).collect()
            }
            _ = count.tick() => {
                hub.take_notes(std::mem::take(&mut crowds)).await;
                hub.open_rooms().iter().for_each(|room| room.count());
                continue;
            }
            () = shutdown.cancelled() => return,
        };
        hub.take_notes(rooms).await;
    }
}

/// Of a room where somebody has come or gone here it is remembered, whatever happened elsewhere.
fn keep(rooms: &mut HashMap<RoomId, Where>, room_id: RoomId, at: Where) {
    let known = rooms.entry(room_id).or_insert(at);
    if at == Where::Here {
        *known = at;
    }
}

fn board(room_id: RoomId) -> String {
    format!("chat:present:{room_id}")
}
