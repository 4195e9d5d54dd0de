//! A client that says and hears the same in whatever dialect.

use std::collections::HashMap;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::{PATIENCE, TestChat, User};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Rooms,
    Conversations,
    SocketIo,
}

pub(crate) const DIALECTS: [Dialect; 3] = [Dialect::Rooms, Dialect::Conversations, Dialect::SocketIo];

/// A room, as each dialect names it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) room: i64,
    pub(crate) conversation: String,
}

impl Place {
    pub(crate) async fn of(chat: &TestChat, user: &User, room: i64) -> Self {
        let list: Value = chat.get(user, "/conversations?limit=100").send().await.unwrap().json().await.unwrap();
        let found = list["items"].as_array().unwrap().iter().find(|item| item["roomId"] == room).unwrap();
        Self { room, conversation: found["id"].as_str().unwrap().to_owned() }
    }
}

/// A message, as a client has heard it or the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) seq: i64,
    pub(crate) id: i64,
    pub(crate) content: String,
    /// The sender's own name for it.
    pub(crate) name: Option<String>,
}

/// What a client is told.
#[derive(Debug)]
pub(crate) enum Heard {
    Joined {
        seq: i64,
        recovered: Option<bool>,
    },
    Message(Seen),
    Stored {
        name: String,
        seq: i64,
    },
    Refused {
        name: Option<String>,
        code: String,
    },
    /// Who comes and goes, who types and who has read.
    Other,
}

/// The connection is gone; the close code, if the server said one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone(pub(crate) u16);

/// The connection broke off without a word.
const BROKEN: Gone = Gone(1006);

pub(crate) struct Peer {
    dialect: Dialect,
    place: Place,
    pub(crate) stream: WebSocketStream<TcpStream>,
    /// What was told before the room is joined anew is told again, if it was missed.
    is_joined: bool,
    /// By the numbers of packets of Socket.IO: messages that are not acknowledged; 0 is the joining.
    sent: HashMap<u64, String>,
    packets: u64,
}

impl Peer {
    /// Opens a connection and comes back to the room, with the number of the last message that it has.
    pub(crate) async fn come(
        url: &str,
        dialect: Dialect,
        token: &str,
        place: &Place,
        since: Option<i64>,
    ) -> Result<Self, Gone> {
        let address = url.strip_prefix("http://").unwrap();
        let Ok(stream) = TcpStream::connect(address).await else { return Err(BROKEN) };
        Self::over(stream, url, dialect, token, place, since).await
    }

    /// The same over a connection that is there.
    pub(crate) async fn over(
        stream: TcpStream,
        url: &str,
        dialect: Dialect,
        token: &str,
        place: &Place,
        since: Option<i64>,
    ) -> Result<Self, Gone> {
        let path = match dialect {
            Dialect::Rooms => format!("/api/v1/chat/ws?token={token}"),
            Dialect::Conversations => format!("/ws/chat?token={token}"),
            Dialect::SocketIo => "/socket.io/?EIO=4&transport=websocket".to_owned(),
        };
        let url = format!("{}{path}", url.replacen("http", "ws", 1));
        let opened = timeout(PATIENCE, client_async(url, stream)).await.expect("an answer comes in time");
        let Ok((stream, _)) = opened else { return Err(BROKEN) };
        let (sent, packets) = (HashMap::new(), 0);
        let mut peer = Self { dialect, place: place.clone(), stream, is_joined: false, sent, packets };
        match dialect {
            Dialect::Rooms => {}
            // It comes first of all.
            Dialect::Conversations => drop(peer.text().await?),
            Dialect::SocketIo => {
                peer.text().await?;
                peer.say(format!("40{}", json!({"token": token}))).await?;
                let connected = peer.text().await?;
                assert!(connected.starts_with("40{"), "{connected}");
            }
        }
        peer.join(since).await?;
        Ok(peer)
    }

    /// Joins the room, or again; the answer is heard as [`Heard::Joined`], and messages only after it.
    pub(crate) async fn join(&mut self, since: Option<i64>) -> Result<(), Gone> {
        self.is_joined = false;
        let Place { room, conversation } = &self.place;
        let text = match self.dialect {
            Dialect::Rooms => json!({"type": "join_room", "room_id": room, "since": since}).to_string(),
            Dialect::Conversations => {
                json!({"type": "resume", "since": {conversation: since.unwrap_or_default()}}).to_string()
            }
            Dialect::SocketIo => format!("420{}", json!(["join", {"roomId": room, "since": since}])),
        };
        self.say(text).await
    }

    /// Sends a message under the client's own name for it.
    pub(crate) async fn send(&mut self, name: &str, content: &str) -> Result<(), Gone> {
        let Place { room, conversation } = &self.place;
        let text = match self.dialect {
            Dialect::Rooms => {
                json!({"type": "send_message", "room_id": room, "content": content, "client_message_id": name})
                    .to_string()
            }
            Dialect::Conversations => {
                json!({"type": "message", "conversationId": conversation, "content": content, "clientMessageId": name})
                    .to_string()
            }
            Dialect::SocketIo => {
                self.packets += 1;
                self.sent.insert(self.packets, name.to_owned());
                let said = json!(["chat_message", {"roomId": room, "message": content, "clientMessageId": name}]);
                format!("42{}{said}", self.packets)
            }
        };
        self.say(text).await
    }

    pub(crate) async fn say(&mut self, text: String) -> Result<(), Gone> {
        self.stream.send(Message::text(text)).await.map_err(|_broken| BROKEN)
    }

    /// What is heard next.
    pub(crate) async fn hear(&mut self) -> Result<Heard, Gone> {
        let text = self.text().await?;
        let heard = self.read(&text);
        if matches!(heard, Heard::Joined { .. }) {
            self.is_joined = true;
        }
        Ok(if self.is_joined || !matches!(heard, Heard::Message(_)) { heard } else { Heard::Other })
    }

    /// The close code that it ends with; what is heard before is passed over.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            if let Err(Gone(code)) = self.text().await {
                return code;
            }
        }
    }

    /// Passes over what is told until it is of this type.
    pub(crate) async fn until_told(&mut self, kind: &str) {
        let kind = format!("\"type\":\"{kind}\"");
        while !self.text().await.unwrap().contains(&kind) {}
    }

    /// What is heard next, as it is written.
    pub(crate) async fn text(&mut self) -> Result<String, Gone> {
        loop {
            match timeout(2 * PATIENCE, self.stream.next()).await.expect("something is heard in time") {
                Some(Ok(Message::Text(text))) if self.dialect == Dialect::SocketIo && text == "2" => {
                    self.say("3".to_owned()).await?;
                }
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(Message::Close(frame))) => return Err(Gone(frame.map_or(1005, |frame| frame.code.into()))),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(BROKEN),
            }
        }
    }

    fn read(&mut self, text: &str) -> Heard {
        match self.dialect {
            Dialect::Rooms => {
                let value: Value = serde_json::from_str(text).unwrap();
                match value["type"].as_str().unwrap() {
                    "joined" => joined(&value),
                    "new_message" => {
                        let name = value["client_message_id"].as_str();
                        Heard::Message(seen(&value, &value["message_id"], &value["content"], name))
                    }
                    "ack" => stored(&value, value["client_message_id"].as_str().unwrap()),
                    "error" => refused(&value["code"], value["client_message_id"].as_str()),
                    _ => Heard::Other,
                }
            }
            Dialect::Conversations => {
                let value: Value = serde_json::from_str(text).unwrap();
                match value["type"].as_str().unwrap() {
                    "joined" => joined(&value),
                    "message" => {
                        let message = &value["message"];
                        let name = message["clientMessageId"].as_str();
                        Heard::Message(seen(message, &message["id"], &message["content"], name))
                    }
                    "ack" => stored(&value, value["clientMessageId"].as_str().unwrap()),
                    "error" => refused(&value["code"], value["clientMessageId"].as_str()),
                    _ => Heard::Other,
                }
            }
            Dialect::SocketIo => self.read_packet(text),
        }
    }

    fn read_packet(&mut self, text: &str) -> Heard {
        if let Some(event) = text.strip_prefix("42") {
            let event: Value = serde_json::from_str(event).unwrap();
            let value = &event[1];
            return match event[0].as_str().unwrap() {
                "chat_message" => {
                    let name = value["clientMessageId"].as_str();
                    Heard::Message(seen(value, &value["messageId"], &value["message"], name))
                }
                "error" => refused(&value["code"], None),
                _ => Heard::Other,
            };
        }
        let Some(answer) = text.strip_prefix("43") else { panic!("{text} is not expected") };
        let digits = answer.bytes().take_while(u8::is_ascii_digit).count();
        let value: Value = serde_json::from_str(&answer[digits..]).unwrap();
        let (value, packet) = (&value[0], answer[..digits].parse::<u64>().unwrap());
        let name = self.sent.remove(&packet);
        match (value["error"]["code"].is_string(), name) {
            (true, name) => refused(&value["error"]["code"], name.as_deref()),
            (false, Some(name)) => stored(value, &name),
            (false, None) => joined(value),
        }
    }
}

fn joined(value: &Value) -> Heard {
    Heard::Joined { seq: value["seq"].as_i64().unwrap(), recovered: value["recovered"].as_bool() }
}

fn seen(value: &Value, id: &Value, content: &Value, name: Option<&str>) -> Seen {
    Seen {
        seq: value["seq"].as_i64().unwrap(),
        id: id.as_i64().unwrap(),
        content: content.as_str().unwrap().to_owned(),
        name: name.map(str::to_owned),
    }
}

fn stored(value: &Value, name: &str) -> Heard {
    Heard::Stored { name: name.to_owned(), seq: value["seq"].as_i64().unwrap() }
}

fn refused(code: &Value, name: Option<&str>) -> Heard {
    Heard::Refused { name: name.map(str::to_owned), code: code.as_str().unwrap().to_owned() }
}
