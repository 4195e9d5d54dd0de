//! The dialect of 003: JSON objects with a `type`. What we add to it (`seq`, `client_message_id`, `ack`, `joined`, `since`,
//! `typing`, `read`) is something that a client of the document can ignore.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use common::{MessageId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::{ContentKind, Message, RawDraft};
use crate::event::Event;
use crate::session::{AckName, Command, Reply, RoomRef};
use crate::socket;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    JoinRoom {
        room_id: RoomId,
        since: Option<i64>,
    },
    LeaveRoom {
        room_id: RoomId,
    },
    SendMessage {
        room_id: RoomId,
        #[serde(default)]
        content: String,
        #[serde(default, rename = "message_type")]
        kind: ContentKind,
        file_url: Option<String>,
        client_message_id: Option<String>,
    },
    Typing {
        room_id: RoomId,
        #[serde(default = "yes")]
        is_typing: bool,
    },
    Read {
        room_id: RoomId,
        message_id: Option<MessageId>,
    },
    Ping,
}

fn yes() -> bool {
    true
}

pub(super) fn read(text: &[u8]) -> Result<Command, String> {
    let said = serde_json::from_slice(text).map_err(|error| format!("not understood: {error}"))?;
    Ok(match said {
        Said::JoinRoom { room_id, since } => {
            Command::Join { room: RoomRef::Id(room_id), since, name: AckName::default() }
        }
        Said::LeaveRoom { room_id } => Command::Leave { room: RoomRef::Id(room_id), name: AckName::default() },
        Said::SendMessage { room_id, content, kind, file_url, client_message_id } => {
            let name = AckName { client_message_id: client_message_id.clone(), packet: None };
            let draft = RawDraft { kind, content, file_url, client_message_id };
            Command::Send { room: RoomRef::Id(room_id), draft, name }
        }
        Said::Typing { room_id, is_typing } => Command::Typing { room: RoomRef::Id(room_id), is_typing },
        Said::Read { room_id, message_id } => Command::Read { room: RoomRef::Id(room_id), message_id },
        Said::Ping => Command::Ping,
    })
}

/// What everybody in the room is told.
pub(super) fn write(room_id: RoomId, event: &Event) -> Option<Bytes> {
    let value = match event {
        Event::Message(message) => return Some(socket::json_frame(&NewMessage::of(message))),
        Event::Joined { user_id } => json!({
            "type": "user_joined", "room_id": room_id, "user_uuid": user_id, "data": {"user_uuid": user_id},
        }),
        Event::Left { user_id } | Event::Removed { user_id } => json!({
            "type": "user_left", "room_id": room_id, "user_uuid": user_id, "data": {"user_uuid": user_id},
        }),
        Event::Online { count } => json!({"type": "online", "room_id": room_id, "online_count": count}),
        Event::Deleted => json!({"type": "room_deleted", "room_id": room_id}),
        Event::Typing { user_id, is_typing } => json!({
            "type": "typing", "room_id": room_id, "user_uuid": user_id, "is_typing": is_typing,
        }),
        Event::Read { user_id, seq, message_id, at } => json!({
            "type": "read",
            "room_id": room_id,
            "user_uuid": user_id,
            "message_id": message_id,
            "seq": seq,
            "last_read_at": at,
        }),
    };
    Some(text(&value))
}

/// What 003 shows, and `seq` and `client_message_id`.
#[derive(Serialize)]
struct NewMessage<'a> {
    r#type: &'static str,
    room_id: RoomId,
    user_uuid: UserId,
    content: &'a str,
    timestamp: DateTime<Utc>,
    message_id: MessageId,
    seq: i64,
    client_message_id: Option<&'a str>,
    data: Data<'a>,
}

/// The part of a message that 003 has in `data`.
#[derive(Serialize)]
struct Data<'a> {
    message_id: MessageId,
    room_id: RoomId,
    seq: i64,
    content: &'a str,
    message_type: ContentKind,
    file_url: Option<&'a str>,
    user_uuid: UserId,
    user_fullname: Option<&'a str>,
    user_email: Option<&'a str>,
    client_message_id: Option<&'a str>,
    created_at: DateTime<Utc>,
}

impl<'a> NewMessage<'a> {
    fn of(message: &'a Message) -> Self {
        Self {
            r#type: "new_message",
            room_id: message.room_id,
            user_uuid: message.user_id,
            content: &message.content,
            timestamp: message.created_at,
            message_id: message.id,
            seq: message.seq,
            client_message_id: message.client_message_id.as_deref(),
            data: Data {
                message_id: message.id,
                room_id: message.room_id,
                seq: message.seq,
                content: &message.content,
                message_type: message.kind,
                file_url: message.file_url.as_deref(),
                user_uuid: message.user_id,
                user_fullname: message.user_name.as_deref(),
                user_email: message.user_email.as_deref(),
                client_message_id: message.client_message_id.as_deref(),
                created_at: message.created_at,
            },
        }
    }
}

/// A message of the client's own is stored.
#[derive(Serialize)]
struct Ack<'a> {
    r#type: &'static str,
    room_id: Option<RoomId>,
    message_id: MessageId,
    seq: i64,
    client_message_id: Option<&'a str>,
}

pub(super) fn write_reply(reply: &Reply) -> Option<Bytes> {
    let value = match reply {
        // The document has no word for it.
        Reply::Connected { .. } => return None,
        Reply::Joined { room, seq, recovered, .. } => {
            json!({"type": "joined", "room_id": id(*room), "seq": seq, "recovered": recovered})
        }
        Reply::Left { room, .. } => json!({"type": "left", "room_id": id(*room)}),
        Reply::Stored { room, id: message_id, seq, name, .. } => {
            return Some(socket::json_frame(&Ack {
                r#type: "ack",
                room_id: id(*room),
                message_id: *message_id,
                seq: *seq,
                client_message_id: name.client_message_id.as_deref(),
            }));
        }
        Reply::Pong => json!({"type": "pong"}),
        Reply::Refused { code, words, retry_after_s, room, name } => {
            let mut value = json!({"type": "error", "content": words, "code": code});
            if let Some(seconds) = retry_after_s {
                value["retry_after"] = json!(seconds);
            }
            if let Some(room) = room {
                value["room_id"] = json!(id(*room));
            }
            if let Some(name) = &name.client_message_id {
                value["client_message_id"] = json!(name);
            }
            value
        }
    };
    Some(text(&value))
}

/// This dialect names rooms by their numbers only.
fn id(room: RoomRef) -> Option<RoomId> {
    match room {
        RoomRef::Id(id) => Some(id),
        RoomRef::Conversation(_) | RoomRef::Stream(_) => None,
    }
}

fn text(value: &Value) -> Bytes {
    socket::json_frame(value)
}
