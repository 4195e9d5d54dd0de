//! The clients that the documents name, as they are: `socket.io-client`, `ws`, and pages in Chromium, in one room, through the
//! gateway. What they talk to is killed meanwhile, and they come back by themselves.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use testkit::{Program, eventually, free_port, workspace};

use crate::house::{AMPHI, Settings, folder};
use crate::instances::Instance;

const PASSWORD: &str = "correct horse battery";
/// How many messages each sends.
const COUNT: usize = 60;
/// As `clients.js` has them, with what carries Socket.IO at the end.
const KINDS: [(&str, Option<&str>); 7] = [
    ("socket.io", Some("websocket")),
    ("socket.io over a WebSocket", Some("websocket")),
    ("socket.io over polls", Some("polling")),
    ("ws in a room", None),
    ("ws in a conversation", None),
    ("page with a WebSocket", None),
    ("page with socket.io", Some("websocket")),
];

/// A message, as a client was told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Message {
    seq: usize,
    id: i64,
    /// The sender's own name for it.
    name: String,
    sender: String,
    sender_name: String,
    content: String,
}

/// What a client was told.
#[derive(Debug, Deserialize)]
struct Told {
    kind: String,
    heard: Vec<Message>,
    /// The number of each of its own messages.
    acknowledged: BTreeMap<String, usize>,
    /// What carried Socket.IO at the beginning and at the end.
    #[serde(default)]
    transports: Vec<String>,
}

/// A room through a gateway, and a user for each client.
struct Talk {
    gateway: String,
    room: i64,
    conversation: Value,
    users: Vec<Value>,
    client: Client,
}

impl Talk {
    async fn prepare(gateway: &str) -> Self {
        let (mut talk, mut code) = (
            Self {
                gateway: gateway.to_owned(),
                room: 0,
                conversation: Value::Null,
                users: Vec::new(),
                client: testkit::client(),
            },
            Value::Null,
        );
        for n in 0..KINDS.len() {
            let (email, name) = (format!("user{n}@example.org"), format!("User-{n}"));
            let body = json!({"user_email": email, "user_password": PASSWORD, "user_fullname": name});
            let registered = talk.post("", "/api/v1/auth/register", &body).await;
            let (token, id) = (registered["token"].as_str().unwrap(), &registered["user"]["user_uuid"]);
            if n == 0 {
                let made = talk.post(token, "/api/v1/rooms", &json!({"room_name": "Everybody"})).await;
                talk.room = made["room_id"].as_i64().unwrap();
                (talk.conversation, code) = (made["conversation_id"].clone(), made["room_code"].clone());
            } else {
                talk.post(token, "/api/v1/rooms/join-by-code", &json!({"room_code": code})).await;
            }
            talk.users.push(json!({"id": id, "name": name, "email": email, "password": PASSWORD, "token": token}));
        }
        let members = format!("/api/v1/rooms/{}/members?limit=100", talk.room);
        eventually("chat knows everybody's name", async || {
            let members = talk.get(&members).await;
            let mut names = members["items"].as_array().unwrap().iter().map(|member| &member["user_fullname"]);
            names.all(Value::is_string).then_some(())
        })
        .await;
        talk
    }

    async fn post(&self, token: &str, path: &str, body: &Value) -> Value {
        let request = self.client.post(format!("{}{path}", self.gateway)).json(body);
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{path} is answered with {status}: {body}");
        body
    }

    async fn get(&self, path: &str) -> Value {
        let token = self.users[0]["token"].as_str().unwrap();
        let answer = self.client.get(format!("{}{path}", self.gateway)).bearer_auth(token).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// Starts the clients.
    fn begin(&self, folder: &Path) -> Program {
        let prepared =
            Command::new(workspace().join("deploy/local/clients")).stderr(Stdio::inherit()).output().unwrap();
        assert!(prepared.status.success(), "the clients are there: see above");
        let packages = String::from_utf8(prepared.stdout).unwrap().trim().to_owned();
        let given = json!({
            "gateway": self.gateway,
            "room": self.room,
            "conversation": self.conversation,
            "count": COUNT,
            "users": self.users,
        });
        let settings = [
            ("NODE_PATH", packages),
            ("AMPHI_CLIENTS", given.to_string()),
            ("CHROMIUM", "chromium".to_owned()),
            ("HOME", folder.display().to_string()),
            ("TMPDIR", folder.display().to_string()),
        ];
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/clients.js");
        Program::spawn("node", &[&script.display().to_string()], &settings)
    }

    /// Waits until so many messages were acknowledged.
    async fn until_acknowledged(clients: &Program, count: usize) {
        eventually(&format!("{count} messages are acknowledged"), async || {
            let output = clients.output();
            assert!(!output.contains("Error"), "{}", complaints(&output));
            output.contains(&format!("acknowledged {count}\n")).then_some(())
        })
        .await;
    }

    /// Waits until the clients are done, and checks what they were told: all of it, once, in one order, with the senders' names,
    /// and as it is stored.
    async fn check(&self, clients: Program) {
        let (status, output) = tokio::task::spawn_blocking(move || clients.wait()).await.unwrap();
        assert!(status.success(), "{}", complaints(&output));
        let told = output.lines().find_map(|line| serde_json::from_str::<Vec<Told>>(line).ok());
        let told = told.unwrap_or_else(|| panic!("{}", complaints(&output)));

        let stored = self.stored().await;
        assert_eq!(stored.len(), COUNT * KINDS.len());
        assert!(stored.iter().zip(1..).all(|(message, seq)| message.seq == seq));
        for message in &stored {
            let user = self.users.iter().find(|user| user["id"] == message.sender.as_str()).unwrap();
            assert_eq!(user["name"], message.sender_name.as_str());
            assert!(message.name.starts_with(&message.sender_name), "{message:?}");
            assert_eq!(message.content, format!("content of {}", message.name));
        }
        for ((told, (kind, transport)), user) in told.iter().zip(KINDS).zip(&self.users) {
            assert_eq!(told.kind, kind);
            assert_eq!(told.heard, stored, "{kind}");
            let own = stored.iter().filter(|message| user["id"] == message.sender.as_str());
            let own: BTreeMap<_, _> = own.map(|message| (message.name.clone(), message.seq)).collect();
            assert_eq!(told.acknowledged, own, "{kind}");
            assert_eq!(told.transports.last().map(String::as_str), transport, "{kind}");
        }
        assert_eq!(told.len(), KINDS.len());
        assert_eq!(told[0].transports[0], "polling", "it began with polls");
    }

    /// What the room's history has.
    async fn stored(&self) -> Vec<Message> {
        let mut stored = BTreeMap::new();
        for page in 1.. {
            let path = format!("/api/v1/rooms/{}/messages?limit=100&page={page}", self.room);
            let page = self.get(&path).await;
            let items = page["items"].as_array().unwrap();
            if items.is_empty() {
                break;
            }
            for item in items {
                let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
                let seq = usize::try_from(item["seq"].as_u64().unwrap()).unwrap();
                let message = Message {
                    seq,
                    id: item["message_id"].as_i64().unwrap(),
                    name: text("client_message_id"),
                    sender: text("user_uuid"),
                    sender_name: text("user_fullname"),
                    content: text("content"),
                };
                stored.insert(seq, message);
            }
        }
        stored.into_values().collect()
    }
}

/// What clients have printed, without what they print all the time.
fn complaints(output: &str) -> String {
    let lines = output.lines().filter(|line| !line.starts_with("acknowledged") && !line.starts_with('['));
    lines.collect::<Vec<_>>().join("\n")
}

/// What a house needs for clients that say more than people do.
fn settings(data: &Path) -> Settings {
    vec![
        ("AMPHI_DATA_DIR", data.display().to_string()),
        ("AMPHI_ADMIN_PASSWORD", PASSWORD.to_owned()),
        ("LOG_LEVEL", "warn".to_owned()),
        ("GATEWAY_RATE_PER_ADDRESS", "1000000/1s".to_owned()),
        ("GATEWAY_RATE_PER_USER", "1000000/1s".to_owned()),
        ("CHAT_RATE_PER_USER", "1000000/1s".to_owned()),
        ("CHAT_RATE_PER_ROOM", "1000000/1s".to_owned()),
    ]
}

#[tokio::test]
async fn clients_of_every_kind_share_a_room_at_two_instances_and_lose_nothing_when_one_is_killed() {
    let (data, services) = (folder(), testkit::services());
    let database = testkit::database().await;
    let namespace = testkit::amqp_namespace(&["stream.users", "chat.users", "chat.streams", "auth.notices"]);
    let mut own = settings(data.path());
    own.extend([
        ("DATABASE_URL", database.url.clone()),
        ("AMQP_URL", services.amqp_url.clone()),
        ("AMQP_NAMESPACE", namespace.name.clone()),
        ("REDIS_URL", services.redis_url.clone()),
        ("REDIS_PREFIX", namespace.name.clone()),
        ("GATEWAY_PROBE_EVERY", "100ms".to_owned()),
    ]);
    let mut auth = Instance::new("auth", &own);
    own.push(("AUTH_URL", auth.url.clone()));
    let mut chat = [Instance::new("chat", &own), Instance::new("chat", &own)];
    own.push(("CHAT_URL", format!("{},{}", chat[0].url, chat[1].url)));
    own.push(("STREAM_URL", "http://127.0.0.1:1".to_owned()));
    let mut gateway = Instance::new("gateway", &own);
    auth.start().await;
    for instance in &mut chat {
        instance.start().await;
    }
    gateway.start().await;
    let talk = Talk::prepare(&gateway.url).await;

    let clients = talk.begin(data.path());
    for (instance, acknowledged) in chat.iter_mut().zip([100, 250]) {
        Talk::until_acknowledged(&clients, acknowledged).await;
        instance.kill();
        instance.start().await;
    }

    talk.check(clients).await;
}

#[tokio::test]
async fn clients_of_every_kind_share_a_room_in_one_process_and_lose_nothing_when_it_is_killed() {
    let data = folder();
    let mut own = settings(data.path());
    own.push(("GATEWAY_LISTEN", format!("127.0.0.1:{}", free_port())));
    own.push(("ADMIN_LISTEN", "127.0.0.1:0".to_owned()));
    let program = Program::start(AMPHI, &[], &own).await;
    let talk = Talk::prepare(&program.announced("gateway")).await;

    let clients = talk.begin(data.path());
    Talk::until_acknowledged(&clients, 150).await;
    program.kill();
    let _program = Program::start(AMPHI, &[], &own).await;

    talk.check(clients).await;
}
