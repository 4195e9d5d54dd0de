//! A client's connection, from its opening to its end: what it says is done, what happens in its rooms it is told.
//!
//! How it speaks is its dialect's business; here are commands and answers.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;

use actix_http::ws::CloseCode;
use chrono::{DateTime, Utc};
use common::{Claims, ConversationId, MessageId, Problem, RoomId, StreamId, UserId};
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesOrdered;
use tokio::time::{Instant, interval_at};

use crate::App;
use crate::dialect::Dialect;
use crate::domain::{Draft, RawDraft};
use crate::error::ChatError;
use crate::event::{Event, Told};
use crate::hub::Taken;
use crate::socket::{self, Broken, Inbox, Outbox, Received};
use crate::store::{rooms, streams};
use crate::writer::Stored;

/// How many messages of one connection are on their way into the database: beyond, it is not read.
const MOST_UNDERWAY: usize = 64;
/// How many things that are not understood are answered with an error; the next one ends the connection.
const MOST_MALFORMED: u32 = 10;
/// How many rooms one connection has open.
const MOST_ROOMS: usize = 500;

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
    /// Answered, for clients that cannot see pings of the WebSocket.
    Ping,
    /// Understood, and nothing follows.
    Nothing,
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
    malformed: u32,
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
            malformed: 0,
        }
    }

    /// Serves a WebSocket until either side ends it.
    pub(crate) async fn run(mut self, mut inbox: Inbox, joined: Option<RoomRef>) {
        let app = Arc::clone(&self.app);
        let watch = app.verifier.watch(self.claims.sid);
        self.reply(&Reply::Connected { user_id: self.claims.sub });
        if let Some(room) = joined {
            self.obey(Command::Join { room, since: None, name: AckName::default() }).await;
        }
        let every = app.config.ping_every;
        let mut ping = interval_at(Instant::now() + every, every);
        let mut heard_at = Instant::now();
        while !self.outbox.is_closed() {
            tokio::select! {
                received = inbox.next(), if self.is_ready() => {
                    heard_at = Instant::now();
                    match received {
                        Some(Ok(received)) => if self.receive(received).await.is_none() { break },
                        Some(Err(Broken::TooLarge)) => {
                            self.outbox.close(CloseCode::Size, "a message has at most 64 KiB");
                        }
                        Some(Err(Broken::Protocol(_))) => self.outbox.close(CloseCode::Protocol, "no WebSocket"),
                        Some(Err(Broken::Gone)) | None => break,
                    }
                }
                Some(underway) = self.underway.next() => self.acknowledge(underway),
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
        self.end().await;
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

    /// Gives up all rooms.
    pub(crate) async fn end(&mut self) {
        let rooms: Vec<_> = self.rooms.keys().copied().collect();
        for room_id in rooms {
            self.leave(room_id).await;
        }
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
                if let Some(room_id) = self.names.get(&room).copied() {
                    self.leave(room_id).await;
                }
                self.reply(&Reply::Left { room, name });
            }
            Command::Send { room, draft, name } => {
                // 002 shows no joining: who speaks in the chat of a stream takes part in it.
                if matches!(room, RoomRef::Stream(_))
                    && !self.names.contains_key(&room)
                    && let Err(error) = self.join(room, None, AckName::default()).await
                {
                    self.reply(&refused(error, room, name));
                    return;
                }
                match self.names.get(&room) {
                    Some(room_id) => self.send(room, *room_id, draft, name),
                    None => {
                        let (code, words) = ("not-joined".to_owned(), "You must join the room first".to_owned());
                        self.reply(&Reply::Refused { code, words, room: Some(room), name });
                    }
                }
            }
            Command::Ping => self.reply(&Reply::Pong),
            Command::Nothing => {}
        }
    }

    fn send(&mut self, room: RoomRef, room_id: RoomId, draft: RawDraft, name: AckName) {
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
        if self.rooms.len() >= MOST_ROOMS && !self.names.contains_key(&room) {
            return Err(ChatError::TooManyRooms(MOST_ROOMS));
        }
        // The same room again: as a client does that has lost something.
        if let Some(room_id) = self.names.remove(&room) {
            self.rooms.remove(&room_id);
        }
        let (room_id, taken) = self.sit(room, since, name).await?;
        let is_news = taken.is_only();
        self.rooms.insert(room_id, taken);
        self.names.insert(room, room_id);
        if is_news {
            self.app.hub.tell(room_id, Event::Joined { user_id: self.claims.sub }).await;
        }
        Ok(())
    }

    async fn sit(&self, room: RoomRef, since: Option<i64>, name: AckName) -> Result<(RoomId, Taken), ChatError> {
        let user_id = self.claims.sub;
        let mut conn = self.app.pool.get().await?;
        let found = match room {
            RoomRef::Stream(stream_id) => streams::enter(&mut conn, stream_id, user_id, self.app.clock.now()).await?,
            RoomRef::Id(_) | RoomRef::Conversation(_) => rooms::find_for_member(&mut conn, room, user_id).await?,
        };
        drop(conn);
        let room_id = found.ok_or(ChatError::NotInRoom)?.id;
        let outbox = Arc::clone(&self.outbox);
        let taken = self.app.hub.sit(room_id, user_id, self.client_id.clone(), self.dialect, outbox).await?;
        let missed = match since {
            Some(since) => taken.missed(since).await?,
            None => Some(Vec::new()),
        };
        let recovered = since.map(|_| missed.is_some());
        self.reply(&Reply::Joined { room, room_id, seq: taken.seq, recovered, name });
        for message in missed.unwrap_or_default() {
            if let Some(frame) = Told::new(room_id, Event::Message(message)).frame(self.dialect) {
                self.outbox.send(frame);
            }
        }
        taken.begin();
        Ok((room_id, taken))
    }

    async fn leave(&mut self, room_id: RoomId) {
        let Some(taken) = self.rooms.remove(&room_id) else { return };
        self.names.retain(|_, named| *named != room_id);
        let is_news = taken.is_only();
        drop(taken);
        if is_news {
            self.app.hub.tell(room_id, Event::Left { user_id: self.claims.sub }).await;
        }
    }

    /// Answers what is not understood.
    pub(crate) fn complain(&mut self, unread: impl Into<Unread>) {
        self.malformed += 1;
        if self.malformed > MOST_MALFORMED {
            self.outbox.close(CloseCode::Policy, "too much was not understood");
        } else {
            let Unread { words, name } = unread.into();
            self.reply(&Reply::Refused { code: "not-understood".to_owned(), words, room: None, name });
        }
    }

    pub(crate) fn reply(&self, reply: &Reply) {
        if let Some(frame) = self.dialect.write_reply(reply) {
            self.outbox.send(frame);
        }
    }
}

/// An error with the same code and words as over HTTP.
fn refused(error: ChatError, room: RoomRef, name: AckName) -> Reply {
    let body = Problem::from(error).body();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    Reply::Refused { code: text("code"), words: text("detail"), room: Some(room), name }
}
