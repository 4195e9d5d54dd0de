//! Ten thousand frames that no client sends, of every kind and in every dialect, always the same: nothing breaks, and the
//! room lives.

use std::time::Duration;

use fastrand::Rng;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::client_async;

use crate::peers::{DIALECTS, Dialect, Heard, Peer, Place};
use crate::support::{PATIENCE, TestChat, User};

/// What a socket may be closed with, whatever it said.
const GOODBYES: [u16; 7] = [1000, 1002, 1003, 1007, 1008, 1009, 4000];
const FRAMES: usize = 10_000;

/// Words that mean something here, and others.
const WORDS: [&str; 24] = [
    "type",
    "room_id",
    "conversationId",
    "content",
    "since",
    "message",
    "messageId",
    "message_id",
    "client_message_id",
    "clientMessageId",
    "join_room",
    "leave_room",
    "send_message",
    "typing",
    "read",
    "resume",
    "ping",
    "chat_message",
    "join",
    "leave",
    "roomId",
    "streamId",
    "file_url",
    "token",
];
const NUMBERS: [i64; 9] = [0, 1, -1, 2, 256, i64::MAX, i64::MIN, 1 << 53, 4_294_967_296];

fn text(random: &mut Rng) -> String {
    match random.u32(..8) {
        0 => String::new(),
        1 => "\0".to_owned(),
        2 => "\u{202e}👋\u{ffff}".to_owned(),
        3 => "x".repeat(random.usize(..20_000)),
        4 => NUMBERS[random.usize(..NUMBERS.len())].to_string(),
        5 => (0..random.usize(..20)).map(|_| random.char(..)).collect(),
        _ => random.choice(WORDS).unwrap().to_owned(),
    }
}

fn value(random: &mut Rng, depth: u32) -> Value {
    match random.u32(..if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => json!(random.bool()),
        2 => json!(random.choice(NUMBERS).unwrap()),
        3 => json!(random.f64() * 1e300),
        4 | 5 => json!(text(random)),
        6 => (0..random.usize(..4)).map(|_| value(random, depth - 1)).collect(),
        _ => (0..random.usize(..4)).map(|_| (text(random), value(random, depth - 1))).collect::<Map<_, _>>().into(),
    }
}

/// Something that a client says, with a field that is another, more, or missing.
fn nearly(dialect: Dialect, place: &Place, random: &mut Rng) -> String {
    let Place { room, conversation } = place;
    let mut said = match (dialect, random.u32(..5)) {
        (Dialect::Rooms, 0) => json!({"type": "join_room", "room_id": room, "since": 0}),
        (Dialect::Rooms, 1) => {
            json!({"type": "send_message", "room_id": room, "content": "fuzz", "client_message_id": "f", "file_url": "/a"})
        }
        (Dialect::Rooms, 2) => json!({"type": "typing", "room_id": room, "is_typing": true}),
        (Dialect::Rooms, 3) => json!({"type": "read", "room_id": room, "message_id": 1}),
        (Dialect::Rooms, _) => json!({"type": "leave_room", "room_id": room}),
        (Dialect::Conversations, 0) => json!({"type": "resume", "since": {conversation: 0}}),
        (Dialect::Conversations, 1) => json!({
            "type": "message", "conversationId": conversation, "content": "fuzz", "messageType": "image", "fileUrl": "/a",
        }),
        (Dialect::Conversations, 2) => json!({"type": "typing", "conversationId": conversation, "isTyping": true}),
        (Dialect::Conversations, 3) => json!({"type": "read", "conversationId": conversation, "messageId": 1}),
        (Dialect::Conversations, _) => json!({"type": "ping"}),
        (Dialect::SocketIo, 0) => json!({"roomId": room, "since": 0}),
        (Dialect::SocketIo, 1) => json!({"streamId": 7, "message": "fuzz"}),
        (Dialect::SocketIo, _) => json!({"roomId": room, "message": "fuzz", "clientMessageId": "f"}),
    };
    let fields = said.as_object_mut().unwrap();
    let names: Vec<_> = fields.keys().cloned().collect();
    let name = &names[random.usize(..names.len())];
    match random.u32(..5) {
        0 => drop(fields.remove(name)),
        1 => drop(fields.insert(text(random), value(random, 2))),
        2 | 3 => drop(fields.insert(name.clone(), value(random, 2))),
        _ => {}
    }
    if dialect == Dialect::SocketIo {
        let event = random.choice(["join", "leave", "chat_message", "fly"]).unwrap();
        let kind = random.choice(["42", "42", "42", "427", "420", "43", "451-", "40", "41", "42/admin,"]).unwrap();
        return format!("{kind}{}", json!([event, said]));
    }
    said.to_string()
}

/// A frame, or something like it.
fn frame(dialect: Dialect, place: &Place, random: &mut Rng) -> Vec<u8> {
    let payload = match random.u32(..10) {
        0 => (0..random.usize(..200)).map(|_| random.u8(..)).collect(),
        1 => vec![b'['; random.usize(..30_000)],
        2 => value(random, 3).to_string().into_bytes(),
        3 => {
            // A word of the dialect with some bytes changed.
            let mut bytes = nearly(dialect, place, random).into_bytes();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes
        }
        _ => nearly(dialect, place, random).into_bytes(),
    };
    // Mostly a whole text; sometimes another kind, a piece, reserved bits, no mask, a wrong or a huge length.
    let (first, is_masked) = match random.u32(..20) {
        0 => (random.u8(..), random.bool()),
        1 => (0x82, true),
        2 => (random.choice([0x01, 0x02, 0x00, 0x80]).unwrap(), true),
        3 => (random.choice([0x88, 0x89, 0x8a]).unwrap(), true),
        4 => (0x81, false),
        _ => (0x81, true),
    };
    let mask_bit = if is_masked { 0x80 } else { 0 };
    let length = match random.u32(..60) {
        0 => random.u64(..),
        1 => random.u64(..100_000),
        _ => payload.len() as u64,
    };
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(mask_bit | u8::try_from(length).unwrap()),
        126..65_536 => {
            bytes.push(mask_bit | 126);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            bytes.push(mask_bit | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    if is_masked {
        let mask: [u8; 4] = random.u32(..).to_be_bytes();
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        bytes.extend(payload);
    }
    bytes
}

/// What the server has said at the end: the code that it closed with, if it did, and all texts.
fn read_frames(mut bytes: &[u8]) -> (Option<u16>, Vec<String>) {
    let mut texts = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        let (length, rest) = match second {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (usize::try_from(u64::from_be_bytes(rest[..8].try_into().unwrap())).unwrap(), &rest[8..]),
            length => (usize::from(*length), rest),
        };
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        match first & 0x0f {
            1 => texts.push(String::from_utf8(payload.to_vec()).expect("the server sends texts")),
            8 => return (payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]])), texts),
            _ => {}
        }
        bytes = rest;
    }
    (None, texts)
}

/// Sends up to `count` frames over one connection. Returns how many the server took before it closed.
async fn pester(
    chat: &TestChat,
    dialect: Dialect,
    user: &User,
    place: &Place,
    count: usize,
    random: &mut Rng,
) -> usize {
    let address = chat.url.strip_prefix("http://").unwrap();
    let path = match dialect {
        Dialect::Rooms => format!("/api/v1/chat/ws?token={}&room_id={}", user.token, place.room),
        Dialect::Conversations => format!("/ws/chat?token={}", user.token),
        Dialect::SocketIo => format!("/socket.io/?EIO=4&transport=websocket&token={}", user.token),
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let opened = timeout(PATIENCE, client_async(format!("ws://{address}{path}"), stream)).await.unwrap();
    let (mut reads, mut writes) = opened.expect("the handshake is answered").0.into_inner().into_split();
    let mut sent = 0;
    let mut heard = Vec::new();
    let write = async {
        if dialect == Dialect::SocketIo {
            // CONNECT, with the token of the handshake.
            let _ = writes.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'4', b'0']).await;
        }
        while sent < count {
            // Some of these have it closed; then what follows cannot be written, sooner or later.
            if writes.write_all(&frame(dialect, place, random)).await.is_err() {
                break;
            }
            sent += 1;
        }
        let _ = writes.shutdown().await;
    };
    let ((), ended) = tokio::join!(write, timeout(PATIENCE, reads.read_to_end(&mut heard)));
    // A connection that is closed while more comes is reset; but it ends.
    drop(ended.expect("the connection ends"));
    let (code, texts) = read_frames(&heard);
    assert!(code.is_none_or(|code| GOODBYES.contains(&code)), "{dialect:?} was closed with {code:?}");
    for text in texts {
        assert!(!text.contains("\"code\":\"internal\""), "{dialect:?}: {text}");
    }
    sent
}

#[tokio::test]
async fn ten_thousand_random_frames_break_nothing_and_the_room_lives() {
    let chat = TestChat::start().await;
    let (ana, eve) = (chat.user("Ana"), chat.user("Eve"));
    let room = chat.room_of(&[&ana, &eve]).await;
    let place = Place::of(&chat, &ana, room).await;
    let mut listeners = Vec::new();
    for dialect in DIALECTS {
        listeners.push((dialect, Peer::come(&chat.url, dialect, &ana.token, &place, Some(0)).await.unwrap()));
    }
    let work = async {
        let mut random = Rng::with_seed(1);
        let mut sent = 0;
        while sent < FRAMES {
            for dialect in DIALECTS {
                // Few on each connection: after some that are not understood it is closed.
                sent += pester(&chat, dialect, &eve, &place, 12, &mut random).await;
            }
        }
        chat.said(&ana, room, "the end").await
    };
    // They hear what was understood, each message once and in order, and are never closed.
    let listen = listeners.into_iter().map(async |(dialect, mut peer)| {
        let mut heard = 0;
        loop {
            match peer.hear().await.unwrap_or_else(|gone| panic!("{dialect:?}: {gone:?}")) {
                Heard::Message(message) => {
                    heard += 1;
                    assert_eq!(message.seq, heard, "{dialect:?}");
                    if message.content == "the end" {
                        return heard;
                    }
                }
                Heard::Refused { code, .. } => panic!("{dialect:?}: {code}"),
                _ => {}
            }
        }
    });

    let (last, heard) = tokio::join!(work, futures_util::future::join_all(listen));

    let stored = i64::try_from(chat.stored(room).await.len()).unwrap();
    assert_eq!((last["seq"].as_i64().unwrap(), heard), (stored, vec![stored; 3]));
    assert!(stored > 10, "some of it was understood: {stored}");
    assert!(!chat.program.output().contains("panicked"), "{}", chat.program.output());
    let health = timeout(Duration::from_secs(5), chat.client.get(format!("{}/healthz", chat.url)).send()).await;
    assert_eq!(health.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn no_opening_of_a_socket_is_answered_with_5xx() {
    const VALUES: [&str; 9] = ["", "1", "-1", "99999999999999999999", "%00", "%ff", "x", "websocket", "polling"];
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    // A connection that was to become a WebSocket takes no other request.
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let mut random = Rng::with_seed(1);
    for _ in 0..600 {
        let path = random.choice(["/api/v1/chat/ws", "/ws/chat", "/socket.io/"]).unwrap();
        let mut url = format!("{}{path}?", chat.url);
        for name in ["room_id", "client_id", "clientId", "EIO", "transport", "sid", "ticket"] {
            if random.u32(..3) == 0 {
                url += &format!("{name}={}&", random.choice(VALUES).unwrap());
            }
        }
        url += random.choice(["", "token=x", "EIO=4&transport=websocket", "EIO=4&transport=polling"]).unwrap();
        let method = random.choice(["GET", "GET", "POST", "PUT", "OPTIONS"]).unwrap().parse().unwrap();
        let mut request = client.request(method, &url);
        for (name, usual) in [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "x3JJHMbDL1EzLkh9GBhXDw=="),
            ("authorization", &*format!("Bearer {}", ana.token)),
        ] {
            match random.u32(..8) {
                0 => {}
                1 => request = request.header(name, random.choice(["", "x", "a, b", "0"]).unwrap()),
                _ => request = request.header(name, usual),
            }
        }
        let status = request.send().await.unwrap().status();
        assert!(!status.is_server_error(), "{url} is answered with {status}");
    }
    assert!(!chat.program.output().contains("panicked"), "{}", chat.program.output());
}
