//! A running chat service, and what tests say to it.

use std::sync::LazyLock;
use std::time::Duration;

use common::{SessionId, UserId};
use events::Event;
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use testkit::{Documented, Issuer, Program, TestDatabase};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_amphi-chat");
/// What takes longer does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct TestChat {
    pub(crate) program: Program,
    pub(crate) client: Client,
    pub(crate) url: String,
    /// Of all instances.
    pub(crate) house: std::sync::Arc<House>,
}

/// What instances share.
pub(crate) struct House {
    pub(crate) database: TestDatabase,
    pub(crate) issuer: Issuer,
    data: tempfile::TempDir,
    settings: Vec<(&'static str, String)>,
}

/// Somebody with a token.
pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) session: SessionId,
    pub(crate) token: String,
}

/// A room that was made.
pub(crate) struct Made {
    pub(crate) id: i64,
    pub(crate) code: String,
}

impl House {
    /// A process that listens there.
    pub(crate) async fn program(&self, listen: &str) -> Program {
        let mut all = vec![
            ("DATABASE_URL", self.database.url.clone()),
            ("AMPHI_DATA_DIR", self.data.path().display().to_string()),
            ("AUTH_URL", self.issuer.url.clone()),
            ("CHAT_LISTEN", listen.to_owned()),
            ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            // Tests write faster than people.
            ("CHAT_RATE_PER_USER", "1000000/10s".to_owned()),
            ("CHAT_RATE_PER_ROOM", "1000000/10s".to_owned()),
        ];
        all.extend(self.settings.clone());
        Program::start(PROGRAM, &[], &all).await
    }
}

impl TestChat {
    pub(crate) async fn start() -> Self {
        Self::with(Vec::new()).await
    }

    pub(crate) async fn with(settings: Vec<(&'static str, String)>) -> Self {
        Self::on(testkit::database().await, settings).await
    }

    pub(crate) async fn on(database: TestDatabase, settings: Vec<(&'static str, String)>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let house = House { database, issuer: Issuer::start(), data, settings };
        Self::instance(house.into()).await
    }

    /// Another instance in the same house.
    pub(crate) async fn another(&self) -> Self {
        Self::instance(std::sync::Arc::clone(&self.house)).await
    }

    async fn instance(house: std::sync::Arc<House>) -> Self {
        let program = house.program("127.0.0.1:0").await;
        let url = program.announced("chat");
        Self { program, client: testkit::client(), url, house }
    }

    pub(crate) fn user(&self, name: &str) -> User {
        let (id, session) = (UserId::new(), SessionId::new());
        User { id, session, token: self.house.issuer.token_in(session, id, name) }
    }

    /// A user of whom auth has told.
    pub(crate) async fn known(&self, name: &str) -> User {
        let user = self.user(name);
        let sql = "insert into chat.users (user_id, full_name) values ($1::text::uuid, $2)";
        self.query(sql, &[&user.id.to_string(), &name]).await;
        user
    }

    pub(crate) fn get(&self, user: &User, path: &str) -> RequestBuilder {
        self.client.get(format!("{}/api/v1{path}", self.url)).bearer_auth(&user.token)
    }

    pub(crate) fn post(&self, user: &User, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(format!("{}/api/v1{path}", self.url)).bearer_auth(&user.token).json(body)
    }

    pub(crate) fn put(&self, user: &User, path: &str, body: &Value) -> RequestBuilder {
        self.client.put(format!("{}/api/v1{path}", self.url)).bearer_auth(&user.token).json(body)
    }

    /// A new room of `user`.
    pub(crate) async fn made(&self, user: &User) -> Made {
        let answer = self.post(user, "/rooms", &json!({"room_name": "Cooking"})).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let body: Value = answer.json().await.unwrap();
        Made { id: body["room_id"].as_i64().unwrap(), code: body["room_code"].as_str().unwrap().to_owned() }
    }

    /// A new room with all of these in it; the first has made it.
    pub(crate) async fn room_of(&self, users: &[&User]) -> i64 {
        let made = self.made(users[0]).await;
        for user in &users[1..] {
            let body = json!({"room_code": made.code});
            let answer = self.post(user, "/rooms/join-by-code", &body).send().await.unwrap();
            assert_eq!(answer.status(), 200);
        }
        made.id
    }

    /// Sends a message over REST, and returns it.
    pub(crate) async fn said(&self, user: &User, room: i64, content: &str) -> Value {
        let body = json!({"content": content});
        let answer = self.post(user, &format!("/rooms/{room}/messages"), &body).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        answer.json().await.unwrap()
    }

    /// Tells chat what another service tells: through its own outbox, as if that were the other's.
    pub(crate) async fn told<E: Event>(&self, event: &E) {
        let (client, connection) =
            tokio_postgres::connect(&self.house.database.url, tokio_postgres::NoTls).await.unwrap();
        let data = serde_json::to_string(event).unwrap().replace('\'', "''");
        let sql = format!(
            "insert into chat.outbox (event_id, name, occurred_at, data) values (gen_random_uuid(), '{}', now(), '{data}');
             select pg_notify('chat.outbox', '')",
            E::NAME
        );
        tokio::select! {
            done = client.batch_execute(&sql) => done.unwrap(),
            ended = connection => panic!("the connection ended: {ended:?}"),
        }
    }

    /// What the table has of this room, in its order.
    pub(crate) async fn stored(&self, room: i64) -> Vec<(i64, String)> {
        let rows = self.query("select seq, content from chat.messages where room_id = $1 order by seq", &[&room]).await;
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    pub(crate) async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Vec<tokio_postgres::Row> {
        let (client, connection) =
            tokio_postgres::connect(&self.house.database.url, tokio_postgres::NoTls).await.unwrap();
        tokio::select! {
            rows = client.query(sql, parameters) => rows.unwrap(),
            ended = connection => panic!("the connection ended: {ended:?}"),
        }
    }

    /// A private conversation of these two, who are known.
    pub(crate) async fn private(&self, one: &User, other: &User) -> Value {
        let body = json!({"type": "private", "userId": other.id});
        let answer = self.post(one, "/conversations", &body).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        answer.json().await.unwrap()
    }

    /// Opens the WebSocket of conversations, which hears all from then on.
    pub(crate) async fn listen(&self, user: &User) -> Socket {
        let mut socket = self.open(&format!("/ws/chat?token={}", user.token)).await;
        socket.until("connected").await;
        socket
    }

    pub(crate) async fn open(&self, path: &str) -> Socket {
        let url = format!("{}{path}", self.url.replacen("http", "ws", 1));
        let (stream, _) = timeout(PATIENCE, connect_async(url)).await.unwrap().unwrap();
        Socket(stream, if path.starts_with("/ws/chat") { "conversations" } else { "rooms" })
    }

    /// Opens the WebSocket of rooms.
    pub(crate) async fn socket(&self, user: &User, query: &str) -> Socket {
        self.open(&format!("/api/v1/chat/ws?token={}{query}", user.token)).await
    }

    /// The same, in this room already.
    pub(crate) async fn socket_in(&self, user: &User, room: i64) -> Socket {
        let mut socket = self.socket(user, &format!("&room_id={room}")).await;
        socket.until("joined").await;
        socket
    }
}

/// Checks that what is heard is as the AsyncAPI document has it.
pub(crate) fn documented(channel: &str, text: &str) {
    static DOCUMENT: LazyLock<Documented> = LazyLock::new(|| Documented::new(&chat::SERVICE.asyncapi.unwrap()()));
    DOCUMENT.heard(channel, text);
}

/// A client of a WebSocket, and what the AsyncAPI document calls that.
pub(crate) struct Socket(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>, &'static str);

impl Socket {
    pub(crate) async fn say(&mut self, value: &Value) {
        self.0.send(Message::text(value.to_string())).await.unwrap();
    }

    pub(crate) async fn send(&mut self, room: i64, content: &str) {
        self.say(&json!({"type": "send_message", "room_id": room, "content": content})).await;
    }

    /// What is heard next; the close code, if the server closes.
    pub(crate) async fn hear(&mut self) -> Result<Value, u16> {
        self.hear_or_goodbye().await.map_err(|(code, _)| code)
    }

    /// The code and the words that the server closes with at once.
    pub(crate) async fn goodbye(&mut self) -> (u16, String) {
        self.hear_or_goodbye().await.unwrap_err()
    }

    async fn hear_or_goodbye(&mut self) -> Result<Value, (u16, String)> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("something is heard in time") {
                Some(Ok(Message::Text(text))) => {
                    documented(self.1, &text);
                    return Ok(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Close(Some(frame)))) => return Err((frame.code.into(), frame.reason.to_string())),
                Some(Ok(Message::Close(None))) => return Err((1005, String::new())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err((1006, String::new())),
            }
        }
    }

    /// The message of a conversation that has this number; none beyond it comes first.
    pub(crate) async fn until_message(&mut self, seq: i64) -> Value {
        loop {
            let message = self.until("message").await["message"].clone();
            assert!(message["seq"].as_i64().unwrap() <= seq);
            if message["seq"] == seq {
                return message;
            }
        }
    }

    /// The next of this type; others are passed over.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            let value = self.hear().await.unwrap_or_else(|code| panic!("closed with {code} instead of `{kind}`"));
            if value["type"] == kind {
                return value;
            }
        }
    }

    /// Says `value` in the conversation.
    pub(crate) async fn say_in(&mut self, conversation: &Value, mut value: Value) {
        value["conversationId"] = conversation["id"].clone();
        self.say(&value).await;
    }

    /// The code that the server closes with; everything before is passed over.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            if let Err(code) = self.hear().await {
                return code;
            }
        }
    }

    /// The contents of the next `count` messages, with their numbers.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<(i64, String)> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let message = self.until("new_message").await;
            messages.push((message["seq"].as_i64().unwrap(), message["content"].as_str().unwrap().to_owned()));
        }
        messages
    }
}

/// Checks that the answer is a problem of this status and code, and returns it.
pub(crate) async fn problem(answer: Response, status: u16, code: &str) -> Value {
    let actual = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    assert_eq!((actual, body["code"].as_str()), (status, Some(code)), "{body}");
    body
}

/// The number that the long version of a test was asked for.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration but this")]
pub(crate) fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}
