//! Socket.IO 5, with the events of 002 (`chat_message`) and those that a room needs beside it.
//!
//! `<kind>[<attachments>-][<namespace>,][<number>][<payload>]`, each as a message of Engine.IO.

use bytes::Bytes;
use common::{RoomId, StreamId};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::domain::{ContentKind, Place, RawDraft};
use crate::event::Event;
use crate::session::{AckName, Command, Reply, RoomRef, Unread};
use crate::socket;

/// The only namespace.
pub(crate) const MAIN: &str = "/";

/// What a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    pub(crate) kind: Kind,
    pub(crate) namespace: &'a str,
    /// By what the client knows the answer.
    pub(crate) number: Option<u64>,
    /// How many binary messages belong to it, and follow.
    pub(crate) attachments: usize,
    /// JSON; of an event a list that begins with its name.
    pub(crate) payload: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
}

impl<'a> Packet<'a> {
    /// `None`: no packet that a client sends.
    pub(crate) fn read(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (kind, mut rest) = text.split_at_checked(1)?;
        let (kind, is_binary) = match kind {
            "0" => (Kind::Connect, false),
            "1" => (Kind::Disconnect, false),
            "2" => (Kind::Event, false),
            "3" => (Kind::Ack, false),
            "5" => (Kind::Event, true),
            "6" => (Kind::Ack, true),
            _ => return None,
        };
        let mut attachments = 0;
        if is_binary {
            let (count, after) = rest.split_once('-')?;
            (attachments, rest) = (count.parse().ok()?, after);
        }
        let mut namespace = MAIN;
        if rest.starts_with('/') {
            (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, payload) = rest.split_at(digits);
        let number = if number.is_empty() { None } else { Some(number.parse().ok()?) };
        let is_whole = match kind {
            Kind::Connect => payload.is_empty() || payload.starts_with('{'),
            Kind::Disconnect => payload.is_empty(),
            Kind::Event => payload.starts_with("[\""),
            Kind::Ack => payload.starts_with('['),
        };
        is_whole.then_some(Self { kind, namespace, number, attachments, payload })
    }
}

/// What comes with CONNECT.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Auth {
    pub(crate) token: Option<String>,
    /// The client's own name: another connection of the same client takes this one's place in a room.
    #[serde(alias = "clientId")]
    pub(crate) client_id: Option<String>,
}

/// What comes with an event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    #[serde(default, alias = "stream_id", deserialize_with = "number")]
    stream_id: Option<i64>,
    #[serde(default, alias = "room_id", deserialize_with = "number")]
    room_id: Option<i64>,
    since: Option<i64>,
    #[serde(default, alias = "content")]
    message: String,
    #[serde(default, alias = "message_type")]
    message_type: ContentKind,
    #[serde(alias = "file_url")]
    file_url: Option<String>,
    #[serde(alias = "client_message_id")]
    client_message_id: Option<String>,
}

/// An id as a number, or as a page has it that took it out of an address.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Id {
        Number(i64),
        Text(String),
    }
    match Option::deserialize(deserializer)? {
        Some(Id::Number(id)) => Ok(Some(id)),
        Some(Id::Text(text)) => text.parse().map(Some).map_err(serde::de::Error::custom),
        None => Ok(None),
    }
}

pub(super) fn read(text: &[u8]) -> Result<Command, Unread> {
    let packet = Packet::read(text).filter(|packet| packet.kind == Kind::Event);
    let packet = packet.ok_or_else(|| Unread::from("this is no event"))?;
    let name = AckName { client_message_id: None, packet: packet.number };
    command(packet, name.clone()).map_err(|words| Unread { words, name })
}

fn command(packet: Packet<'_>, mut name: AckName) -> Result<Command, String> {
    if packet.attachments > 0 {
        return Err("no event here has binary data".to_owned());
    }
    let not_understood = |error: serde_json::Error| format!("not understood: {error}");
    let payload: Vec<Value> = serde_json::from_str(packet.payload).map_err(not_understood)?;
    let mut payload = payload.into_iter();
    let event = payload.next().unwrap_or_default();
    let said: Said = serde_json::from_value(payload.next().unwrap_or_default()).map_err(not_understood)?;
    let room = match (said.stream_id, said.room_id) {
        (Some(id), None) => RoomRef::Stream(StreamId(id)),
        (None, Some(id)) => RoomRef::Id(RoomId(id)),
        _ => return Err("an event names a room: by `streamId` or by `roomId`".to_owned()),
    };
    Ok(match event.as_str().unwrap_or_default() {
        "join" | "join_stream" => Command::Join { room, since: said.since, name },
        "leave" | "leave_stream" => Command::Leave { room, name },
        "chat_message" => {
            let client_message_id = said.client_message_id;
            name.client_message_id.clone_from(&client_message_id);
            let draft =
                RawDraft { kind: said.message_type, content: said.message, file_url: said.file_url, client_message_id };
            Command::Send { room, draft, name }
        }
        other => return Err(format!("there is no event `{other}`: there are join, leave and chat_message")),
    })
}

/// What everybody in the room is told.
pub(super) fn write(place: Place, event: &Event) -> Option<Bytes> {
    let who = |user_id| json!({"streamId": place.stream_id, "roomId": place.room_id, "userId": user_id});
    Some(match event {
        Event::Message(message) => emit(
            "chat_message",
            &json!({
                "streamId": place.stream_id,
                "roomId": place.room_id,
                "userId": message.user_id,
                "userName": message.user_name,
                "message": message.content,
                "messageType": message.kind,
                "fileUrl": message.file_url,
                "messageId": message.id,
                "seq": message.seq,
                "clientMessageId": message.client_message_id,
                "timestamp": message.created_at,
            }),
        ),
        Event::Joined { user_id } => emit("user_joined", &who(user_id)),
        Event::Left { user_id } | Event::Removed { user_id } => emit("user_left", &who(user_id)),
        Event::Online { count } => {
            let value = json!({"streamId": place.stream_id, "roomId": place.room_id, "onlineCount": count});
            emit("online", &value)
        }
        Event::Deleted => emit("room_deleted", &json!({"streamId": place.stream_id, "roomId": place.room_id})),
        Event::Typing { .. } | Event::Read { .. } => return None,
    })
}

pub(super) fn write_reply(reply: &Reply) -> Option<Bytes> {
    match reply {
        // Another name than Engine.IO's, which nobody but its client may know.
        Reply::Connected { .. } => Some(packet(&format!("0{}", json!({"sid": Uuid::new_v4().simple()})))),
        Reply::Joined { room, room_id, seq, recovered, name } => {
            let mut value = named(*room);
            value["roomId"] = json!(room_id);
            value["seq"] = json!(seq);
            value["recovered"] = json!(recovered);
            Some(answer(name, "joined", &value))
        }
        Reply::Left { room, name } => Some(answer(name, "left", &named(*room))),
        Reply::Stored { id, seq, at, name, .. } => {
            // Without an acknowledgement asked for, the message itself tells the client.
            let number = name.packet?;
            Some(acknowledge(number, &json!({"messageId": id, "seq": seq, "timestamp": at})))
        }
        Reply::Pong => None,
        Reply::Refused { code, words, retry_after_s, room, name } => Some(match name.packet {
            Some(number) => {
                let error = json!({"code": code, "message": words, "retryAfter": retry_after_s});
                acknowledge(number, &json!({"error": error}))
            }
            None => {
                let mut value = room.map_or_else(|| json!({}), named);
                value["code"] = json!(code);
                value["message"] = json!(words);
                value["retryAfter"] = json!(retry_after_s);
                value["clientMessageId"] = json!(name.client_message_id);
                emit("error", &value)
            }
        }),
    }
}

/// Refuses a CONNECT.
pub(crate) fn refuse(namespace: &str, error: &Value) -> Bytes {
    match namespace {
        MAIN => packet(&format!("4{error}")),
        other => packet(&format!("4{other},{error}")),
    }
}

/// Takes the client out of the namespace: it does not come back by itself.
pub(crate) fn disconnect() -> Bytes {
    packet("1")
}

fn named(room: RoomRef) -> Value {
    match room {
        RoomRef::Id(id) => json!({"roomId": id}),
        RoomRef::Conversation(id) => json!({"conversationId": id}),
        RoomRef::Stream(id) => json!({"streamId": id}),
    }
}

fn answer(name: &AckName, event: &str, value: &Value) -> Bytes {
    match name.packet {
        Some(number) => acknowledge(number, value),
        None => emit(event, value),
    }
}

fn acknowledge(number: u64, value: &Value) -> Bytes {
    packet(&format!("3{number}[{value}]"))
}

fn emit(event: &str, value: &Value) -> Bytes {
    packet(&format!("2[\"{event}\",{value}]"))
}

fn packet(text: &str) -> Bytes {
    socket::text_frame(format!("4{text}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<(Kind, &str, Option<u64>, usize, &str)> {
        let packet = Packet::read(text.as_bytes())?;
        Some((packet.kind, packet.namespace, packet.number, packet.attachments, packet.payload))
    }

    #[test]
    fn packets_are_read_as_the_protocol_has_them() {
        for (text, expected) in [
            ("0", (Kind::Connect, "/", None, 0, "")),
            (r#"0{"token":"a"}"#, (Kind::Connect, "/", None, 0, r#"{"token":"a"}"#)),
            ("0/custom", (Kind::Connect, "/custom", None, 0, "")),
            ("0/custom,{}", (Kind::Connect, "/custom", None, 0, "{}")),
            ("1/custom,", (Kind::Disconnect, "/custom", None, 0, "")),
            (r#"2["a"]"#, (Kind::Event, "/", None, 0, r#"["a"]"#)),
            (r#"212["a",1]"#, (Kind::Event, "/", Some(12), 0, r#"["a",1]"#)),
            (r#"2/chat,3["a/b,c"]"#, (Kind::Event, "/chat", Some(3), 0, r#"["a/b,c"]"#)),
            (r#"51-["f",{}]"#, (Kind::Event, "/", None, 1, r#"["f",{}]"#)),
            ("37[]", (Kind::Ack, "/", Some(7), 0, "[]")),
        ] {
            assert_eq!(parts(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_packet_is_none() {
        let long = format!("2{}[\"a\"]", "9".repeat(30));
        for text in
            ["", "7", "abc", "2", "2{}", "2[]", "2[1]", "2abc[\"a\"]", "5[\"a\"]", "5x-[\"a\"]", "3{}", "é", &long]
        {
            assert_eq!(parts(text), None, "{text}");
        }
        assert_eq!(Packet::read(&[b'2', 0xff]), None);
    }
}
