//! The dialect of 004: JSON objects with a `type`, and conversations by their UUIDs. What we add to it is something that a
//! client of the document can ignore.

use std::collections::HashMap;

use bytes::Bytes;
use common::{ConversationId, MessageId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::domain::{ContentKind, Message, RawDraft};
use crate::event::Event;
use crate::session::{AckName, Command, Reply, RoomRef};
use crate::socket;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Said {
    Message {
        conversation_id: ConversationId,
        #[serde(default)]
        content: String,
        #[serde(default)]
        message_type: ContentKind,
        file_url: Option<String>,
        client_message_id: Option<String>,
    },
    Typing {
        conversation_id: ConversationId,
        #[serde(default = "yes")]
        is_typing: bool,
    },
    Read {
        conversation_id: ConversationId,
        message_id: Option<MessageId>,
    },
    /// What the client has, as it knows it from `connected`, `joined` and its messages.
    Resume {
        since: HashMap<ConversationId, i64>,
    },
    Ping,
}

fn yes() -> bool {
    true
}

pub(super) fn read(text: &[u8]) -> Result<Command, String> {
    let said = serde_json::from_slice(text).map_err(|error| format!("not understood: {error}"))?;
    Ok(match said {
        Said::Message { conversation_id, content, message_type: kind, file_url, client_message_id } => {
            let name = AckName { client_message_id: client_message_id.clone(), packet: None };
            let draft = RawDraft { kind, content, file_url, client_message_id };
            Command::Send { room: RoomRef::Conversation(conversation_id), draft, name }
        }
        Said::Typing { conversation_id, is_typing } => {
            Command::Typing { room: RoomRef::Conversation(conversation_id), is_typing }
        }
        Said::Read { conversation_id, message_id } => {
            Command::Read { room: RoomRef::Conversation(conversation_id), message_id }
        }
        Said::Resume { since } => {
            let since = since.into_iter().map(|(id, seq)| (RoomRef::Conversation(id), seq));
            Command::Resume { since: since.collect() }
        }
        Said::Ping => Command::Ping,
    })
}

/// What everybody in the conversation is told.
pub(super) fn write(conversation_id: ConversationId, event: &Event) -> Option<Bytes> {
    let value = match event {
        Event::Message(message) => json!({"type": "message", "message": view(message)}),
        Event::Joined { user_id } => json!({
            "type": "presence", "conversationId": conversation_id, "userId": user_id, "isOnline": true,
        }),
        Event::Left { user_id } => json!({
            "type": "presence", "conversationId": conversation_id, "userId": user_id, "isOnline": false,
        }),
        Event::Removed { user_id } => json!({
            "type": "left", "conversationId": conversation_id, "userId": user_id,
        }),
        Event::Online { count } => json!({
            "type": "online", "conversationId": conversation_id, "onlineCount": count,
        }),
        Event::Deleted => json!({"type": "deleted", "conversationId": conversation_id}),
        Event::Typing { user_id, is_typing } => json!({
            "type": "typing", "conversationId": conversation_id, "userId": user_id, "isTyping": is_typing,
        }),
        Event::Read { user_id, seq, message_id, at } => json!({
            "type": "read",
            "conversationId": conversation_id,
            "userId": user_id,
            "lastReadAt": at,
            "messageId": message_id,
            "lastReadSeq": seq,
        }),
    };
    Some(text(&value))
}

fn view(message: &Message) -> Value {
    json!({
        "id": message.id,
        "conversationId": message.conversation_id,
        "seq": message.seq,
        "senderId": message.user_id,
        "senderName": message.user_name,
        "content": message.content,
        "type": message.kind,
        "fileUrl": message.file_url,
        "clientMessageId": message.client_message_id,
        "createdAt": message.created_at,
    })
}

pub(super) fn write_reply(reply: &Reply) -> Option<Bytes> {
    let value = match reply {
        Reply::Connected { user_id, rooms } => {
            let since: Map<_, _> =
                rooms.iter().filter_map(|(room, seq)| Some((id(*room)?.to_string(), json!(seq)))).collect();
            json!({"type": "connected", "userId": user_id, "since": since})
        }
        Reply::Joined { room, seq, recovered, .. } => {
            json!({"type": "joined", "conversationId": id(*room), "seq": seq, "recovered": recovered})
        }
        // Nobody leaves a conversation by saying so here.
        Reply::Left { .. } => return None,
        Reply::Stored { room, id: message_id, seq, name, .. } => json!({
            "type": "ack",
            "conversationId": id(*room),
            "messageId": message_id,
            "seq": seq,
            "clientMessageId": name.client_message_id,
        }),
        Reply::Pong => json!({"type": "pong"}),
        Reply::Refused { code, words, retry_after_s, room, name } => {
            let mut value = json!({"type": "error", "message": words, "code": code});
            if let Some(seconds) = retry_after_s {
                value["retryAfter"] = json!(seconds);
            }
            if let Some(room) = room {
                value["conversationId"] = json!(id(*room));
            }
            if let Some(name) = &name.client_message_id {
                value["clientMessageId"] = json!(name);
            }
            value
        }
    };
    Some(text(&value))
}

/// This dialect names rooms as conversations only.
fn id(room: RoomRef) -> Option<ConversationId> {
    match room {
        RoomRef::Conversation(id) => Some(id),
        RoomRef::Id(_) | RoomRef::Stream(_) => None,
    }
}

fn text(value: &Value) -> Bytes {
    socket::json_frame(value)
}
