//! The WebSockets as an AsyncAPI 3.0 document, for people and tools: what is said on each, by whom, and of what form.
//!
//! It says the same every time, so a difference from the stored one is a change of the contract. That it is true, tests hold:
//! whatever they hear, on any WebSocket, must be as it says.

use serde_json::{Map, Value, json};

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaker {
    Client,
    Server,
}

/// What can be said on a WebSocket.
struct Utterance {
    /// The value of `type`, or of a Socket.IO event its name.
    name: &'static str,
    speaker: Speaker,
    summary: &'static str,
    payload: Value,
    example: Value,
}

/// A dialect, as the document has it.
struct Channel {
    name: &'static str,
    address: &'static str,
    title: &'static str,
    description: &'static str,
    /// What the address can be asked with, beside the token.
    query: Value,
    utterances: Vec<Utterance>,
}

/// The document.
pub(crate) fn asyncapi() -> Value {
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for channel in [rooms(), conversations(), socket_io()] {
        let Channel { name: of, address, title, description, query, utterances } = channel;
        let mut said = Map::new();
        for (speaker, action, what) in [(Speaker::Client, "receive", "client"), (Speaker::Server, "send", "server")] {
            let by = utterances.iter().filter(|it| it.speaker == speaker);
            let names: Vec<_> = by.map(|it| format!("{of}.{what}.{}", it.name)).collect();
            let references = names.iter().map(|name| json!({"$ref": format!("#/channels/{of}/messages/{name}")}));
            operations.insert(
                format!("{of}.{what}"),
                json!({
                    "action": action,
                    "channel": {"$ref": format!("#/channels/{of}")},
                    "summary": format!("What the {what} says."),
                    "messages": references.collect::<Vec<_>>(),
                }),
            );
            for name in names {
                said.insert(name.clone(), json!({"$ref": format!("#/components/messages/{name}")}));
            }
        }
        for Utterance { name, speaker, summary, payload, example } in utterances {
            let what = if speaker == Speaker::Client { "client" } else { "server" };
            messages.insert(
                format!("{of}.{what}.{name}"),
                json!({"name": name, "summary": summary, "payload": payload, "examples": [{"payload": example}]}),
            );
        }
        channels.insert(
            of.to_owned(),
            json!({
                "address": address,
                "title": title,
                "description": description,
                "messages": said,
                "bindings": {"ws": {"method": "GET", "query": query}},
            }),
        );
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {"title": "Amphi chat", "version": env!("CARGO_PKG_VERSION"), "description": DESCRIPTION},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas()},
    })
}

const DESCRIPTION: &str = "One chat, in three dialects: what is said in one is heard in all. `receive` is what clients say, \
    `send` what the server does. Fields may be added: ignore those that you do not know. What holds in every dialect, and the \
    close codes, stand in websocket.md.";

/// The dialect of rooms.
fn rooms() -> Channel {
    use Speaker::{Client, Server};
    let mut it = Channel {
        name: "rooms",
        address: "/api/v1/chat/ws",
        title: "Rooms",
        description: "JSON objects, each in a text message.",
        query: query(json!({
            "room_id": described(integer(), "A room to join at once."),
            "client_id": described(text(), "The client's own name: another socket of it takes this one's place in a room."),
        })),
        utterances: Vec::new(),
    };
    let mut say = |speaker, name, summary, fields: &[(&str, Value)], example| {
        it.utterances.push(utterance(speaker, name, summary, fields, example));
    };
    let room = || ("room_id", integer());
    let user = || ("user_uuid", uuid());
    let of = |name: &'static str, to: Value| (name, to);

    let since = of("since?", described(integer(), "The number of the last message that you have."));
    say(Client, "join_room", "Hear what is said in a room.", &[room(), since], json!({"room_id": 1, "since": 42}));
    say(Client, "leave_room", "Hear no more of a room.", &[room()], json!({"room_id": 1}));
    let message = [
        room(),
        of("content?", text()),
        of("message_type?", kind()),
        of("file_url?", nullable(text())),
        own("client_message_id?"),
    ];
    say(Client, "send_message", "Say something.", &message, json!({"room_id": 1, "content": "Hello everyone!"}));
    let typing = [room(), of("is_typing?", flag())];
    say(Client, "typing", "You are typing, or are no more.", &typing, json!({"room_id": 1, "is_typing": true}));
    let read = [room(), of("message_id?", nullable(integer()))];
    say(Client, "read", "You have read up to this message, or all.", &read, json!({"room_id": 1, "message_id": 123}));
    say(Client, "ping", "Answered with `pong`.", &[], json!({}));

    let new = [
        room(),
        user(),
        of("content", text()),
        of("timestamp", time()),
        of("message_id", integer()),
        seq("seq"),
        own("client_message_id"),
        of("data", json!({"$ref": "#/components/schemas/RoomMessage"})),
    ];
    let example = json!({
        "room_id": 1, "user_uuid": ANA, "content": "Hello everyone!", "timestamp": NOON, "message_id": 123, "seq": 43,
        "client_message_id": null,
        "data": {
            "message_id": 123, "room_id": 1, "seq": 43, "content": "Hello everyone!", "message_type": "text",
            "file_url": null, "user_uuid": ANA, "user_fullname": "Ana Silva", "user_email": "ana@example.org",
            "client_message_id": null, "created_at": NOON,
        },
    });
    say(Server, "new_message", "A message was stored. In the order of its number.", &new, example);
    let who = [room(), user(), of("data", object(&[user()]))];
    let example = json!({"room_id": 1, "user_uuid": ANA, "data": {"user_uuid": ANA}});
    say(Server, "user_joined", "A user opened the room with the first of all devices.", &who, example.clone());
    say(Server, "user_left", "A user closed the room with the last device, or is no member any more.", &who, example);
    let online = [room(), of("online_count", integer())];
    say(Server, "online", ONLINE, &online, json!({"room_id": 1, "online_count": 250}));
    say(Server, "room_deleted", "The room is no more, nor what was said in it.", &[room()], json!({"room_id": 1}));
    let typing = [room(), user(), of("is_typing", flag())];
    let example = json!({"room_id": 1, "user_uuid": ANA, "is_typing": true});
    say(Server, "typing", "Another user is typing, or is no more.", &typing, example);
    let read = [room(), user(), of("message_id", integer()), seq("seq"), of("last_read_at", time())];
    let example = json!({"room_id": 1, "user_uuid": ANA, "message_id": 123, "seq": 43, "last_read_at": NOON});
    say(Server, "read", "A user has read up to this message.", &read, example);
    let joined = [room(), seq("seq"), of("recovered", recovered())];
    say(
        Server,
        "joined",
        "From message `seq` on everything is told.",
        &joined,
        json!({"room_id": 1, "seq": 42, "recovered": true}),
    );
    say(Server, "left", "The room is closed.", &[room()], json!({"room_id": 1}));
    let ack = [room(), of("message_id", integer()), seq("seq"), own("client_message_id")];
    let example = json!({"room_id": 1, "message_id": 123, "seq": 43, "client_message_id": "a1"});
    say(Server, "ack", "Your message is stored.", &ack, example);
    say(Server, "pong", "To `ping`.", &[], json!({}));
    let error = [
        of("content", text()),
        of("code", text()),
        of("room_id?", integer()),
        of("client_message_id?", text()),
        of("retry_after?", described(integer(), "Seconds.")),
    ];
    let example = json!({"content": "You must join the room first", "code": "not-joined", "room_id": 1});
    say(Server, "error", "It was not done: why, in words and as a code, as over HTTP.", &error, example);
    it
}

/// The dialect of conversations.
fn conversations() -> Channel {
    use Speaker::{Client, Server};
    let mut it = Channel {
        name: "conversations",
        address: "/ws/chat",
        title: "Conversations",
        description: "JSON objects, each in a text message. One hears all conversations of its user.",
        query: query(json!({
            "client_id": described(text(), "The client's own name: another socket of it takes this one's place."),
        })),
        utterances: Vec::new(),
    };
    let mut say = |speaker, name, summary, fields: &[(&str, Value)], example| {
        it.utterances.push(utterance(speaker, name, summary, fields, example));
    };
    let here = || ("conversationId", uuid());
    let user = || ("userId", uuid());
    let of = |name: &'static str, to: Value| (name, to);

    let message = [
        here(),
        of("content?", text()),
        of("messageType?", kind()),
        of("fileUrl?", nullable(text())),
        own("clientMessageId?"),
    ];
    say(Client, "message", "Say something.", &message, json!({"conversationId": TALK, "content": "Hello"}));
    let typing = [here(), of("isTyping?", flag())];
    say(Client, "typing", "You are typing, or are no more.", &typing, json!({"conversationId": TALK}));
    let read = [here(), of("messageId?", nullable(integer()))];
    say(Client, "read", "You have read up to this message, or all.", &read, json!({"conversationId": TALK}));
    let resume =
        [of("since", described(numbers(), "The number of the last message that you have of each conversation."))];
    say(Client, "resume", "Come back, and hear what you have missed.", &resume, json!({"since": {TALK: 42}}));
    say(Client, "ping", "Answered with `pong`.", &[], json!({}));

    let connected = [user(), of("since", described(numbers(), "The number of the last message of each conversation."))];
    say(Server, "connected", "The socket is open.", &connected, json!({"userId": ANA, "since": {TALK: 42}}));
    let message = [of("message", json!({"$ref": "#/components/schemas/ConversationMessage"}))];
    let example = json!({"message": {
        "id": 123, "conversationId": TALK, "seq": 43, "senderId": ANA, "senderName": "Ana Silva", "content": "Hello",
        "type": "text", "fileUrl": null, "clientMessageId": null, "createdAt": NOON,
    }});
    say(Server, "message", "A message was stored. In the order of its number.", &message, example);
    let presence = [here(), user(), of("isOnline", flag())];
    let example = json!({"conversationId": TALK, "userId": ANA, "isOnline": true});
    say(Server, "presence", "A user came with the first of all devices, or left with the last.", &presence, example);
    let online = [here(), of("onlineCount", integer())];
    say(Server, "online", ONLINE, &online, json!({"conversationId": TALK, "onlineCount": 250}));
    let left = [here(), user()];
    say(Server, "left", "A user takes part no more.", &left, json!({"conversationId": TALK, "userId": ANA}));
    let gone = "The conversation is no more, nor what was said in it.";
    say(Server, "deleted", gone, &[here()], json!({"conversationId": TALK}));
    let typing = [here(), user(), of("isTyping", flag())];
    let example = json!({"conversationId": TALK, "userId": ANA, "isTyping": true});
    say(Server, "typing", "Another user is typing, or is no more.", &typing, example);
    let read = [here(), user(), of("lastReadAt", time()), of("messageId", integer()), seq("lastReadSeq")];
    let example =
        json!({"conversationId": TALK, "userId": ANA, "lastReadAt": NOON, "messageId": 123, "lastReadSeq": 43});
    say(Server, "read", "A user has read up to this message.", &read, example);
    let joined = [here(), seq("seq"), of("recovered", recovered())];
    let example = json!({"conversationId": TALK, "seq": 42, "recovered": true});
    say(Server, "joined", "From message `seq` on everything is told.", &joined, example);
    let ack = [here(), of("messageId", integer()), seq("seq"), own("clientMessageId")];
    let example = json!({"conversationId": TALK, "messageId": 123, "seq": 43, "clientMessageId": "a1"});
    say(Server, "ack", "Your message is stored.", &ack, example);
    say(Server, "pong", "To `ping`.", &[], json!({}));
    let error = [
        of("message", text()),
        of("code", text()),
        of("conversationId?", uuid()),
        of("clientMessageId?", text()),
        of("retryAfter?", described(integer(), "Seconds.")),
    ];
    let example = json!({"message": "wait 3 s", "code": "too-fast", "conversationId": TALK, "retryAfter": 3});
    say(Server, "error", "It was not done: why, in words and as a code, as over HTTP.", &error, example);
    it
}

/// The dialect of Socket.IO: a payload is what follows the kind and the number of a packet.
fn socket_io() -> Channel {
    use Speaker::{Client, Server};
    let mut it = Channel {
        name: "socket.io",
        address: "/socket.io/",
        title: "The chat of streams, and other rooms, over Socket.IO",
        description: "Engine.IO 4 and Socket.IO 5, over a WebSocket or long polls; the namespace is `/`. A payload is the JSON \
            of a packet: of an event a list of its name and an object, of an acknowledgement a list of an object. A room is \
            named by `streamId` or by `roomId`.",
        query: query(json!({
            "EIO": {"type": "string", "const": "4"},
            "transport": {"type": "string", "enum": ["polling", "websocket"]},
            "sid": described(text(), "The session, from the second request on."),
        })),
        utterances: Vec::new(),
    };
    let mut emit = |speaker, name, summary, fields: &[(&str, Value)], example: Value| {
        let items = [json!({"const": name}), object(fields)];
        let payload = json!({"type": "array", "items": items, "minItems": 2, "maxItems": 2});
        it.utterances.push(Utterance { name, speaker, summary, payload, example: json!([name, example]) });
    };
    let of = |name: &'static str, to: Value| (name, to);
    let stream = || of("streamId?", described(json!({"type": ["integer", "string"]}), "Or `roomId`."));
    let room = || of("roomId?", json!({"type": ["integer", "string"]}));

    let since = of("since?", described(nullable(integer()), "The number of the last message that you have."));
    let join = [stream(), room(), since];
    let example = json!({"streamId": 7, "since": 42});
    emit(Client, "join", "Hear what is said.", &join, example.clone());
    emit(Client, "join_stream", "As `join`.", &join, example);
    emit(Client, "leave", "Hear no more.", &[stream(), room()], json!({"streamId": 7}));
    emit(Client, "leave_stream", "As `leave`.", &[stream(), room()], json!({"streamId": 7}));
    let message = [
        stream(),
        room(),
        of("message?", text()),
        of("messageType?", kind()),
        of("fileUrl?", nullable(text())),
        own("clientMessageId?"),
    ];
    let say = "Say something; who speaks in the chat of a stream joins it.";
    emit(Client, "chat_message", say, &message, json!({"streamId": 7, "message": "Hello", "clientMessageId": "a1"}));

    let at = || [of("streamId", nullable(integer())), of("roomId", integer())];
    let with = |more: &[(&'static str, Value)]| at().into_iter().chain(more.iter().cloned()).collect::<Vec<_>>();
    let message = with(&[
        of("userId", uuid()),
        of("userName", nullable(text())),
        of("message", text()),
        of("messageType", kind()),
        of("fileUrl", nullable(text())),
        of("messageId", integer()),
        seq("seq"),
        own("clientMessageId"),
        of("timestamp", time()),
    ]);
    let example = json!({
        "streamId": 7, "roomId": 1, "userId": ANA, "userName": "Ana Silva", "message": "Hello", "messageType": "text",
        "fileUrl": null, "messageId": 123, "seq": 43, "clientMessageId": "a1", "timestamp": NOON,
    });
    emit(Server, "chat_message", "A message was stored. In the order of its number.", &message, example);
    let who = with(&[of("userId", uuid())]);
    let example = json!({"streamId": 7, "roomId": 1, "userId": ANA});
    emit(Server, "user_joined", "A user opened the room with the first of all devices.", &who, example.clone());
    emit(Server, "user_left", "A user closed the room with the last device, or is no member any more.", &who, example);
    let online = with(&[of("onlineCount", integer())]);
    emit(Server, "online", ONLINE, &online, json!({"streamId": 7, "roomId": 1, "onlineCount": 250}));
    let gone = "The room is no more, nor what was said in it: its stream was deleted.";
    emit(Server, "room_deleted", gone, &at(), json!({"streamId": 7, "roomId": 1}));
    let joined = [of("streamId?", integer()), of("roomId", integer()), seq("seq"), of("recovered", recovered())];
    let example = json!({"streamId": 7, "roomId": 1, "seq": 42, "recovered": true});
    emit(Server, "joined", "To `join` without an acknowledgement.", &joined, example.clone());
    let left = [of("streamId?", integer()), of("roomId?", integer())];
    emit(Server, "left", "To `leave` without an acknowledgement.", &left, json!({"streamId": 7}));
    let why = [of("code", text()), of("message", text()), of("retryAfter", described(nullable(integer()), "Seconds."))];
    let mut error = why.to_vec();
    error.extend([of("streamId?", integer()), of("roomId?", integer()), own("clientMessageId")]);
    let refused = json!({"code": "room-closed", "message": "room 1 can be read", "retryAfter": null});
    let mut example_of_error = refused.clone();
    example_of_error["clientMessageId"] = json!("a1");
    let summary = "It was not done, and there was no acknowledgement to say so in.";
    emit(Server, "error", summary, &error, example_of_error);
    let stored = [of("messageId", integer()), seq("seq"), of("timestamp", time())];
    let answers = [object(&stored), object(&joined), object(&left), object(&[of("error", object(&why))])];
    it.utterances.push(Utterance {
        name: "acknowledgement",
        speaker: Server,
        summary: "To `chat_message`, to `join`, to `leave`; or why it was not done.",
        payload: json!({"type": "array", "items": [{"anyOf": answers}], "minItems": 1, "maxItems": 1}),
        example: json!([{"messageId": 123, "seq": 43, "timestamp": NOON}]),
    });
    it
}

const ANA: &str = "01990000-0000-7000-8000-000000000001";
const TALK: &str = "01990000-0000-7000-8000-000000000009";
const NOON: &str = "2026-01-01T12:00:00Z";
const ONLINE: &str = "How many have it open, where they are too many to be told who comes and goes; and once more when they are \
    few again.";

fn schemas() -> Value {
    let of = |name: &'static str, to: Value| (name, to);
    json!({
        "RoomMessage": object(&[
            of("message_id", integer()),
            of("room_id", integer()),
            seq("seq"),
            of("content", text()),
            of("message_type", kind()),
            of("file_url", nullable(text())),
            of("user_uuid", uuid()),
            of("user_fullname", described(nullable(text()), "Once it is known.")),
            of("user_email", described(nullable(text()), "Where it may be seen.")),
            own("client_message_id"),
            of("created_at", time()),
        ]),
        "ConversationMessage": object(&[
            of("id", integer()),
            of("conversationId", uuid()),
            seq("seq"),
            of("senderId", uuid()),
            of("senderName", described(nullable(text()), "Once it is known.")),
            of("content", text()),
            of("type", kind()),
            of("fileUrl", nullable(text())),
            own("clientMessageId"),
            of("createdAt", time()),
        ]),
    })
}

/// An object with a `type`.
fn utterance(
    speaker: Speaker,
    name: &'static str,
    summary: &'static str,
    fields: &[(&str, Value)],
    mut example: Value,
) -> Utterance {
    let fields: Vec<_> = [("type", json!({"const": name}))].into_iter().chain(fields.iter().cloned()).collect();
    example["type"] = json!(name);
    Utterance { name, speaker, summary, payload: object(&fields), example }
}

/// An object with these fields. A name that ends in `?` is of one that may be missing.
fn object(fields: &[(&str, Value)]) -> Value {
    let required: Vec<_> = fields.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('?')).collect();
    let properties: Map<_, _> =
        fields.iter().map(|(name, schema)| (name.trim_end_matches('?').to_owned(), schema.clone())).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

fn integer() -> Value {
    json!({"type": "integer"})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn flag() -> Value {
    json!({"type": "boolean"})
}

fn uuid() -> Value {
    json!({"type": "string", "format": "uuid"})
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

fn kind() -> Value {
    json!({"type": "string", "enum": ["text", "image", "file", "audio", "video"]})
}

fn nullable(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"], "null"]);
    schema
}

fn described(mut schema: Value, words: &str) -> Value {
    schema["description"] = json!(words);
    schema
}

fn seq(name: &'static str) -> (&'static str, Value) {
    (name, described(integer(), "Within its room, from 1 without gaps."))
}

/// The client's own name for a message.
fn own(name: &'static str) -> (&'static str, Value) {
    (name, described(nullable(text()), "The client's own name for it: sent twice under one name, it is one message."))
}

fn recovered() -> Value {
    described(
        nullable(flag()),
        "Whether all since `since` follows. `false`: load the room anew. `null`: it was not asked.",
    )
}

/// An integer for each conversation.
fn numbers() -> Value {
    json!({"type": "object", "propertyNames": {"format": "uuid"}, "additionalProperties": integer()})
}

/// What every WebSocket is opened with, and `more`.
fn query(mut more: Value) -> Value {
    more["token"] = described(text(), "An access token, where there is no cookie and no header.");
    more["ticket"] = described(text(), "Instead of a token, from `POST /api/v1/auth/ws-ticket`: good once, for 30 s.");
    json!({"type": "object", "properties": more})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chrono::{DateTime, Utc};
    use common::{ConversationId, MessageId, RoomId, StreamId, UserId};
    use testkit::Documented;
    use uuid::Uuid;

    use super::asyncapi;
    use crate::dialect::Dialect;
    use crate::domain::{ContentKind, Message, Place};
    use crate::event::Event;
    use crate::session::{AckName, Reply, RoomRef};

    const USER: UserId = UserId(Uuid::from_u128(1));
    const AT: DateTime<Utc> = DateTime::UNIX_EPOCH;

    /// What can happen in a room: of each kind one, with and without what may be missing.
    fn events(place: Place) -> Vec<Event> {
        let message = |more: Option<&str>| Message {
            id: MessageId(123),
            room_id: place.room_id,
            conversation_id: place.conversation_id,
            seq: 43,
            user_id: USER,
            user_name: more.map(str::to_owned),
            user_email: more.map(str::to_owned),
            kind: ContentKind::Image,
            content: "Hello".to_owned(),
            file_url: more.map(str::to_owned),
            client_message_id: more.map(str::to_owned),
            created_at: AT,
        };
        let all = vec![
            Event::Message(message(None)),
            Event::Message(message(Some("a1"))),
            Event::Joined { user_id: USER },
            Event::Left { user_id: USER },
            Event::Removed { user_id: USER },
            Event::Online { count: 250 },
            Event::Deleted,
            Event::Typing { user_id: USER, is_typing: true },
            Event::Read { user_id: USER, seq: 43, message_id: MessageId(123), at: AT },
        ];
        // Whoever adds a kind adds one above.
        for event in &all {
            match event {
                Event::Message(_)
                | Event::Joined { .. }
                | Event::Left { .. }
                | Event::Removed { .. }
                | Event::Online { .. }
                | Event::Deleted
                | Event::Typing { .. }
                | Event::Read { .. } => {}
            }
        }
        all
    }

    /// What a client can be answered, likewise.
    fn replies(room: RoomRef) -> Vec<Reply> {
        let names = [
            AckName::default(),
            AckName { client_message_id: Some("a1".to_owned()), packet: None },
            AckName { client_message_id: Some("a1".to_owned()), packet: Some(7) },
        ];
        let mut all = vec![Reply::Connected { user_id: USER, rooms: vec![(room, 42)] }, Reply::Pong];
        for name in names {
            let (id, seq, at) = (MessageId(123), 43, AT);
            all.push(Reply::Left { room, name: name.clone() });
            all.push(Reply::Stored { room, id, seq, at, name: name.clone() });
            for recovered in [None, Some(true)] {
                all.push(Reply::Joined { room, room_id: RoomId(1), seq, recovered, name: name.clone() });
            }
            for (retry_after_s, room) in [(None, None), (Some(3), Some(room))] {
                let (code, words) = ("too-fast".to_owned(), "wait 3 s".to_owned());
                all.push(Reply::Refused { code, words, retry_after_s, room, name: name.clone() });
            }
        }
        for reply in &all {
            match reply {
                Reply::Connected { .. }
                | Reply::Joined { .. }
                | Reply::Left { .. }
                | Reply::Stored { .. }
                | Reply::Pong
                | Reply::Refused { .. } => {}
            }
        }
        all
    }

    #[test]
    fn all_that_the_server_can_say_is_in_the_document_and_nothing_else() {
        let documented = Documented::new(&asyncapi());
        let place =
            |stream_id| Place { room_id: RoomId(1), conversation_id: ConversationId(Uuid::from_u128(9)), stream_id };
        let mut said = BTreeSet::new();
        let channels =
            [(Dialect::Rooms, "rooms"), (Dialect::Conversations, "conversations"), (Dialect::SocketIo, "socket.io")];
        for (dialect, channel) in channels {
            for place in [place(None), place(Some(StreamId(7)))] {
                let told = events(place).into_iter().filter_map(|event| dialect.write(place, &event));
                let room = dialect.name_of(place);
                let answered = replies(room).into_iter().filter_map(|reply| dialect.write_reply(&reply));
                for frame in told.chain(answered) {
                    // The head of a text frame has 2 or 4 bytes, the second with the length.
                    let text = &frame[if frame[1] < 126 { 2 } else { 4 }..];
                    said.extend(documented.heard(channel, std::str::from_utf8(text).unwrap()));
                }
            }
        }
        let all: BTreeSet<_> = documented.names().filter(|name| name.contains(".server.")).collect();
        assert_eq!(said.iter().map(|name| &**name).collect::<BTreeSet<_>>(), all);
    }

    #[test]
    fn all_that_the_document_has_a_client_say_is_understood() {
        let document = asyncapi();
        let messages = document["components"]["messages"].as_object().unwrap();
        let mut count = 0;
        for (name, message) in messages.iter().filter(|(name, _)| name.contains(".client.")) {
            let example = &message["examples"][0]["payload"];
            let (dialect, text) = match name.split('.').next() {
                Some("rooms") => (Dialect::Rooms, example.to_string()),
                Some("conversations") => (Dialect::Conversations, example.to_string()),
                _ => (Dialect::SocketIo, format!("2{example}")),
            };
            assert!(dialect.read(text.as_bytes()).is_ok(), "{name}: {text}");
            count += 1;
        }
        assert_eq!(count, 16);
    }
}
