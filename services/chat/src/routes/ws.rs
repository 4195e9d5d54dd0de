//! The WebSocket of rooms, as 003 shows it.

use std::collections::HashMap;
use std::sync::Arc;

use actix_http::ws::CloseCode;
use actix_web::{HttpRequest, HttpResponse, web};
use common::token::InQuery;
use common::{Claims, Problem, RoomId};
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesOrdered;
use serde::Deserialize;
use tokio::time::{Instant, interval_at};

use crate::App;
use crate::dialect::Dialect;
use crate::dialect::rooms::{self as dialect, Command};
use crate::domain::Draft;
use crate::error::ChatError;
use crate::event::{Event, Told};
use crate::hub::Taken;
use crate::socket::{self, Broken, Inbox, Outbox, Received};
use crate::store::rooms;
use crate::writer::Stored;

/// How many messages of one socket are on their way into the database: beyond, it is not read.
const MOST_UNDERWAY: usize = 64;
/// How many messages that are none are answered with an error; the next one ends the socket.
const MOST_MALFORMED: u32 = 10;
/// How many rooms one socket has open.
const MOST_ROOMS: usize = 100;

#[derive(Deserialize)]
pub(crate) struct Opening {
    /// A room to join at once.
    room_id: Option<RoomId>,
    /// The client's own name: another socket of the same client takes this one's place in a room.
    client_id: Option<String>,
}

/// Opens the WebSocket of rooms. The token may be in the query: a browser's WebSocket has no headers.
pub(crate) async fn rooms(
    app: web::Data<App>,
    request: HttpRequest,
    query: web::Query<Opening>,
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    let verified = app.verifier.caller(request.head(), InQuery::Allowed).map_err(Problem::from)?;
    let (answer, outbox, inbox) = socket::open(&request, payload)?;
    let Opening { room_id, client_id } = query.into_inner();
    let session = Session {
        app: app.into_inner(),
        claims: verified.claims,
        client_id: client_id.map(|id| id.chars().take(64).collect()),
        outbox,
        rooms: HashMap::new(),
        underway: FuturesOrdered::new(),
        malformed: 0,
    };
    actix_web::rt::spawn(session.run(inbox, room_id));
    Ok(answer)
}

/// A socket, from its opening to its end.
struct Session {
    app: Arc<App>,
    claims: Arc<Claims>,
    client_id: Option<String>,
    outbox: Arc<Outbox>,
    rooms: HashMap<RoomId, Taken>,
    /// Messages on their way into the database, in the order that they were sent.
    underway: FuturesOrdered<BoxFuture<'static, Underway>>,
    malformed: u32,
}

/// A message that was sent, and what became of it.
struct Underway {
    room_id: RoomId,
    client_message_id: Option<String>,
    result: Result<Stored, ChatError>,
}

impl Session {
    async fn run(mut self, mut inbox: Inbox, room_id: Option<RoomId>) {
        let app = Arc::clone(&self.app);
        let watch = app.verifier.watch(self.claims.sid);
        if let Some(room_id) = room_id {
            self.join(room_id, None).await;
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
        let rooms: Vec<_> = self.rooms.keys().copied().collect();
        for room_id in rooms {
            self.leave(room_id).await;
        }
        self.outbox.close(CloseCode::Normal, "");
    }

    /// Does what the client says. `None`: it has left.
    async fn receive(&mut self, received: Received) -> Option<()> {
        match received {
            Received::Text(text) => match serde_json::from_slice(&text) {
                Ok(command) => self.obey(command).await,
                Err(error) => self.complain(&format!("not understood: {error}")),
            },
            Received::Binary => self.complain("not understood: messages are JSON texts"),
            Received::Ping(bytes) => drop(self.outbox.send(socket::pong_frame(&bytes))),
            Received::Pong => {}
            Received::Close => return None,
        }
        Some(())
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::JoinRoom { room_id, since } => self.join(room_id, since).await,
            Command::LeaveRoom { room_id } => {
                self.leave(room_id).await;
                self.outbox.send(dialect::left(room_id));
            }
            Command::SendMessage { room_id, content, kind, file_url, client_message_id } => {
                if !self.rooms.contains_key(&room_id) {
                    let name = client_message_id.as_deref();
                    let error = dialect::error("not-joined", "You must join the room first", Some(room_id), name);
                    self.outbox.send(error);
                    return;
                }
                let raw = Command::draft(content, kind, file_url, client_message_id.clone());
                self.send(room_id, Draft::parse(raw).map_err(ChatError::from), client_message_id);
            }
            Command::Ping => drop(self.outbox.send(dialect::pong())),
        }
    }

    fn send(&mut self, room_id: RoomId, draft: Result<Draft, ChatError>, client_message_id: Option<String>) {
        let stored = draft.and_then(|draft| self.app.writer.store(room_id, self.claims.sub, draft));
        let underway = async move {
            let result = match stored {
                Ok(stored) => stored.await.unwrap_or(Err(ChatError::Busy)),
                Err(error) => Err(error),
            };
            Underway { room_id, client_message_id, result }
        };
        self.underway.push_back(underway.boxed());
    }

    fn acknowledge(&self, Underway { room_id, client_message_id, result }: Underway) {
        let name = client_message_id.as_deref();
        self.outbox.send(match result {
            Ok(Stored { message, .. }) => dialect::ack(room_id, message.id, message.seq, name),
            Err(error) => refusal(error, room_id, name),
        });
    }

    async fn join(&mut self, room_id: RoomId, since: Option<i64>) {
        if self.rooms.len() >= MOST_ROOMS && !self.rooms.contains_key(&room_id) {
            let words = format!("at most {MOST_ROOMS} rooms are open at once");
            self.outbox.send(dialect::error("too-many-rooms", &words, Some(room_id), None));
            return;
        }
        // The same room again: as a client does that has lost something.
        self.rooms.remove(&room_id);
        match self.sit(room_id, since).await {
            Ok(taken) => {
                let is_news = taken.is_only();
                self.rooms.insert(room_id, taken);
                if is_news {
                    self.app.hub.tell(room_id, Event::Joined { user_id: self.claims.sub }).await;
                }
            }
            Err(error) => drop(self.outbox.send(refusal(error, room_id, None))),
        }
    }

    async fn sit(&self, room_id: RoomId, since: Option<i64>) -> Result<Taken, ChatError> {
        let user_id = self.claims.sub;
        let room = rooms::find_for_member(&mut *self.app.pool.get().await?, room_id, user_id).await?;
        room.ok_or(ChatError::NoSuchRoom(room_id))?;
        let outbox = Arc::clone(&self.outbox);
        let taken = self.app.hub.sit(room_id, user_id, self.client_id.clone(), Dialect::Rooms, outbox).await?;
        let missed = match since {
            Some(since) => taken.missed(since).await?,
            None => Some(Vec::new()),
        };
        let recovered = since.map(|_| missed.is_some());
        self.outbox.send(dialect::joined(room_id, taken.seq, recovered));
        for message in missed.unwrap_or_default() {
            if let Some(frame) = Told::new(room_id, Event::Message(message)).frame(Dialect::Rooms) {
                self.outbox.send(frame);
            }
        }
        taken.begin();
        Ok(taken)
    }

    async fn leave(&mut self, room_id: RoomId) {
        let Some(taken) = self.rooms.remove(&room_id) else { return };
        let is_news = taken.is_only();
        drop(taken);
        if is_news {
            self.app.hub.tell(room_id, Event::Left { user_id: self.claims.sub }).await;
        }
    }

    fn complain(&mut self, words: &str) {
        self.malformed += 1;
        if self.malformed > MOST_MALFORMED {
            self.outbox.close(CloseCode::Policy, "too much was not understood");
        } else {
            self.outbox.send(dialect::error("not-understood", words, None, None));
        }
    }
}

/// An error as this dialect says it: the same code and words as over HTTP.
fn refusal(error: ChatError, room_id: RoomId, client_message_id: Option<&str>) -> bytes::Bytes {
    let body = Problem::from(error).body();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    dialect::error(&text("code"), &text("detail"), Some(room_id), client_message_id)
}
