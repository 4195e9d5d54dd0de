//! A client's connection, from its opening to its end: what it says is done, what happens in its rooms it is told.
//!
//! How it speaks is its dialect's business; here are commands and answers.

use std::collections::HashMap;
use std::sync::Arc;

use actix_http::ws::CloseCode;
use common::{Claims, ConversationId, MessageId, Problem, RoomId, UserId};
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
use crate::store::rooms;
use crate::writer::Stored;

/// How many messages of one connection are on their way into the database: beyond, it is not read.
pub(crate) const MOST_UNDERWAY: usize = 64;
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
    },
    Leave {
        room: RoomRef,
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
        seq: i64,
        recovered: Option<bool>,
    },
    Left {
        room: RoomRef,
    },
    /// It is stored.
    Stored {
        room: RoomRef,
        id: MessageId,
        seq: i64,
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
            self.obey(Command::Join { room, since: None }).await;
        }
        let every = app.config.ping_every;
        let mut ping = interval_at(Instant::now() + every, every);
        let mut heard_at = Instant::now();
        while !self.outbox.is_closed() {
            tokio::select! {
                received = inbox.next(), if self.underway.len() < MOST_UNDERWAY => {
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
                Err(words) => self.complain(&words),
            },
            Received::Binary => self.complain("messages are texts"),
            Received::Ping(bytes) => drop(self.outbox.send(socket::pong_frame(&bytes))),
            Received::Pong => {}
            Received::Close => return None,
        }
        Some(())
    }

    pub(crate) async fn obey(&mut self, command: Command) {
        match command {
            Command::Join { room, since } => self.join(room, since).await,
            Command::Leave { room } => {
                if let Some(room_id) = self.names.remove(&room) {
                    self.leave(room_id).await;
                }
                self.reply(&Reply::Left { room });
            }
            Command::Send { room, draft, name } => match self.names.get(&room) {
                Some(room_id) => self.send(room, *room_id, draft, name),
                None => {
                    let (code, words) = ("not-joined".to_owned(), "You must join the room first".to_owned());
                    self.reply(&Reply::Refused { code, words, room: Some(room), name });
                }
            },
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
            Ok(Stored { message, .. }) => Reply::Stored { room, id: message.id, seq: message.seq, name },
            Err(error) => refused(error, room, name),
        });
    }

    async fn join(&mut self, room: RoomRef, since: Option<i64>) {
        if self.rooms.len() >= MOST_ROOMS && !self.names.contains_key(&room) {
            let words = format!("at most {MOST_ROOMS} rooms are open at once");
            let code = "too-many-rooms".to_owned();
            self.reply(&Reply::Refused { code, words, room: Some(room), name: AckName::default() });
            return;
        }
        // The same room again: as a client does that has lost something.
        if let Some(room_id) = self.names.remove(&room) {
            self.rooms.remove(&room_id);
        }
        match self.sit(room, since).await {
            Ok((room_id, taken)) => {
                let is_news = taken.is_only();
                self.rooms.insert(room_id, taken);
                self.names.insert(room, room_id);
                if is_news {
                    self.app.hub.tell(room_id, Event::Joined { user_id: self.claims.sub }).await;
                }
            }
            Err(error) => self.reply(&refused(error, room, AckName::default())),
        }
    }

    async fn sit(&self, room: RoomRef, since: Option<i64>) -> Result<(RoomId, Taken), ChatError> {
        let user_id = self.claims.sub;
        let found = rooms::find_for_member(&mut *self.app.pool.get().await?, room, user_id).await?;
        let room_id = found.ok_or(ChatError::NotInRoom)?.id;
        let outbox = Arc::clone(&self.outbox);
        let taken = self.app.hub.sit(room_id, user_id, self.client_id.clone(), self.dialect, outbox).await?;
        let missed = match since {
            Some(since) => taken.missed(since).await?,
            None => Some(Vec::new()),
        };
        let recovered = since.map(|_| missed.is_some());
        self.reply(&Reply::Joined { room, seq: taken.seq, recovered });
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
        let is_news = taken.is_only();
        drop(taken);
        if is_news {
            self.app.hub.tell(room_id, Event::Left { user_id: self.claims.sub }).await;
        }
    }

    pub(crate) fn complain(&mut self, words: &str) {
        self.malformed += 1;
        if self.malformed > MOST_MALFORMED {
            self.outbox.close(CloseCode::Policy, "too much was not understood");
        } else {
            let (code, words) = ("not-understood".to_owned(), words.to_owned());
            self.reply(&Reply::Refused { code, words, room: None, name: AckName::default() });
        }
    }

    fn reply(&self, reply: &Reply) {
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
