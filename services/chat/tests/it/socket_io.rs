//! Socket.IO, packet by packet, as `socket.io-client` sends and expects them.

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::{PATIENCE, TestChat, User, documented};

/// A client over a WebSocket.
pub(crate) struct Io(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Io {
    /// Opens a line; `query` follows the transport.
    async fn open(chat: &TestChat, query: &str) -> Self {
        let url = chat.url.replacen("http", "ws", 1);
        let url = format!("{url}/socket.io/?EIO=4&transport=websocket{query}");
        Self(timeout(PATIENCE, connect_async(url)).await.unwrap().unwrap().0)
    }

    /// The same, and connects with the user's token.
    pub(crate) async fn connected(chat: &TestChat, user: &User) -> Self {
        let mut io = Self::open(chat, "").await;
        assert!(io.hear().await.unwrap().starts_with("0{"));
        io.say(&format!("40{}", json!({"token": user.token}))).await;
        assert!(io.hear().await.unwrap().starts_with("40{\"sid\":"));
        io
    }

    pub(crate) async fn say(&mut self, packet: &str) {
        self.0.send(Message::text(packet)).await.unwrap();
    }

    /// Sends an event, and waits until it is acknowledged; what else is heard before is passed over.
    pub(crate) async fn ask(&mut self, event: &str, value: &Value) -> Value {
        self.say(&format!("427{}", json!([event, value]))).await;
        loop {
            if let Some(answer) = self.hear().await.unwrap().strip_prefix("437") {
                return serde_json::from_str::<Value>(answer).unwrap()[0].clone();
            }
        }
    }

    /// What is heard next; the close code, if the server closes. Pings are answered.
    pub(crate) async fn hear(&mut self) -> Result<String, u16> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("something is heard in time") {
                Some(Ok(Message::Text(text))) if text == "2" => self.say("3").await,
                Some(Ok(Message::Text(text))) => {
                    documented("socket.io", &text);
                    return Ok(text.to_string());
                }
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    /// The next event of this name; what else is heard before is passed over.
    pub(crate) async fn until(&mut self, name: &str) -> Value {
        loop {
            let heard = self.hear().await.unwrap_or_else(|code| panic!("closed with {code} instead of `{name}`"));
            let event: Value = heard.strip_prefix("42").map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
            if event[0] == name {
                return event[1].clone();
            }
        }
    }

    async fn closed(&mut self) -> u16 {
        loop {
            if let Err(code) = self.hear().await {
                return code;
            }
        }
    }
}

/// A client that polls.
struct Polling<'a> {
    chat: &'a TestChat,
    sid: String,
}

impl<'a> Polling<'a> {
    async fn open(chat: &'a TestChat) -> Self {
        let mut polling = Self { chat, sid: String::new() };
        let opening = polling.poll().await.text().await.unwrap();
        let opening: Value = serde_json::from_str(opening.strip_prefix('0').unwrap()).unwrap();
        polling.sid = opening["sid"].as_str().unwrap().to_owned();
        polling
    }

    fn url(&self) -> String {
        let sid = if self.sid.is_empty() { String::new() } else { format!("&sid={}", self.sid) };
        format!("{}/socket.io/?EIO=4&transport=polling{sid}", self.chat.url)
    }

    async fn poll(&self) -> Response {
        self.chat.client.get(self.url()).send().await.unwrap()
    }

    async fn post(&self, packets: impl Into<reqwest::Body>) -> Response {
        self.chat.client.post(self.url()).body(packets).send().await.unwrap()
    }

    /// What the next polls bring, until there is a packet that begins so.
    async fn until(&self, start: &str) -> String {
        loop {
            let answer = self.poll().await;
            assert_eq!(answer.status(), 200);
            let packets = answer.text().await.unwrap();
            if let Some(packet) = packets.split('\u{1e}').find(|packet| packet.starts_with(start)) {
                return packet.to_owned();
            }
        }
    }

    async fn refused(answer: Response, status: u16, code: i64) {
        let actual = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        assert_eq!((actual, &body["code"]), (status, &json!(code)), "{body}");
    }
}

#[tokio::test]
async fn a_conversation_is_shared_with_clients_of_all_dialects() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.known("Ana").await, chat.known("Ben").await);
    let conversation = chat.private(&ana, &ben).await;
    let room = conversation["roomId"].as_i64().unwrap();
    let mut listener = chat.listen(&ben).await;
    let mut socket = chat.socket_in(&ben, room).await;
    let mut io = Io::connected(&chat, &ana).await;
    io.ask("join", &json!({"roomId": room})).await;

    io.ask("chat_message", &json!({"roomId": room, "message": "from Socket.IO"})).await;

    assert_eq!(socket.until("new_message").await["content"], "from Socket.IO");
    assert_eq!(listener.until_message(1).await["content"], "from Socket.IO");
    // Socket.IO has no word for who types and who has read: it is told of the message next.
    listener.say_in(&conversation, json!({"type": "typing"})).await;
    listener.say_in(&conversation, json!({"type": "read"})).await;
    assert_eq!(socket.until("read").await["seq"], 1);
    listener.say_in(&conversation, json!({"type": "message", "content": "from a conversation"})).await;
    loop {
        let heard = io.hear().await.unwrap();
        if heard.starts_with("42[\"chat_message\"") && heard.contains("from a conversation") {
            break;
        }
        assert!(!heard.contains("typing") && !heard.contains("read"), "{heard}");
    }
}

#[tokio::test]
async fn a_room_is_shared_with_clients_of_the_other_dialect() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let room = chat.room_of(&[&ana, &ben]).await;
    let mut io = Io::connected(&chat, &ana).await;
    assert_eq!(
        io.ask("join", &json!({"roomId": room.to_string()})).await,
        json!({"roomId": room, "seq": 0, "recovered": null})
    );
    let mut socket = chat.socket_in(&ben, room).await;
    assert_eq!(io.until("user_joined").await, json!({"streamId": null, "roomId": room, "userId": ana.id}));
    assert_eq!(io.until("user_joined").await, json!({"streamId": null, "roomId": room, "userId": ben.id}));

    let said = json!({"room_id": room, "message": "from Socket.IO", "clientMessageId": "a1"});
    let stored = io.ask("chat_message", &said).await;
    socket.send(room, "from a WebSocket").await;

    assert_eq!((&stored["seq"], stored["timestamp"].is_string()), (&json!(1), true));
    assert_eq!(socket.messages(2).await, [(1, "from Socket.IO".to_owned()), (2, "from a WebSocket".to_owned())]);
    let heard = io.until("chat_message").await;
    assert_eq!(
        (&heard["message"], &heard["seq"], &heard["userId"]),
        (&json!("from a WebSocket"), &json!(2), &json!(ben.id))
    );
    assert_eq!(io.ask("chat_message", &said).await, stored, "sent again, it is the same message");
    assert_eq!(io.ask("leave", &json!({"roomId": room})).await, json!({"roomId": room}));
    assert_eq!(socket.until("user_left").await["user_uuid"], json!(ana.id));
    let refused = io.ask("chat_message", &said).await;
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["message"]),
        (&json!("not-joined"), &json!("You must join the room first"))
    );
}

#[tokio::test]
async fn who_comes_back_gets_what_was_missed() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let room = chat.room_of(&[&ana]).await;
    for n in 1..=3 {
        chat.said(&ana, room, &n.to_string()).await;
    }
    let mut io = Io::connected(&chat, &ana).await;
    io.say(&format!("42{}", json!(["join", {"roomId": room, "since": 1}]))).await;
    assert_eq!(io.until("joined").await, json!({"roomId": room, "seq": 3, "recovered": true}));
    for n in 2..=3 {
        assert_eq!(io.until("chat_message").await["message"], json!(n.to_string()));
    }
}

#[tokio::test]
async fn a_websocket_takes_over_from_polls_and_nothing_is_lost_or_out_of_order() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let room = chat.room_of(&[&ana]).await;
    let polling = Polling::open(&chat).await;
    let connect = format!("40{}\u{1e}420{}", json!({"token": ana.token}), json!(["join", {"roomId": room}]));
    let posted = polling.post(connect).await;
    assert_eq!((posted.status().as_u16(), posted.text().await.unwrap().as_str()), (200, "ok"));
    polling.until("430[").await;
    chat.said(&ana, room, "1").await;
    assert!(polling.until("42[\"chat_message\"").await.contains("\"message\":\"1\""));

    let mut io = Io::open(&chat, &format!("&sid={}", polling.sid)).await;
    let (last, ()) = tokio::join!(polling.until("6"), async {
        io.say("2probe").await;
        assert_eq!(io.hear().await.unwrap(), "3probe");
    });
    assert_eq!(last, "6", "the poll that waits is let go");
    chat.said(&ana, room, "2").await;
    io.say("5").await;
    chat.said(&ana, room, "3").await;

    for n in 2..=3 {
        assert_eq!(io.until("chat_message").await["message"], json!(n.to_string()));
    }
    Polling::refused(polling.poll().await, 400, 3).await;
    assert_eq!(Io::open(&chat, &format!("&sid={}", polling.sid)).await.closed().await, 1008);
    io.say(&format!("421{}", json!(["chat_message", {"roomId": room, "message": "4"}]))).await;
    assert_eq!(io.until("chat_message").await["message"], "4");
}

#[tokio::test]
async fn requests_that_the_protocol_does_not_have_are_refused_in_its_own_words() {
    let chat = TestChat::start().await;
    let get = async |query: &str| chat.client.get(format!("{}/socket.io/{query}", chat.url)).send().await.unwrap();
    Polling::refused(get("?EIO=3&transport=polling").await, 400, 5).await;
    Polling::refused(get("?transport=polling").await, 400, 5).await;
    Polling::refused(get("?EIO=4&transport=pigeon").await, 400, 0).await;
    Polling::refused(get("?EIO=4&transport=polling&sid=x").await, 400, 1).await;
    let new = Polling { chat: &chat, sid: String::new() };
    Polling::refused(new.post("40").await, 400, 2).await;
    let url = chat.url.replacen("http", "ws", 1);
    let unknown = connect_async(format!("{url}/socket.io/?EIO=4&transport=websocket&sid=x")).await;
    assert!(matches!(unknown, Err(Error::Http(answer)) if answer.status() == 400));

    for (body, status) in [("x".to_owned(), 400), ("4".repeat(65_537), 413), (String::new(), 400)] {
        let polling = Polling::open(&chat).await;
        Polling::refused(polling.post(body).await, status, 3).await;
        Polling::refused(polling.poll().await, 400, 1).await;
    }
}

#[tokio::test]
async fn one_poll_at_a_time() {
    let chat = TestChat::start().await;
    let polling = Polling::open(&chat).await;
    let (one, other) = tokio::join!(polling.poll(), polling.poll());
    let mut statuses = [one.status().as_u16(), other.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);
    let waited = if one.status() == 200 { one } else { other };
    assert_eq!(waited.text().await.unwrap(), "1", "it is closed");
    Polling::refused(polling.poll().await, 400, 1).await;
}

#[tokio::test]
async fn who_says_nothing_is_gone() {
    let quick =
        vec![("CHAT_SOCKET_IO_PING_INTERVAL", "300ms".to_owned()), ("CHAT_SOCKET_IO_PING_TIMEOUT", "200ms".to_owned())];
    let chat = TestChat::with(quick).await;
    let polling = Polling::open(&chat).await;
    assert_eq!(polling.until("2").await, "2");
    polling.post("3").await;
    assert_eq!(polling.until("2").await, "2", "who answers stays");
    let mut answer = polling.poll().await;
    assert_eq!(answer.text().await.unwrap(), "1", "who does not is let go");
    answer = polling.poll().await;
    Polling::refused(answer, 400, 1).await;

    let (mut io, mut silent) = (Io::open(&chat, "").await, Io::open(&chat, "").await);
    io.hear().await.unwrap();
    tokio::select! {
        heard = io.hear() => panic!("{heard:?} instead of nothing but pings"),
        () = async { while let Some(Ok(_)) = timeout(PATIENCE, silent.0.next()).await.unwrap() {} } => {}
    }
    io.say("40/admin,").await;
    assert_eq!(io.hear().await.unwrap(), r#"44/admin,{"message":"Invalid namespace"}"#, "who answers stays");
}

#[tokio::test]
async fn a_token_is_needed_and_may_come_with_either_packet() {
    let chat = TestChat::with(vec![("CHAT_SOCKET_IO_CONNECT_TIMEOUT", "1s".to_owned())]).await;
    let ana = chat.user("Ana");
    for (query, connect, expected) in [
        (String::new(), "40".to_owned(), Some("token-missing")),
        (String::new(), r#"40{"token":"garbage"}"#.to_owned(), Some("token-invalid")),
        (String::new(), r#"40{"token":7}"#.to_owned(), Some("token-invalid")),
        (format!("&token={}", ana.token), r#"40{"token":"garbage"}"#.to_owned(), Some("token-invalid")),
        (format!("&token={}", ana.token), "40".to_owned(), None),
    ] {
        let mut io = Io::open(&chat, &query).await;
        io.hear().await.unwrap();
        io.say(&connect).await;
        let answer = io.hear().await.unwrap();
        match expected {
            None => assert!(answer.starts_with("40{"), "{answer}"),
            Some(code) => {
                let error: Value = serde_json::from_str(answer.strip_prefix("44").unwrap()).unwrap();
                assert_eq!((&error["data"]["code"], error["message"].is_string()), (&json!(code), true));
                assert_eq!(io.closed().await, 1000, "after its time");
            }
        }
    }
    let mut io = Io::open(&chat, "").await;
    io.hear().await.unwrap();
    io.say(r#"42["join",{"roomId":1}]"#).await;
    assert_eq!(io.closed().await, 1000, "an event before the token");

    let mut io = Io::open(&chat, "").await;
    for _ in 0..=10 {
        io.say(r#"40{"token":"guess"}"#).await;
    }
    assert_eq!(io.closed().await, 1000, "too many guesses");
}

#[tokio::test]
async fn a_session_that_ends_takes_its_clients_with_it() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let mut io = Io::connected(&chat, &ana).await;
    let polling = Polling::open(&chat).await;
    polling.post(format!("40{}", json!({"token": ana.token}))).await;
    polling.until("40{").await;

    chat.house.issuer.end(ana.session);

    assert_eq!(io.hear().await.unwrap(), "41", "it does not come back by itself");
    assert_eq!(io.closed().await, 1008);
    polling.until("41").await;
}

#[tokio::test]
async fn what_is_not_understood_is_answered_and_what_is_no_packet_ends_the_line() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let mut io = Io::connected(&chat, &ana).await;
    for (event, value) in [
        ("fly", json!({"roomId": 1})),
        ("join", json!({})),
        ("join", json!("1")),
        ("join", json!({"roomId": 1, "streamId": 1})),
        ("join", json!({"roomId": "one"})),
        ("chat_message", json!({"roomId": 1, "message": 7})),
    ] {
        assert_eq!(io.ask(event, &value).await["error"]["code"], "not-understood", "{event} {value}");
    }
    io.say(r#"451-["chat_message",{"_placeholder":true,"num":0}]"#).await;
    io.0.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(io.until("error").await["code"], "not-understood");
    assert_eq!(io.ask("join", &json!({"roomId": 1})).await["error"]["code"], "no-such-room");

    for packet in ["4abc", "42{}", "42abc[\"join\",{}]", "abc", "", "2", "40"] {
        let mut io = Io::connected(&chat, &ana).await;
        io.say(packet).await;
        assert_eq!(io.closed().await, 1000, "{packet}");
    }
    let mut io = Io::connected(&chat, &ana).await;
    io.0.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(io.closed().await, 1000);
    let mut io = Io::connected(&chat, &ana).await;
    io.0.send(Message::text("4".repeat(65 * 1024))).await.unwrap();
    assert_eq!(io.closed().await, 1009);
}

#[tokio::test]
async fn when_the_service_stops_clients_are_told_to_come_back() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let mut io = Io::connected(&chat, &ana).await;
    chat.program.ask_to_stop();
    assert_eq!(io.closed().await, 1012);
}

#[tokio::test]
async fn who_disconnects_may_connect_again_over_the_same_line() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let room = chat.room_of(&[&ana, &ben]).await;
    let mut socket = chat.socket_in(&ben, room).await;
    let mut io = Io::connected(&chat, &ana).await;
    io.ask("join", &json!({"roomId": room})).await;
    while socket.until("user_joined").await["user_uuid"] != json!(ana.id) {}

    io.say("41").await;

    assert_eq!(socket.until("user_left").await["user_uuid"], json!(ana.id));
    io.say(&format!("40{}", json!({"token": ana.token}))).await;
    while !io.hear().await.unwrap().starts_with("40{") {}
    assert_eq!(io.ask("chat_message", &json!({"roomId": room, "message": "a"})).await["error"]["code"], "not-joined");
}

#[tokio::test]
async fn a_session_is_named_after_its_instance_so_that_the_gateway_finds_it() {
    let chat = TestChat::start().await;
    let health = chat.client.get(format!("{}/healthz", chat.url)).send().await.unwrap();
    let instance = health.headers()["x-amphi-instance"].to_str().unwrap().to_owned();
    let polling = Polling::open(&chat).await;
    assert_eq!(polling.sid.split_once('.').unwrap().0, instance);
}
