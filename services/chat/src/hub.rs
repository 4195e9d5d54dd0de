//! Who on this instance has which room open, and what they are told, in the order of its numbers.
//!
//! Messages come from this instance's own writer and, through the backplane, from others. Each room passes them on in the
//! order of their numbers; where one is missing it is waited for a moment, then read from the database. So a backplane
//! that loses a message, or is away, delays it and loses nothing.

mod followers;
mod lobby;
mod peers;
mod presence;
mod recent;

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use actix_http::ws::CloseCode;
use backplane::{Backplane, Heard, Listener};
use bytes::Bytes;
use chassis::Tasks;
use chassis::db::Pool;
use common::{RoomId, UserId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dialect::Dialect;
use crate::domain::{Emails, Message, Place};
use crate::error::ChatError;
use crate::event::{Event, Told};
use crate::socket::Outbox;
use crate::store::messages;
use crate::store::rooms;

use followers::Followers;
pub(crate) use followers::{Change, Following};
use lobby::Lobby;
use peers::Peers;
pub(crate) use peers::beat;
pub(crate) use presence::attend;
use presence::{Present, Stirred, Where};
use recent::Recent;

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
/// Who types and does not say so again has stopped after this time.
const TYPING_FOR: Duration = Duration::from_secs(6);
/// A backplane that has not taken something is left alone for so long.
const AWAY: Duration = Duration::from_secs(1);
/// A room's name on the backplane.
const CHANNEL: &str = "chat:room:";

/// All rooms that somebody on this instance has open.
pub(crate) struct Hub {
    /// This instance, among those on the backplane.
    instance: u64,
    pool: Pool,
    pub(crate) emails: Emails,
    backplane: Backplane,
    listener: Listener,
    tasks: Tasks,
    rooms: Mutex<HashMap<RoomId, Weak<Room>>>,
    /// Nothing is published before: the backplane has not taken something.
    away_until: Mutex<Option<Instant>>,
    stirred: Stirred,
    peers: Peers,
    followers: Followers,
    lobby: Lobby,
}

/// A room that somebody has open.
pub(crate) struct Room {
    place: Place,
    hub: Arc<Hub>,
    state: Mutex<State>,
    /// Held by whoever reads what others want to read too.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Everybody here has been told up to this number. `None`: not known yet.
    told: Option<i64>,
    /// The highest number that was heard of.
    heard: i64,
    /// Messages that came before one that is missing.
    early: BTreeMap<i64, Arc<Told>>,
    is_catching_up: bool,
    /// What was told last, while somebody comes back.
    recent: Option<Recent>,
    seats: Vec<Seat>,
    present: Present,
    /// Who is typing, and until when if it is not said again.
    typing: HashMap<UserId, Instant>,
    is_timing: bool,
    /// Up to which number each has read, as far as it was told.
    read: HashMap<UserId, i64>,
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
struct Wire<T> {
    from: u64,
    what: T,
}

/// What instances tell each other of a room.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OfRoom<E> {
    Event(E),
    /// Somebody has come or gone.
    Stirred,
}

/// A seat that was taken; it is given up when this is dropped.
pub(crate) struct Taken {
    room: Arc<Room>,
    seat: u64,
    /// Up to this number the room's messages are in the database; all later ones are told.
    pub(crate) seq: i64,
}

impl Hub {
    pub(crate) fn new(pool: Pool, backplane: Backplane, tasks: Tasks, emails: Emails) -> Self {
        let (listener, work) = backplane.listen();
        let shutdown = tasks.shutdown();
        tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = shutdown.cancelled() => {}
            }
        });
        let (lobby, asked) = Lobby::new();
        tasks.spawn(lobby::work(pool.clone(), asked, tasks.shutdown()));
        Self {
            instance: fastrand::u64(..),
            pool,
            emails,
            backplane,
            listener,
            tasks,
            rooms: Mutex::default(),
            away_until: Mutex::default(),
            stirred: Stirred::default(),
            peers: Peers::default(),
            followers: Followers::default(),
            lobby,
        }
    }

    /// Where the room is, if somebody has it open, or the user is a member of it.
    pub(crate) async fn place(&self, room_id: RoomId, user_id: UserId) -> Result<Option<Place>, ChatError> {
        if let Some(room) = self.find(room_id) {
            return Ok(Some(room.place));
        }
        let found = self.lobby.ask(user_id, vec![room_id]).await?;
        Ok(found.get(&room_id).map(|standing| standing.place))
    }

    /// Takes a seat in each of these rooms that the user is a member of, in their order.
    ///
    /// Nothing is told on a seat before [`Taken::begin`].
    pub(crate) async fn sit(
        self: &Arc<Self>,
        places: &[Place],
        user_id: UserId,
        client_id: Option<&str>,
        dialect: Dialect,
        outbox: &Arc<Outbox>,
    ) -> Result<Vec<Taken>, ChatError> {
        let mut all = Vec::with_capacity(places.len());
        for place in places {
            let room = self.open(*place);
            let seat = fastrand::u64(..);
            room.sit(Seat {
                id: seat,
                user_id,
                client_id: client_id.map(str::to_owned),
                dialect,
                outbox: Arc::clone(outbox),
                held: Some(Vec::new()),
            });
            all.push(Taken { room, seat, seq: 0 });
        }
        // From here on nothing that is written elsewhere is missed, nor that the user is taken out; what was before is in the
        // database.
        let ids: Vec<RoomId> = places.iter().map(|place| place.room_id).collect();
        self.listener.join(ids.iter().map(|id| format!("{CHANNEL}{id}"))).await;
        let found = self.lobby.ask(user_id, ids).await?;
        all.retain_mut(|taken| {
            let Some(standing) = found.get(&taken.room.place.room_id) else { return false };
            taken.seq = taken.room.begin_at(standing.last_seq);
            true
        });
        Ok(all)
    }

    fn open(self: &Arc<Self>, place: Place) -> Arc<Room> {
        let mut rooms = lock(&self.rooms);
        if let Some(room) = rooms.get(&place.room_id).and_then(Weak::upgrade) {
            return room;
        }
        let room = Arc::new(Room {
            place,
            hub: Arc::clone(self),
            state: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        });
        rooms.insert(place.room_id, Arc::downgrade(&room));
        room
    }

    fn find(&self, id: RoomId) -> Option<Arc<Room>> {
        lock(&self.rooms).get(&id).and_then(Weak::upgrade)
    }

    /// Tells everybody, here and elsewhere.
    pub(crate) async fn tell(&self, room_id: RoomId, event: Event) {
        if self.backplane.is_remote() {
            // A message that does not arrive is noticed by its number; what else is told is of the moment.
            self.publish(&format!("{CHANNEL}{room_id}"), &OfRoom::Event(&event)).await;
        }
        self.tell_here(room_id, event);
    }

    /// Tells everybody of messages of a room that were stored together.
    pub(crate) async fn tell_messages(&self, room_id: RoomId, messages: Vec<Message>) {
        let events: Vec<_> = messages.into_iter().map(Event::Message).collect();
        if self.backplane.is_remote() {
            let channel = format!("{CHANNEL}{room_id}");
            for event in &events {
                self.publish(&channel, &OfRoom::Event(event)).await;
            }
        }
        if let Some(room) = self.find(room_id) {
            let told = events.into_iter().map(|event| Arc::new(Told::new(room.place, event)));
            room.tell_in_order(told);
        }
    }

    /// The room has messages up to `seq`: those here who have not been told of one are.
    pub(crate) fn has_up_to(&self, room_id: RoomId, seq: i64) {
        if let Some(room) = self.find(room_id) {
            room.is_at(seq);
        }
    }

    async fn publish(&self, channel: &str, what: &impl Serialize) {
        if !self.backplane.is_remote() {
            return;
        }
        // A Redis that hangs is waited for once in a while, not with every message: other instances look by themselves.
        if lock(&self.away_until).is_some_and(|until| Instant::now() < until) {
            return;
        }
        match serde_json::to_vec(&Wire { from: self.instance, what }) {
            Ok(bytes) => {
                let is_away = self.backplane.publish(channel, bytes).await.is_err();
                *lock(&self.away_until) = is_away.then(|| Instant::now() + AWAY);
            }
            Err(error) => tracing::error!(%error, "what was to be told cannot be written"),
        }
    }

    fn tell_here(&self, room_id: RoomId, event: Event) {
        if let Some(room) = self.find(room_id) {
            room.tell(Arc::new(Told::new(room.place, event)));
        }
    }

    fn open_rooms(&self) -> Vec<Arc<Room>> {
        let mut rooms = lock(&self.rooms);
        rooms.retain(|_, room| room.strong_count() > 0);
        rooms.values().filter_map(Weak::upgrade).collect()
    }
}

/// Passes on what other instances tell, until `shutdown`.
pub(crate) async fn listen(hub: Arc<Hub>, shutdown: CancellationToken) {
    if !hub.backplane.is_remote() {
        return;
    }
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut has_gap = false;
    loop {
        tokio::select! {
            heard = hub.listener.next() => match heard {
                Heard::Message { channel, payload } => hub.heard(&channel, &payload),
                Heard::Gap => {
                    has_gap = true;
                    look.reset_immediately();
                }
            },
            _ = look.tick() => {
                let is_away = hub.backplane.probe().await.is_err();
                match hub.look(has_gap, is_away).await {
                    Ok(()) => has_gap = false,
                    Err(error) => {
                        tracing::warn!(error = common::problem::chain(&error), "rooms could not be looked at");
                    }
                }
            }
            () = shutdown.cancelled() => return,
        }
    }
}

impl Hub {
    fn heard(&self, channel: &str, payload: &[u8]) {
        if let Some(room_id) = channel.strip_prefix(CHANNEL).and_then(|id| id.parse().ok()) {
            match self.read_wire(payload) {
                Some(OfRoom::<Event>::Event(event)) => self.tell_here(room_id, event),
                Some(OfRoom::Stirred) => self.stir(room_id, Where::Elsewhere),
                None => {}
            }
        } else if let Some(user_id) = channel.strip_prefix(followers::CHANNEL).and_then(|id| id.parse().ok())
            && let Some(change) = self.read_wire(payload)
        {
            self.tell_followers(user_id, change);
        }
    }

    /// What another instance says.
    fn read_wire<'a, T: Deserialize<'a>>(&self, payload: &'a [u8]) -> Option<T> {
        match serde_json::from_slice::<Wire<T>>(payload) {
            Ok(wire) => (wire.from != self.instance).then_some(wire.what),
            Err(error) => {
                tracing::warn!(%error, "the backplane carries something that is not understood");
                None
            }
        }
    }

    /// Looks whether something was missed, in one query for all rooms. After a gap also whether somebody was let into a room
    /// or taken out, and who is there; while the backplane is away, whether somebody was taken out.
    async fn look(&self, has_gap: bool, is_away: bool) -> Result<(), ChatError> {
        let mut open = self.open_rooms();
        if has_gap {
            self.tell_all_rooms().await?;
            for room in &open {
                self.stir(room.place.room_id, Where::Elsewhere);
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = open.iter().map(|room| room.place.room_id.0).collect();
        let last = rooms::last_seqs(&mut *self.pool.get().await?, &ids).await?;
        open.retain(|room| match last.get(&room.place.room_id) {
            Some(seq) => {
                room.is_at(*seq);
                true
            }
            None => {
                room.tell(Arc::new(Told::new(room.place, Event::Deleted)));
                false
            }
        });
        // Nobody is a member of a room that is deleted: that is told as such.
        if has_gap || is_away {
            self.look_for_removed(&open).await?;
        }
        Ok(())
    }

    async fn look_for_removed(&self, open: &[Arc<Room>]) -> Result<(), ChatError> {
        let mut seated = HashSet::new();
        for room in open {
            seated.extend(room.lock().seats.iter().map(|seat| (room.place.room_id, seat.user_id)));
        }
        let members = messages::find_members(&*self.pool.get().await?, &seated).await?;
        for (room_id, user_id) in seated.into_iter().filter(|pair| !members.contains_key(pair)) {
            self.tell_here(room_id, Event::Removed { user_id });
        }
        Ok(())
    }
}

impl Room {
    fn sit(&self, seat: Seat) {
        let mut state = self.lock();
        if seat.client_id.is_some() {
            let is_same = |other: &Seat| other.user_id == seat.user_id && other.client_id == seat.client_id;
            let others = state.seats.iter().filter(|other| is_same(other) && !Arc::ptr_eq(&other.outbox, &seat.outbox));
            for old in others {
                old.outbox.close(CloseCode::Other(4000), "another socket of this client took its place");
            }
            state.seats.retain(|other| !is_same(other));
        }
        state.seats.push(seat);
    }

    /// Up to which number everybody here was told, or will be; for the first it is `last`, which was read. What was told while
    /// that was read follows.
    fn begin_at(self: &Arc<Self>, last: i64) -> i64 {
        let mut state = self.lock();
        let seq = *state.told.get_or_insert(last);
        state.send_early(self.place);
        self.catch_up(&mut state);
        seq
    }

    /// Passes `told` on, in its order.
    fn tell(self: &Arc<Self>, told: Arc<Told>) {
        match told.seq() {
            Some(_) => self.tell_in_order([told]),
            None => self.tell_at_once(&mut self.lock(), &told),
        }
    }

    /// Passes on what has a number.
    fn tell_in_order(self: &Arc<Self>, all: impl IntoIterator<Item = Arc<Told>>) {
        let mut state = self.lock();
        let last = state.told;
        for told in all {
            let Some(seq) = told.seq().filter(|seq| last.is_none_or(|last| *seq > last)) else { continue };
            state.heard = state.heard.max(seq);
            if state.early.len() < MOST_EARLY {
                state.early.insert(seq, told);
            }
        }
        state.send_early(self.place);
        self.catch_up(&mut state);
    }

    /// Passes on what has no number.
    fn tell_at_once(self: &Arc<Self>, state: &mut State, told: &Arc<Told>) {
        match told.event {
            Event::Removed { user_id } => {
                state.stop_typing(self.place, user_id);
                state.present.forget(user_id);
                state.send(told);
                state.remove(user_id);
                self.hub.tell_followers(user_id, Change::Removed { room_id: self.place.room_id });
            }
            Event::Deleted => {
                state.end(told);
                self.hub.stir(self.place.room_id, Where::Here);
            }
            Event::Typing { user_id, is_typing: true } => {
                state.typing.insert(user_id, Instant::now() + TYPING_FOR);
                state.send(told);
                self.time_typing(state);
            }
            Event::Typing { user_id, is_typing: false } => state.stop_typing(self.place, user_id),
            Event::Read { user_id, seq, .. } => {
                // Of two devices at two instances, the slower may be heard last.
                let known = state.read.entry(user_id).or_default();
                if seq > *known {
                    *known = seq;
                    state.send(told);
                }
            }
            Event::Message(_) | Event::Joined { .. } | Event::Left { .. } | Event::Online { .. } => state.send(told),
        }
    }

    /// Sees to it that whoever types and says nothing more has stopped.
    fn time_typing(self: &Arc<Self>, state: &mut State) {
        if state.is_timing {
            return;
        }
        state.is_timing = true;
        let (room, shutdown) = (Arc::clone(self), self.hub.tasks.shutdown());
        self.hub.tasks.spawn(async move {
            while let Some(next) = room.end_typing() {
                tokio::select! {
                    () = tokio::time::sleep_until(next) => {}
                    () = shutdown.cancelled() => return,
                }
            }
        });
    }

    /// Tells of all whose time is over; returns when that of the next is.
    fn end_typing(&self) -> Option<Instant> {
        let mut state = self.lock();
        let now = Instant::now();
        let over: Vec<_> = state.typing.iter().filter(|(_, ends)| **ends <= now).map(|(user, _)| *user).collect();
        for user_id in over {
            state.stop_typing(self.place, user_id);
        }
        let next = state.typing.values().min().copied();
        state.is_timing = next.is_some();
        next
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
        Ok(messages::after(&mut conn, self.place.room_id, after, READ, self.hub.emails).await?)
    }

    fn tell_read(&self, messages: Vec<Message>) {
        let mut state = self.lock();
        for message in messages {
            let seq = message.seq;
            state.early.insert(seq, Arc::new(Told::new(self.place, Event::Message(message))));
        }
        state.send_early(self.place);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Sends what follows on what was told.
    fn send_early(&mut self, place: Place) {
        let Some(mut told) = self.told else { return };
        self.early.retain(|seq, _| *seq > told);
        let mut following = Vec::new();
        while let Some(next) = self.early.remove(&(told + 1)) {
            if let Event::Message(message) = &next.event {
                self.stop_typing(place, message.user_id);
            }
            if let Some(recent) = &mut self.recent {
                recent.push(&next);
            }
            following.push(next);
            told += 1;
        }
        self.told = Some(told);
        self.send_messages(&following);
    }

    /// What comes together each socket is sent together, so that it goes out in one write.
    fn send_messages(&mut self, all: &[Arc<Told>]) {
        let frames: [OnceCell<Vec<Bytes>>; Dialect::COUNT] = Default::default();
        self.seats.retain_mut(|seat| match &mut seat.held {
            Some(held) => {
                held.extend(all.iter().cloned());
                true
            }
            None => {
                let in_dialect = || all.iter().filter_map(|told| told.frame(seat.dialect)).collect();
                seat.outbox.send_all(frames[seat.dialect as usize].get_or_init(in_dialect))
            }
        });
    }

    fn stop_typing(&mut self, place: Place, user_id: UserId) {
        if self.typing.remove(&user_id).is_some() {
            self.send(&Arc::new(Told::new(place, Event::Typing { user_id, is_typing: false })));
        }
    }

    fn send(&mut self, told: &Arc<Told>) {
        self.seats.retain_mut(|seat| match &mut seat.held {
            _ if told.is_hidden_from(seat.user_id) => true,
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

    /// Tells everybody that the room is no more. Also those who have just come: what they are still to hear is gone too.
    fn end(&mut self, told: &Told) {
        self.told = None;
        self.early.clear();
        self.typing.clear();
        for seat in self.seats.drain(..) {
            if let Some(frame) = told.frame(seat.dialect) {
                seat.outbox.send(frame);
            }
        }
    }

    fn remove(&mut self, user_id: UserId) {
        self.seats.retain(|seat| {
            let stays = seat.user_id != user_id;
            // A socket that hears all rooms of its user has others left.
            if !stays && !seat.dialect.hears_all_rooms() {
                seat.outbox.close(CloseCode::Policy, "no member of this room any more");
            }
            stays
        });
    }
}

impl Taken {
    pub(crate) fn place(&self) -> Place {
        self.room.place
    }

    /// From now on the seat is told what happens: first what came since it was taken.
    pub(crate) fn begin(&self) {
        self.room.hub.stir(self.room.place.room_id, Where::Here);
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
    pub(crate) async fn missed(&self, since: i64) -> Result<Option<Vec<Arc<Told>>>, ChatError> {
        if !(0..=self.seq).contains(&since) || self.seq - since > MOST_RECOVERED {
            return Ok(None);
        }
        let count = self.seq - since;
        if count == 0 {
            return Ok(Some(Vec::new()));
        }
        self.room.between(since, self.seq).await
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let (hub, room_id) = (&self.room.hub, self.room.place.room_id);
        let mut state = self.room.lock();
        state.seats.retain(|seat| seat.id != self.seat);
        if state.seats.is_empty() {
            // While the room is held: whoever sits down next finds it left, and joins again.
            hub.listener.leave(&format!("{CHANNEL}{room_id}"));
        }
        hub.stir(room_id, Where::Here);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
