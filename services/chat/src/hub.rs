//! Who on this instance has which room open, and what they are told, in the order of its numbers.
//!
//! Messages come from this instance's own writer and, through the backplane, from others. Each room passes them on in the
//! order of their numbers; where one is missing it is waited for a moment, then read from the database. So a backplane
//! that loses a message, or is away, delays it and loses nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use actix_http::ws::CloseCode;
use backplane::{Backplane, Heard, Listener};
use chassis::Tasks;
use chassis::db::Pool;
use common::{RoomId, UserId};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::dialect::Dialect;
use crate::domain::Message;
use crate::error::ChatError;
use crate::event::{Event, Told};
use crate::socket::Outbox;
use crate::store::messages;
use crate::store::rooms;

/// How long a missing message may be on its way from another instance before it is read from the database.
const MISSING_FOR: Duration = Duration::from_millis(20);
/// No more messages than these wait for a missing one: those beyond are read from the database too.
const MOST_EARLY: usize = 1000;
/// How many messages are read at once.
const READ: i64 = 500;
/// No more messages than these are sent to somebody who comes back; beyond, a client loads the room anew.
pub(crate) const MOST_RECOVERED: i64 = 500;
/// How often it is looked whether something was missed, where other instances may have written.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A room's name on the backplane.
const CHANNEL: &str = "chat:room:";

/// All rooms that somebody on this instance has open.
pub(crate) struct Hub {
    /// This instance, among those on the backplane.
    instance: u64,
    pool: Pool,
    backplane: Backplane,
    listener: Listener,
    tasks: Tasks,
    rooms: Mutex<HashMap<RoomId, Weak<Room>>>,
}

/// A room that somebody has open.
pub(crate) struct Room {
    id: RoomId,
    hub: Arc<Hub>,
    state: Mutex<State>,
}

struct State {
    /// Everybody here has been told up to this number. `None`: not known yet.
    told: Option<i64>,
    /// The highest number that was heard of.
    heard: i64,
    /// Messages that came before one that is missing.
    early: BTreeMap<i64, Arc<Told>>,
    is_catching_up: bool,
    seats: Vec<Seat>,
}

/// Somebody who has the room open.
struct Seat {
    id: u64,
    user_id: UserId,
    /// The client's own name: another socket of the same one takes its place.
    client_id: Option<String>,
    dialect: Dialect,
    outbox: Arc<Outbox>,
    /// What came while it is still told what it has missed.
    held: Option<Vec<Arc<Told>>>,
}

/// What instances tell each other.
#[derive(Serialize, Deserialize)]
struct Wire {
    from: u64,
    event: Event,
}

/// A seat that was taken; it is given up when this is dropped.
pub(crate) struct Taken {
    room: Arc<Room>,
    seat: u64,
    user_id: UserId,
    /// Up to this number the room's messages are in the database; all later ones are told.
    pub(crate) seq: i64,
}

impl Hub {
    pub(crate) fn new(pool: Pool, backplane: Backplane, tasks: Tasks) -> Self {
        let (listener, work) = backplane.listen();
        let shutdown = tasks.shutdown();
        tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = shutdown.cancelled() => {}
            }
        });
        Self { instance: fastrand::u64(..), pool, backplane, listener, tasks, rooms: Mutex::default() }
    }

    /// Takes a seat in the room. The caller has checked that the user is a member.
    ///
    /// Nothing is told on it before [`Taken::begin`].
    pub(crate) async fn sit(
        self: &Arc<Self>,
        room_id: RoomId,
        user_id: UserId,
        client_id: Option<String>,
        dialect: Dialect,
        outbox: Arc<Outbox>,
    ) -> Result<Taken, ChatError> {
        let room = self.open(room_id);
        let seat = fastrand::u64(..);
        {
            let mut state = room.lock();
            if client_id.is_some() {
                let is_same = |other: &Seat| other.user_id == user_id && other.client_id == client_id;
                for old in state.seats.iter().filter(|other| is_same(other) && !Arc::ptr_eq(&other.outbox, &outbox)) {
                    old.outbox.close(CloseCode::Other(4000), "another socket of this client took its place");
                }
                state.seats.retain(|other| !is_same(other));
            }
            state.seats.push(Seat { id: seat, user_id, client_id, dialect, outbox, held: Some(Vec::new()) });
        }
        let mut taken = Taken { room: Arc::clone(&room), seat, user_id, seq: 0 };
        // From here on nothing that is written elsewhere is missed; what was written before is in the database.
        self.listener.join(&format!("{CHANNEL}{room_id}")).await;
        taken.seq = room.up_to_date().await?;
        Ok(taken)
    }

    fn open(self: &Arc<Self>, id: RoomId) -> Arc<Room> {
        let mut rooms = lock(&self.rooms);
        if let Some(room) = rooms.get(&id).and_then(Weak::upgrade) {
            return room;
        }
        let state = State { told: None, heard: 0, early: BTreeMap::new(), is_catching_up: false, seats: Vec::new() };
        let room = Arc::new(Room { id, hub: Arc::clone(self), state: Mutex::new(state) });
        rooms.insert(id, Arc::downgrade(&room));
        room
    }

    fn find(&self, id: RoomId) -> Option<Arc<Room>> {
        lock(&self.rooms).get(&id).and_then(Weak::upgrade)
    }

    /// Tells everybody, here and elsewhere.
    pub(crate) async fn tell(&self, room_id: RoomId, event: Event) {
        if self.backplane.is_remote() {
            let wire = Wire { from: self.instance, event };
            match serde_json::to_vec(&wire) {
                // A message that does not arrive is noticed by its number; what else is told is of the moment.
                Ok(bytes) => drop(self.backplane.publish(&format!("{CHANNEL}{room_id}"), bytes).await),
                Err(error) => tracing::error!(%error, "an event cannot be written"),
            }
            self.tell_here(room_id, wire.event);
        } else {
            self.tell_here(room_id, event);
        }
    }

    fn tell_here(&self, room_id: RoomId, event: Event) {
        if let Some(room) = self.find(room_id) {
            room.tell(Arc::new(Told::new(room_id, event)));
        }
    }

    /// How many users have the room open on this instance.
    pub(crate) fn present(&self, room_id: RoomId) -> Vec<UserId> {
        let Some(room) = self.find(room_id) else { return Vec::new() };
        let mut users: Vec<_> = room.lock().seats.iter().map(|seat| seat.user_id).collect();
        users.sort_unstable();
        users.dedup();
        users
    }
}

/// Passes on what other instances tell, until `shutdown`.
pub(crate) async fn listen(hub: Arc<Hub>, shutdown: CancellationToken) {
    if !hub.backplane.is_remote() {
        return;
    }
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            heard = hub.listener.next() => match heard {
                Heard::Message { channel, payload } => hub.heard(&channel, &payload),
                Heard::Gap => look.reset_immediately(),
            },
            _ = look.tick() => {
                if let Err(error) = hub.look().await {
                    tracing::warn!(error = common::problem::chain(&error), "rooms could not be looked at");
                }
            }
            () = shutdown.cancelled() => return,
        }
    }
}

impl Hub {
    fn heard(&self, channel: &str, payload: &[u8]) {
        let room_id = channel.strip_prefix(CHANNEL).and_then(|id| id.parse().ok());
        match (room_id, serde_json::from_slice::<Wire>(payload)) {
            (Some(room_id), Ok(wire)) if wire.from != self.instance => self.tell_here(room_id, wire.event),
            (Some(_), Ok(_)) => {}
            _ => tracing::warn!("the backplane carries something in a room's channel that is no event"),
        }
    }

    /// Looks whether something was missed, in one query for all rooms.
    async fn look(&self) -> Result<(), ChatError> {
        let open: Vec<Arc<Room>> = {
            let mut rooms = lock(&self.rooms);
            rooms.retain(|_, room| room.strong_count() > 0);
            rooms.values().filter_map(Weak::upgrade).collect()
        };
        if open.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = open.iter().map(|room| room.id.0).collect();
        let last = rooms::last_seqs(&mut *self.pool.get().await?, &ids).await?;
        for room in open {
            if let Some(seq) = last.get(&room.id) {
                room.is_at(*seq);
            }
        }
        Ok(())
    }
}

impl Room {
    /// Passes `told` on, in its order.
    fn tell(self: &Arc<Self>, told: Arc<Told>) {
        let mut state = self.lock();
        let Some(seq) = told.seq() else {
            if let Event::Removed { user_id } = told.event {
                state.remove(user_id);
            }
            state.send(&told);
            return;
        };
        let Some(last) = state.told else { return };
        if seq <= last {
            return;
        }
        state.heard = state.heard.max(seq);
        if state.early.len() < MOST_EARLY {
            state.early.insert(seq, told);
        }
        state.send_early();
        self.catch_up(&mut state);
    }

    /// The room has messages up to `seq`, somebody says.
    fn is_at(self: &Arc<Self>, seq: i64) {
        let mut state = self.lock();
        state.heard = state.heard.max(seq);
        self.catch_up(&mut state);
    }

    /// Reads what is missing, if anything is.
    fn catch_up(self: &Arc<Self>, state: &mut State) {
        let is_missing = state.told.is_some_and(|told| told < state.heard);
        if !is_missing || state.is_catching_up {
            return;
        }
        state.is_catching_up = true;
        let room = Arc::clone(self);
        self.hub.tasks.spawn(async move {
            tokio::time::sleep(MISSING_FOR).await;
            while let Some(after) = room.missing_after() {
                match room.read_after(after).await {
                    Ok(messages) if messages.is_empty() => break,
                    Ok(messages) => room.tell_read(messages),
                    Err(error) => {
                        tracing::warn!(error = common::problem::chain(&error), "missing messages could not be read");
                        break;
                    }
                }
            }
            // What could not be read is looked for again with the next message, or the next look.
            room.lock().is_catching_up = false;
        });
    }

    fn missing_after(&self) -> Option<i64> {
        let state = self.lock();
        state.told.filter(|told| *told < state.heard)
    }

    async fn read_after(&self, after: i64) -> Result<Vec<Message>, ChatError> {
        let mut conn = self.hub.pool.get().await?;
        Ok(messages::after(&mut conn, self.id, after, READ).await?)
    }

    fn tell_read(&self, messages: Vec<Message>) {
        let mut state = self.lock();
        for message in messages {
            let seq = message.seq;
            state.early.insert(seq, Arc::new(Told::new(self.id, Event::Message(message))));
        }
        state.send_early();
    }

    /// Up to which number everybody here was told, or will be. The first to sit down reads it.
    async fn up_to_date(&self) -> Result<i64, ChatError> {
        if let Some(told) = self.lock().told {
            return Ok(told);
        }
        let mut conn = self.hub.pool.get().await?;
        let last = rooms::last_seqs(&mut conn, &[self.id.0]).await?.get(&self.id).copied();
        let last = last.ok_or(ChatError::NoSuchRoom(self.id))?;
        let mut state = self.lock();
        let told = *state.told.get_or_insert(last);
        Ok(told)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Sends what follows on what was told.
    fn send_early(&mut self) {
        let Some(mut told) = self.told else { return };
        self.early.retain(|seq, _| *seq > told);
        while let Some(next) = self.early.remove(&(told + 1)) {
            self.send(&next);
            told += 1;
        }
        self.told = Some(told);
    }

    fn send(&mut self, told: &Arc<Told>) {
        self.seats.retain_mut(|seat| match &mut seat.held {
            Some(held) => {
                held.push(Arc::clone(told));
                true
            }
            None => match told.frame(seat.dialect) {
                Some(frame) => seat.outbox.send(frame),
                None => true,
            },
        });
    }

    fn remove(&mut self, user_id: UserId) {
        self.seats.retain(|seat| {
            let stays = seat.user_id != user_id;
            if !stays {
                seat.outbox.close(CloseCode::Policy, "no member of this room any more");
            }
            stays
        });
    }
}

impl Taken {
    /// From now on the seat is told what happens: first what came since it was taken.
    pub(crate) fn begin(&self) {
        let mut state = self.room.lock();
        let Some(seat) = state.seats.iter_mut().find(|seat| seat.id == self.seat) else { return };
        for told in seat.held.take().unwrap_or_default() {
            // What was told before the seat had its number is in what it has read.
            if told.seq().is_some_and(|seq| seq <= self.seq) {
                continue;
            }
            if let Some(frame) = told.frame(seat.dialect) {
                seat.outbox.send(frame);
            }
        }
    }

    /// Messages after `since` that were told before this seat was taken, or `None` if they are too many, or `since` is ahead
    /// of the room: then the client's memory is of no use here.
    pub(crate) async fn missed(&self, since: i64) -> Result<Option<Vec<Message>>, ChatError> {
        let count = self.seq - since;
        if since < 0 || !(0..=MOST_RECOVERED).contains(&count) {
            return Ok(None);
        }
        if count == 0 {
            return Ok(Some(Vec::new()));
        }
        let mut conn = self.room.hub.pool.get().await?;
        let messages = messages::after(&mut conn, self.room.id, since, count).await?;
        // Nothing is between them: they are numbered without gaps.
        let is_whole = messages.iter().zip(since + 1..).all(|(message, seq)| message.seq == seq);
        Ok((is_whole && messages.len() as i64 == count).then_some(messages))
    }

    /// Whether the user has no other seat here.
    pub(crate) fn is_only(&self) -> bool {
        !self.room.lock().seats.iter().any(|seat| seat.user_id == self.user_id && seat.id != self.seat)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        state.seats.retain(|seat| seat.id != self.seat);
        if state.seats.is_empty() {
            // While the room is held: whoever sits down next finds it left, and joins again.
            self.room.hub.listener.leave(&format!("{CHANNEL}{}", self.room.id));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
