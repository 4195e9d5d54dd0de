//! A house of several instances of each service, each in its own process and each to be taken away.

use std::time::Duration;

use chassis::Tasks;
use reqwest::{Client, Method, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testkit::{AmqpNamespace, Program, TestDatabase, free_port};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::house::{AMPHI, Settings, folder};

pub(crate) const ADMIN: &str = "root@example.org";
pub(crate) const PASSWORD: &str = "correct horse";

/// One process with one service, always at the same address.
pub(crate) struct Instance {
    pub(crate) url: String,
    service: &'static str,
    settings: Settings,
    program: Option<Program>,
}

impl Instance {
    /// Prepares an instance of `service`; it is not started.
    pub(crate) fn new(service: &'static str, settings: &Settings) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let listen = match service {
            "auth" => "AUTH_LISTEN",
            "stream" => "STREAM_LISTEN",
            "chat" => "CHAT_LISTEN",
            _ => "GATEWAY_LISTEN",
        };
        let mut settings = settings.clone();
        settings.extend([(listen, address.clone()), ("ADMIN_LISTEN", "127.0.0.1:0".to_owned())]);
        Self { url: format!("http://{address}"), service, settings, program: None }
    }

    pub(crate) async fn start(&mut self) {
        self.program = Some(Program::start(AMPHI, &["--target", self.service], &self.settings).await);
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn spawn(&mut self) {
        self.program = Some(Program::spawn(AMPHI, &["--target", self.service], &self.settings));
    }

    /// Asks it to stop, and waits until it has. Panics when it takes too long or fails.
    pub(crate) async fn stop(&mut self) {
        let program = self.program.take().unwrap();
        let (status, output) = tokio::task::spawn_blocking(move || program.stop()).await.unwrap();
        assert!(status.success(), "{output}");
    }

    pub(crate) fn kill(&mut self) {
        self.program.take().unwrap().kill();
    }

    /// Has it hang: connections stay, nothing answers.
    pub(crate) fn pause(&self) -> Paused {
        let id = i32::try_from(self.program.as_ref().unwrap().id()).unwrap();
        let process = Pid::from_raw(id).unwrap();
        kill_process(process, Signal::STOP).unwrap();
        Paused(process)
    }
}

/// A process that hangs for as long as this lives.
pub(crate) struct Paused(Pid);

impl Drop for Paused {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT); // It may be gone.
    }
}

/// Two instances of auth, stream and gateway, over one PostgreSQL, RabbitMQ and Redis.
pub(crate) struct Instances {
    pub(crate) auth: Vec<Instance>,
    pub(crate) stream: Vec<Instance>,
    pub(crate) gateway: Vec<Instance>,
    pub(crate) client: Client,
    pub(crate) database: TestDatabase,
    _namespace: AmqpNamespace,
    _data: tempfile::TempDir,
}

/// Which servers a house uses, where they are not those that tests share.
#[derive(Default)]
pub(crate) struct Servers {
    pub(crate) postgres: Option<String>,
    pub(crate) amqp: Option<String>,
    pub(crate) redis: Option<String>,
}

/// Somebody who is logged in.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) user: String,
    pub(crate) token: String,
}

impl Instances {
    pub(crate) async fn start(servers: Servers, more: &[(&'static str, String)]) -> Self {
        let shared = testkit::services();
        let database = match &servers.postgres {
            Some(url) => testkit::database_on(url).await,
            None => testkit::database().await,
        };
        let namespace = testkit::amqp_namespace(&["stream.users", "chat.users", "chat.streams", "auth.notices"]);
        let data = folder();
        let chat = chat().await;
        let mut settings: Settings = vec![
            ("AMPHI_DATA_DIR", data.path().display().to_string()),
            ("DATABASE_URL", database.url.clone()),
            ("AMQP_URL", servers.amqp.unwrap_or_else(|| shared.amqp_url.clone())),
            ("AMQP_NAMESPACE", namespace.name.clone()),
            ("REDIS_URL", servers.redis.unwrap_or_else(|| shared.redis_url.clone())),
            ("REDIS_PREFIX", namespace.name.clone()),
            ("WEBHOOK_SECRET", "a-secret-of-the-media-server".to_owned()),
            ("AMPHI_ADMIN_EMAIL", ADMIN.to_owned()),
            ("AMPHI_ADMIN_PASSWORD", PASSWORD.to_owned()),
            ("CHAT_URL", chat),
            // Tests ask for more than anybody else.
            ("GATEWAY_RATE_PER_ADDRESS", "1000000/1s".to_owned()),
            ("GATEWAY_RATE_PER_USER", "1000000/1s".to_owned()),
        ];
        settings.extend(more.iter().cloned());
        let two = |service, settings: &Settings| -> Vec<Instance> {
            (0..2).map(|_| Instance::new(service, settings)).collect()
        };
        let urls = |instances: &[Instance]| instances.iter().map(|it| &*it.url).collect::<Vec<_>>().join(",");
        let auth = two("auth", &settings);
        settings.push(("AUTH_URL", urls(&auth)));
        let stream = two("stream", &settings);
        settings.push(("STREAM_URL", urls(&stream)));
        let gateway = two("gateway", &settings);
        let client = testkit::client();
        let mut house = Self { auth, stream, gateway, client, database, _namespace: namespace, _data: data };
        house.start_all().await;
        house
    }

    /// All processes, those first that others ask.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut Instance> {
        self.auth.iter_mut().chain(&mut self.stream).chain(&mut self.gateway)
    }

    pub(crate) async fn start_all(&mut self) {
        for instance in self.all() {
            instance.start().await;
        }
    }

    /// Sends a request to `base`, a gateway or a service.
    pub(crate) async fn ask(&self, method: Method, base: &str, path: &str, token: &str, body: Value) -> Response {
        let request = self.client.request(method, format!("{base}{path}")).bearer_auth(token);
        let request = if body.is_null() { request } else { request.json(&body) };
        request.send().await.unwrap()
    }

    pub(crate) async fn register(&self, email: &str) -> Session {
        let body = json!({"user_email": email, "user_password": PASSWORD, "user_fullname": "Ana Silva"});
        let url = format!("{}/api/v1/auth/register", self.gateway[0].url);
        session_of(self.client.post(url).json(&body).send().await.unwrap()).await
    }

    /// The answer to logging in at `gateway`.
    pub(crate) async fn log_in_at(&self, gateway: &Instance, email: &str) -> Response {
        let body = json!({"user_email": email, "user_password": PASSWORD});
        self.client.post(format!("{}/api/v1/auth/login", gateway.url)).json(&body).send().await.unwrap()
    }

    pub(crate) async fn log_in(&self, email: &str) -> Session {
        session_of(self.log_in_at(&self.gateway[0], email).await).await
    }
}

async fn session_of(answer: Response) -> Session {
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    assert!(status.is_success(), "{status}: {body}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Session { user: text(&body["user"]["user_uuid"]), token: text(&body["token"]) }
}

/// The status and code of a problem; the code is empty where the answer is none.
pub(crate) async fn outcome(answer: Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let is_problem = answer.headers().get("content-type").is_some_and(|it| it == "application/problem+json");
    let body: Value = answer.json().await.unwrap_or_default();
    (status, body["code"].as_str().filter(|_| is_problem).unwrap_or_default().to_owned())
}

/// Runs `text` in the database at `url`, and returns the first column of the first row.
pub(crate) async fn sql(url: &str, text: &str) -> String {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::select! {
        rows = client.simple_query(text) => {
            let rows = rows.unwrap();
            let first = rows.iter().find_map(|row| match row {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            first.unwrap_or_default().to_owned()
        }
        ended = connection => panic!("the connection ended: {ended:?}"),
    }
}

/// Stands in for chat: agrees to every WebSocket and says nothing on it, begins an event stream that never ends, and answers all
/// else with 200. Returns its address.
async fn chat() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let tasks = Tasks::default();
    tasks.clone().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tasks.spawn(serve(stream));
        }
    });
    url
}

async fn serve(mut stream: TcpStream) {
    let mut buffer = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut buffer).await {
        let answer = if head.contains("upgrade: websocket") {
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        } else if head.contains("/events") {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n"
        } else {
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The head of a message that comes next; `None` at the end.
pub(crate) async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = buffer.drain(..end + 4).collect();
            return Some(String::from_utf8(head).unwrap());
        }
        if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
            return None;
        }
    }
}

/// A connection through `gateway` on which an answer goes on for as long as the session of `token`.
pub(crate) async fn open(gateway: &str, path: &str, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.strip_prefix("http://").unwrap()).await.unwrap();
    let upgrade = if path.ends_with("/ws") {
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n"
    } else {
        ""
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{upgrade}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut stream, &mut Vec::new()).await.expect("an answer");
    assert!(head.starts_with(if upgrade.is_empty() { "HTTP/1.1 200" } else { "HTTP/1.1 101" }), "{head}");
    stream
}

/// Waits until the other side has closed, for at most `patience`. Whether it has.
pub(crate) async fn is_closed_within(stream: &mut TcpStream, patience: Duration) -> bool {
    let end = async { while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {} };
    tokio::time::timeout(patience, end).await.is_ok()
}
