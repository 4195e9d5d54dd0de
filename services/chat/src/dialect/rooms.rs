//! The dialect of 003: JSON objects with a `type`. What we add to it (`seq`, `client_message_id`, `ack`, `joined`, `since`)
//! is something that a client of the document can ignore.

use bytes::Bytes;
use common::{MessageId, RoomId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::{ContentKind, Message, RawDraft};
use crate::event::Event;
use crate::socket;

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Command {
    /// Hear what is said in a room, and be able to speak.
    JoinRoom {
        room_id: RoomId,
        /// The number of the last message that the client has: it gets what came after.
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
    /// Answered with `pong`, for clients that cannot see WebSocket pings.
    Ping,
}

impl Command {
    /// The message that a `send_message` is.
    pub(crate) fn draft(
        content: String,
        kind: ContentKind,
        file_url: Option<String>,
        client_message_id: Option<String>,
    ) -> RawDraft {
        RawDraft { kind, content, file_url, client_message_id }
    }
}

/// What everybody in the room is told.
pub(super) fn write(room_id: RoomId, event: &Event) -> Option<Bytes> {
    let value = match event {
        Event::Message(message) => new_message(message),
        Event::Joined { user_id } => json!({
            "type": "user_joined", "room_id": room_id, "user_uuid": user_id, "data": {"user_uuid": user_id},
        }),
        Event::Left { user_id } | Event::Removed { user_id } => json!({
            "type": "user_left", "room_id": room_id, "user_uuid": user_id, "data": {"user_uuid": user_id},
        }),
    };
    Some(text(&value))
}

fn new_message(message: &Message) -> Value {
    json!({
        "type": "new_message",
        "room_id": message.room_id,
        "user_uuid": message.user_id,
        "content": message.content,
        "timestamp": message.created_at,
        "message_id": message.id,
        "seq": message.seq,
        "client_message_id": message.client_message_id,
        "data": view(message),
    })
}

/// A message as 003 shows it, here and over REST.
pub(crate) fn view(message: &Message) -> Value {
    json!({
        "message_id": message.id,
        "room_id": message.room_id,
        "seq": message.seq,
        "content": message.content,
        "message_type": message.kind,
        "file_url": message.file_url,
        "user_uuid": message.user_id,
        "user_fullname": message.user_name,
        "client_message_id": message.client_message_id,
        "created_at": message.created_at,
    })
}

/// To whoever joined: up to which message they are told from here on, and whether they got all since the one that they had.
pub(crate) fn joined(room_id: RoomId, seq: i64, recovered: Option<bool>) -> Bytes {
    text(&json!({"type": "joined", "room_id": room_id, "seq": seq, "recovered": recovered}))
}

pub(crate) fn left(room_id: RoomId) -> Bytes {
    text(&json!({"type": "left", "room_id": room_id}))
}

/// To whoever sent: it is stored.
pub(crate) fn ack(room_id: RoomId, id: MessageId, seq: i64, client_message_id: Option<&str>) -> Bytes {
    text(&json!({
        "type": "ack", "room_id": room_id, "message_id": id, "seq": seq, "client_message_id": client_message_id,
    }))
}

pub(crate) fn pong() -> Bytes {
    text(&json!({"type": "pong"}))
}

/// What went wrong, in words and as a stable code.
pub(crate) fn error(code: &str, content: &str, room_id: Option<RoomId>, client_message_id: Option<&str>) -> Bytes {
    let mut value = json!({"type": "error", "content": content, "code": code});
    if let Some(room_id) = room_id {
        value["room_id"] = json!(room_id);
    }
    if let Some(id) = client_message_id {
        value["client_message_id"] = json!(id);
    }
    text(&value)
}

fn text(value: &Value) -> Bytes {
    socket::text_frame(value.to_string().as_bytes())
}
