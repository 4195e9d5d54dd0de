//! A client's connection, from its opening to its end: what it says is done, what happens in its rooms it is told.
//!
//! How it speaks is its dialect's business; here are commands and answers.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use actix_http::ws::CloseCode;
use chrono::{DateTime, Utc};
use common::{Claims, ConversationId, MessageId, Problem, RoomId, StreamId, UserId};
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesOrdered;
use tokio::time::{Instant, interval_at};

use crate::App;
use crate::dialect::Dialect;
use crate::domain::{Draft, Place, RawDraft};
use crate::error::ChatError;
use crate::event::Event;
use crate::hub::{Change, Following, Taken};
use crate::receipts;
use crate::socket::{self, Broken, Inbox, Outbox, Received};
use crate::store::{rooms, streams};
use crate::writer::Stored;

/// How many messages of one connection are on their way into the database: beyond, it is not read.
const MOST_UNDERWAY: usize = 64;
/// How many things that are not understood are answered with an error; the next one ends the connection.
const MOST_MALFORMED: u32 = 10;
/// How many rooms one connection has open.
const MOST_ROOMS: usize = 1000;
/// How many of the user's it opens by itself: those where something was said last.
const MOST_AT_ONCE: i64 = 500;
/// That the user is still typing is passed on no more often.
const TYPING_AGAIN: Duration = Duration::from_secs(2);

/// What a client wants, whatever its dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Hear what is said in a room, and be able to speak. With `since`, the number of the last message that the client has,
    /// it gets what came after.
    Join {
        room: RoomRef,
        since: Option<i64>,
        name: AckName,
    },
    Leave {
        room: RoomRef,
        name: AckName,
    },
    Send {
        room: RoomRef,
        draft: RawDraft,
        name: AckName,
    },
    /// Come back to rooms that are open, each with the number of the last message that the client has.
    Resume {
        since: Vec<(RoomRef, i64)>,
    },
    Typing {
        room: RoomRef,
        is_typing: bool,
    },
    /// All was read up to this message, or to the newest.
    Read {
        room: RoomRef,
        message_id: Option<MessageId>,
    },
    /// Answered, for clients that cannot see pings of the WebSocket.
    Ping,
}

/// How a client names a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RoomRef {
    Id(RoomId),
    Conversation(ConversationId),
    /// The chat of a stream, which everybody may join.
    Stream(StreamId),
}

/// What is not understood: why, in words, and by what the client knows the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) words: String,
    pub(crate) name: AckName,
}

impl<T: Into<String>> From<T> for Unread {
    fn from(words: T) -> Self {
        Self { words: words.into(), name: AckName::default() }
    }
}

/// By what a client knows the answer to something that it sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AckName {
    /// Its own name for the message.
    pub(crate) client_message_id: Option<String>,
    /// The number of the packet.
    pub(crate) packet: Option<u64>,
}

/// What a client is told of what it wanted, whatever its dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The connection is open.
    Connected {
        user_id: UserId,
        /// Those that are open already, and from which message on all is told in them.
        rooms: Vec<(RoomRef, i64)>,
    },
    /// From message `seq` on everything is told. `recovered`: whether the client got all since the one that it had.
    Joined {
        room: RoomRef,
        room_id: RoomId,
        seq: i64,
        recovered: Option<bool>,
        name: AckName,
    },
    Left {
        room: RoomRef,
        name: AckName,
    },
    /// It is stored.
    Stored {
        room: RoomRef,
        id: MessageId,
        seq: i64,
        at: DateTime<Utc>,
        name: AckName,
    },
    Pong,
    /// It was not done: why, as a stable code and in words.
    Refused {
        code: String,
        words: String,
        /// When it may be tried again.
        retry_after_s: Option<u64>,
        room: Option<RoomRef>,
        name: AckName,
    },
}

/// A client's connection.
pub(crate) struct Session {
    app: Arc<App>,
    claims: Arc<Claims>,
    dialect: Dialect,
    /// The client's own name: another connection of the same client takes this one's place in a room.
    client_id: Option<String>,
    outbox: Arc<Outbox>,
    rooms: HashMap<RoomId, Taken>,
    /// How the client names rooms that it has open.
    names: HashMap<RoomRef, RoomId>,
    /// Messages on their way into the database, in the order that they were sent.
    underway: FuturesOrdered<BoxFuture<'static, Underway>>,
    /// What happens to the user, if all rooms of the user are heard.
    following: Option<Following>,
    /// When it was last said that the user is typing.
    typed_at: HashMap<RoomId, Instant>,
    malformed: u32,
}

/// A room to be opened, as the client names it.
struct Wanted {
    room: RoomRef,
    place: Place,
    /// The number of the last message that the client has.
    since: Option<i64>,
    /// By what it knows the answer.
    name: AckName,
}

/// A message that was sent, and what became of it.
struct Underway {
    room: RoomRef,
    name: AckName,
    result: Result<Stored, ChatError>,
}

impl Session {
    pub(crate) fn new(
        app: Arc<App>,
        claims: Arc<Claims>,
        dialect: Dialect,
        client_id: Option<String>,
        outbox: Arc<Outbox>,
    ) -> Self {
        Self {
            app,
            claims,
            dialect,
            client_id: client_id.map(|id| id.chars().take(64).collect()),
            outbox,
            rooms: HashMap::new(),
            names: HashMap::new(),
            underway: FuturesOrdered::new(),
            following: None,
            typed_at: HashMap::new(),
            malformed: 0,
        }
    }

    /// Serves a WebSocket until either side ends it.
    pub(crate) async fn run(mut self, mut inbox: Inbox, joined: Option<RoomRef>) {
        let app = Arc::clone(&self.app);
        let watch = app.verifier.watch(self.claims.sid);
        // What is done now and then stands on the heap for as long: a connection that is idle does not hold room for it.
        Box::pin(self.begin()).await;
        if let Some(room) = joined {
            Box::pin(self.obey(Command::Join { room, since: None, name: AckName::default() })).await;
        }
        let every = app.config.ping_every;
        let mut ping = interval_at(Instant::now() + every, every);
        let mut heard_at = Instant::now();
        while !self.outbox.is_closed() {
            tokio::select! {
                received = inbox.next(), if self.is_ready() => {
                    heard_at = Instant::now();
                    match received {
                        Some(Ok(received)) => if Box::pin(self.receive(received)).await.is_none() { break },
                        Some(Err(Broken::TooLarge)) => {
                            self.outbox.close(CloseCode::Size, "a message has at most 64 KiB");
                        }
                        Some(Err(Broken::Protocol(_))) => self.outbox.close(CloseCode::Protocol, "no WebSocket"),
                        Some(Err(Broken::Gone)) | None => break,
                    }
                }
                Some(underway) = self.underway.next() => self.acknowledge(underway),
                change = next_change(&mut self.following) => Box::pin(self.change(change)).await,
                _ = ping.tick() => {
                    if heard_at.elapsed() > 2 * every {
                        self.outbox.close(CloseCode::Away, "nothing was heard of you");
                    } else {
                        self.outbox.send(socket::ping_frame());
                    }
                }
                () = watch.ended() => self.outbox.close(CloseCode::Policy, "the session has ended"),
                () = app.stopping.cancelled() => {
                    self.outbox.close(CloseCode::Restart, "come back: another instance takes you");
                }
            }
        }
        self.outbox.close(CloseCode::Normal, "");
    }

    /// Whether another command is taken now.
    pub(crate) fn is_ready(&self) -> bool {
        self.underway.len() < MOST_UNDERWAY
    }

    /// Waits until the next message is stored, and acknowledges it. Safe to drop.
    pub(crate) async fn settle(&mut self) {
        match self.underway.next().await {
            Some(underway) => self.acknowledge(underway),
            None => pending().await,
        }
    }

    /// Says that the connection is open; where a dialect joins no rooms, all of the user's are.
    pub(crate) async fn begin(&mut self) {
        if self.dialect.hears_all_rooms()
            && let Err(error) = self.open_all().await
        {
            self.fail(&error);
        } else {
            let rooms = self.names.iter().filter_map(|(name, room_id)| Some((*name, self.rooms.get(room_id)?.seq)));
            self.reply(&Reply::Connected { user_id: self.claims.sub, rooms: rooms.collect() });
            self.rooms.values().for_each(Taken::begin);
        }
    }

    async fn open_all(&mut self) -> Result<(), ChatError> {
        let (hub, user_id) = (&self.app.hub, self.claims.sub);
        // First: a room that the user comes into from now on is told.
        self.following = Some(hub.follow(user_id, Arc::clone(&self.outbox)).await);
        let places = rooms::newest_conversations(&mut *self.app.pool.get().await?, user_id, MOST_AT_ONCE).await?;
        for taken in self.take_seats(&places).await? {
            self.keep(self.dialect.name_of(taken.place()), taken);
        }
        Ok(())
    }

    /// Nothing is told wrongly or not at all: the client comes back instead.
    fn fail(&self, error: &ChatError) {
        tracing::warn!(error = common::problem::chain(error), "rooms could not be opened");
        self.outbox.close(CloseCode::Again, "come back: rooms could not be opened");
    }

    /// Does what the client says. `None`: it has left.
    async fn receive(&mut self, received: Received) -> Option<()> {
        match received {
            Received::Text(text) => match self.dialect.read(&text) {
                Ok(command) => self.obey(command).await,
                Err(unread) => self.complain(unread),
            },
            Received::Binary(_) => self.complain("messages are texts"),
            Received::Ping(bytes) => drop(self.outbox.send(socket::pong_frame(&bytes))),
            Received::Pong => {}
            Received::Close => return None,
        }
        Some(())
    }

    pub(crate) async fn obey(&mut self, command: Command) {
        match command {
            Command::Join { room, since, name } => {
                if let Err(error) = self.join(room, since, name.clone()).await {
                    self.reply(&refused(error, room, name));
                }
            }
            Command::Leave { room, name } => {
                if let Some(room_id) = self.named(room) {
                    self.names.retain(|_, named| *named != room_id);
                    self.rooms.remove(&room_id);
                }
                self.reply(&Reply::Left { room, name });
            }
            Command::Resume { since } => self.resume(since).await,
            Command::Send { room, draft, name } => match self.opened(room).await {
                Ok(room_id) => self.send(room, room_id, draft, name),
                Err(error) => self.reply(&refused(error, room, name)),
            },
            Command::Typing { room, is_typing } => match self.opened(room).await {
                Ok(room_id) => self.tell_typing(room_id, is_typing).await,
                Err(error) => self.reply(&refused(error, room, AckName::default())),
            },
            Command::Read { room, message_id } => {
                let done = match self.opened(room).await {
                    Ok(room_id) => receipts::mark(&self.app, room_id, self.claims.sub, message_id).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = done {
                    self.reply(&refused(error, room, AckName::default()));
                }
            }
            Command::Ping => self.reply(&Reply::Pong),
        }
    }

    /// The room, if the client has it open. The chat of a stream has two names.
    fn named(&self, room: RoomRef) -> Option<RoomId> {
        match room {
            RoomRef::Id(room_id) if self.rooms.contains_key(&room_id) => Some(room_id),
            room => self.names.get(&room).copied(),
        }
    }

    /// The room that the client has open under this name. One that joins none by itself has all of its user's open, the
    /// oldest as soon as it speaks of them.
    ///
    /// 002 shows no joining: who speaks in the chat of a stream takes part in it.
    async fn opened(&mut self, room: RoomRef) -> Result<RoomId, ChatError> {
        if let Some(room_id) = self.named(room) {
            return Ok(room_id);
        }
        if !self.dialect.hears_all_rooms() && !matches!(room, RoomRef::Stream(_)) {
            return Err(ChatError::NotJoined);
        }
        let place = self.find(room).await?;
        self.sit(Wanted { room, place, since: None, name: AckName::default() }).await?;
        Ok(place.room_id)
    }

    async fn tell_typing(&mut self, room_id: RoomId, is_typing: bool) {
        let user_id = self.claims.sub;
        let last = match is_typing {
            true => self.typed_at.insert(room_id, Instant::now()),
            false => self.typed_at.remove(&room_id).and(None),
        };
        let is_news = last.is_none_or(|last| last.elapsed() > TYPING_AGAIN);
        if is_news && self.app.rates.typing(user_id) {
            self.app.hub.tell(room_id, Event::Typing { user_id, is_typing }).await;
        } else if let Some(last) = last {
            self.typed_at.insert(room_id, last);
        }
    }

    /// What happened to the user.
    async fn change(&mut self, change: Change) {
        match change {
            Change::Entered { room_id } if !self.rooms.contains_key(&room_id) => {
                let done = match self.find(RoomRef::Id(room_id)).await {
                    Ok(place) => {
                        self.sit(Wanted {
                            room: self.dialect.name_of(place),
                            place,
                            since: None,
                            name: AckName::default(),
                        })
                        .await
                    }
                    Err(error) => Err(error),
                };
                match done {
                    // One who was taken out again meanwhile.
                    Ok(()) | Err(ChatError::NotInRoom) => {}
                    Err(error) => self.fail(&error),
                }
            }
            Change::Entered { .. } => {}
            Change::Removed { room_id } => {
                self.rooms.remove(&room_id);
                self.names.retain(|_, named| *named != room_id);
            }
        }
    }

    fn send(&mut self, room: RoomRef, room_id: RoomId, draft: RawDraft, name: AckName) {
        // With the message, typing has ended.
        self.typed_at.remove(&room_id);
        let draft = Draft::parse(draft).map_err(ChatError::from);
        let stored = draft.and_then(|draft| self.app.writer.store(room_id, self.claims.sub, draft));
        let underway = async move {
            let result = match stored {
                Ok(stored) => stored.await.unwrap_or(Err(ChatError::Busy)),
                Err(error) => Err(error),
            };
            Underway { room, name, result }
        };
        self.underway.push_back(underway.boxed());
    }

    fn acknowledge(&self, Underway { room, name, result }: Underway) {
        self.reply(&match result {
            Ok(Stored { message, .. }) => {
                Reply::Stored { room, id: message.id, seq: message.seq, at: message.created_at, name }
            }
            Err(error) => refused(error, room, name),
        });
    }

    async fn join(&mut self, room: RoomRef, since: Option<i64>, name: AckName) -> Result<(), ChatError> {
        let place = self.find(room).await?;
        self.sit(Wanted { room, place, since, name }).await
    }

    async fn find(&self, room: RoomRef) -> Result<Place, ChatError> {
        let user_id = self.claims.sub;
        let found = match room {
            RoomRef::Id(room_id) => {
                return self.app.hub.place(room_id, user_id).await?.ok_or(ChatError::NotInRoom);
            }
            RoomRef::Stream(stream_id) => {
                let (mut conn, now) = (self.app.pool.get().await?, self.app.clock.now());
                streams::enter(&mut conn, stream_id, user_id, now).await?
            }
            RoomRef::Conversation(_) => rooms::find_for_member(&mut *self.app.pool.get().await?, room, user_id).await?,
        };
        Ok(found.ok_or(ChatError::NotInRoom)?.place())
    }

    async fn resume(&mut self, all: Vec<(RoomRef, i64)>) {
        let mut wanted = Vec::with_capacity(all.len());
        for (room, since) in all {
            match self.opened(room).await {
                Ok(room_id) => {
                    let place = self.rooms.get(&room_id).map(Taken::place);
                    wanted.extend(place.map(|place| Wanted {
                        room,
                        place,
                        since: Some(since),
                        name: AckName::default(),
                    }));
                }
                Err(error @ (ChatError::NotInRoom | ChatError::NotJoined | ChatError::TooManyRooms)) => {
                    self.reply(&refused(error, room, AckName::default()));
                }
                Err(error) => return self.fail(&error),
            }
        }
        if let Err(error) = self.sit_in_all(wanted).await {
            self.fail(&error);
        }
    }

    async fn sit(&mut self, wanted: Wanted) -> Result<(), ChatError> {
        let room_id = wanted.place.room_id;
        if self.rooms.len() >= MOST_ROOMS && !self.rooms.contains_key(&room_id) {
            return Err(ChatError::TooManyRooms);
        }
        self.sit_in_all(vec![wanted]).await?;
        // One who was taken out meanwhile has no seat.
        self.rooms.contains_key(&room_id).then_some(()).ok_or(ChatError::NotInRoom)
    }

    /// Opens rooms, and tells what the client has missed in them.
    async fn sit_in_all(&mut self, all: Vec<Wanted>) -> Result<(), ChatError> {
        // The same room again: as a client does that has lost something.
        for wanted in &all {
            self.rooms.remove(&wanted.place.room_id);
        }
        self.names.retain(|_, room_id| self.rooms.contains_key(room_id));
        let places: Vec<_> = all.iter().map(|wanted| wanted.place).collect();
        let mut wanted: HashMap<_, _> = all.into_iter().map(|wanted| (wanted.place.room_id, wanted)).collect();
        for taken in self.take_seats(&places).await? {
            let Some(Wanted { room, place, since, name }) = wanted.remove(&taken.place().room_id) else { continue };
            let missed = match since {
                Some(since) => taken.missed(since).await?,
                None => Some(Vec::new()),
            };
            let recovered = since.map(|_| missed.is_some());
            self.reply(&Reply::Joined { room, room_id: place.room_id, seq: taken.seq, recovered, name });
            for told in missed.unwrap_or_default() {
                if let Some(frame) = told.frame(self.dialect) {
                    self.outbox.send(frame);
                }
            }
            taken.begin();
            self.keep(room, taken);
        }
        Ok(())
    }

    async fn take_seats(&self, places: &[Place]) -> Result<Vec<Taken>, ChatError> {
        let client_id = self.client_id.as_deref();
        self.app.hub.sit(places, self.claims.sub, client_id, self.dialect, &self.outbox).await
    }

    /// The client may name the room as it did, and as its dialect does.
    fn keep(&mut self, room: RoomRef, taken: Taken) {
        let place = taken.place();
        self.names.insert(room, place.room_id);
        self.names.insert(self.dialect.name_of(place), place.room_id);
        self.rooms.insert(place.room_id, taken);
    }

    /// Answers what is not understood.
    pub(crate) fn complain(&mut self, unread: impl Into<Unread>) {
        self.malformed += 1;
        if self.malformed > MOST_MALFORMED {
            self.outbox.close(CloseCode::Policy, "too much was not understood");
        } else {
            let Unread { words, name } = unread.into();
            let code = "not-understood".to_owned();
            self.reply(&Reply::Refused { code, words, retry_after_s: None, room: None, name });
        }
    }

    fn reply(&self, reply: &Reply) {
        if let Some(frame) = self.dialect.write_reply(reply) {
            self.outbox.send(frame);
        }
    }
}

/// What happens next to the user, for whoever follows one.
async fn next_change(following: &mut Option<Following>) -> Change {
    match following {
        Some(following) => following.next().await,
        None => std::future::pending().await,
    }
}

/// An error with the same code and words as over HTTP.
fn refused(error: ChatError, room: RoomRef, name: AckName) -> Reply {
    let retry_after_s = match &error {
        ChatError::TooFast(wait) => Some(wait.as_secs_f64().ceil() as u64),
        _ => None,
    };
    let body = Problem::from(error).body();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    Reply::Refused { code: text("code"), words: text("detail"), retry_after_s, room: Some(room), name }
}
