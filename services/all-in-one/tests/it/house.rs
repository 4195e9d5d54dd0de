//! A running house with a media server, in one process on embedded defaults or each service in its own.

use std::os::unix::fs::PermissionsExt as _;

use reqwest::Client;
use serde_json::{Value, json};
use testkit::media::MediaServer;
use testkit::{AmqpNamespace, Program, TestDatabase, eventually, free_port};

pub(crate) const AMPHI: &str = env!("CARGO_BIN_EXE_amphi");
pub(crate) const SECRET: &str = "a-secret-of-the-media-server";

pub(crate) type Settings = Vec<(&'static str, String)>;

pub(crate) struct House {
    pub(crate) programs: Vec<Program>,
    pub(crate) media: MediaServer,
    pub(crate) gateway: String,
    pub(crate) client: Client,
    /// What every program is started with.
    pub(crate) settings: Settings,
    pub(crate) data: tempfile::TempDir,
    _full: Option<(TestDatabase, AmqpNamespace)>,
}

/// Somebody with a token.
pub(crate) struct User {
    pub(crate) token: String,
}

/// A stream, and what its owner was told once.
pub(crate) struct Stream {
    pub(crate) id: i64,
    pub(crate) key: String,
    pub(crate) ingest: String,
    pub(crate) playback_id: String,
    pub(crate) playback_url: String,
}

/// A folder that the user whom PostgreSQL runs as can reach.
pub(crate) fn folder() -> tempfile::TempDir {
    let open = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("amphi-").permissions(open).tempdir().unwrap()
}

impl House {
    /// One process on embedded defaults, as `make run` starts it.
    pub(crate) async fn embedded() -> Self {
        Self::embedded_with(&[]).await
    }

    pub(crate) async fn embedded_with(more: &[(&'static str, String)]) -> Self {
        let mut house = Self::prepared(None);
        house.settings.extend(more.iter().cloned());
        house.start_one_process().await;
        house
    }

    /// Each service as its own process, over RabbitMQ and Redis.
    pub(crate) async fn full() -> Self {
        Self::full_with(&[]).await
    }

    pub(crate) async fn full_with(more: &[(&'static str, String)]) -> Self {
        let services = testkit::services();
        let (database, namespace) = (
            testkit::database().await,
            testkit::amqp_namespace(&["stream.users", "chat.users", "chat.streams", "auth.notices"]),
        );
        let mut own = vec![
            ("DATABASE_URL", database.url.clone()),
            ("AMQP_URL", services.amqp_url.clone()),
            ("AMQP_NAMESPACE", namespace.name.clone()),
            ("REDIS_URL", services.redis_url.clone()),
            ("REDIS_PREFIX", namespace.name.clone()),
        ];
        own.extend(more.iter().cloned());
        let mut house = Self::prepared(Some((database, namespace)));
        house.settings.extend(own);
        for service in ["auth", "stream", "chat", "gateway"] {
            house.start_service(service).await;
        }
        house
    }

    fn prepared(full: Option<(TestDatabase, AmqpNamespace)>) -> Self {
        let gateway = format!("http://127.0.0.1:{}", free_port());
        let media = MediaServer::new(&format!("{gateway}/webhook/stream-event"), SECRET);
        media.start();
        let data = folder();
        let settings = vec![
            ("AMPHI_DATA_DIR", data.path().display().to_string()),
            ("GATEWAY_LISTEN", gateway.replace("http://", "")),
            ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("WEBHOOK_SECRET", SECRET.to_owned()),
            ("RTMP_INGEST_URL", format!("rtmp://127.0.0.1:{}/live", media.rtmp_port)),
            ("RTMP_RELAY_URL", format!("rtmp://127.0.0.1:{}/watch", media.rtmp_port)),
            ("HLS_ORIGIN_URL", format!("http://127.0.0.1:{}", media.hls_port)),
            ("MEDIA_SERVERS", media.control()),
            ("BROADCAST_STALE_AFTER", "4s".to_owned()),
        ];
        Self { programs: vec![], media, gateway, client: testkit::client(), settings, data, _full: full }
    }

    pub(crate) async fn start_one_process(&mut self) {
        let program = Program::start(AMPHI, &[], &self.settings).await;
        assert_eq!(program.announced("gateway"), self.gateway);
        self.programs.push(program);
    }

    /// Starts `service` alone, and lets those that are started later know where it is.
    async fn start_service(&mut self, service: &'static str) {
        let mut settings = self.settings.clone();
        let (listen, url) = match service {
            "auth" => ("AUTH_LISTEN", "AUTH_URL"),
            "stream" => ("STREAM_LISTEN", "STREAM_URL"),
            "chat" => ("CHAT_LISTEN", "CHAT_URL"),
            _ => ("GATEWAY_LISTEN", "PUBLIC_URL"),
        };
        if service != "gateway" {
            settings.push((listen, "127.0.0.1:0".to_owned()));
        }
        settings.push(("PUBLIC_URL", self.gateway.clone()));
        let program = Program::start(AMPHI, &["--target", service], &settings).await;
        self.settings.push((url, program.announced(service)));
        self.programs.push(program);
    }

    /// Watches events from now on.
    pub(crate) async fn tail(&self, pattern: &str) -> Program {
        let tail = Program::spawn(AMPHI, &["events", "tail", pattern], &self.settings);
        eventually("the tail watches", async || tail.output().contains("watching").then_some(())).await;
        tail
    }

    /// Everything that the programs have printed.
    pub(crate) fn output(&self) -> String {
        self.programs.iter().map(Program::output).collect()
    }

    pub(crate) async fn register(&self, email: &str, name: &str) -> User {
        let body = json!({"user_email": email, "user_password": "correct horse", "user_fullname": name});
        let url = format!("{}/api/v1/auth/register", self.gateway);
        let answer = self.client.post(url).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let body: Value = answer.json().await.unwrap();
        User { token: body["token"].as_str().unwrap().to_owned() }
    }

    pub(crate) async fn create_stream(&self, user: &User) -> Stream {
        let request = self.client.post(format!("{}/streams", self.gateway)).bearer_auth(&user.token);
        let answer = request.json(&json!({"title": "Cooking"})).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let body: Value = answer.json().await.unwrap();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Stream {
            id: body["id"].as_i64().unwrap(),
            key: text("streamKey"),
            ingest: format!("{}/{}", text("ingestUrl"), text("streamKey")),
            playback_id: text("playbackId"),
            playback_url: text("playbackUrl"),
        }
    }

    /// The list of streams, as everybody sees it.
    pub(crate) async fn list(&self, query: &str) -> String {
        self.client.get(format!("{}/streams{query}", self.gateway)).send().await.unwrap().text().await.unwrap()
    }

    /// The stream as the list has it.
    pub(crate) async fn seen(&self, stream: &Stream) -> Value {
        let page: Value = serde_json::from_str(&self.list("").await).unwrap();
        let items = page["items"].as_array().unwrap().iter();
        items.into_iter().find(|item| item["id"] == stream.id).unwrap().clone()
    }

    /// Waits until the stream has this status, and returns it.
    pub(crate) async fn until(&self, stream: &Stream, status: &str) -> Value {
        eventually(&format!("the stream is {status}"), async || {
            let seen = self.seen(stream).await;
            (seen["status"] == status).then_some(seen)
        })
        .await
    }
}

/// The events that `tail` has printed, as soon as one is named `name`.
pub(crate) async fn events_until(tail: &Program, name: &str) -> Vec<Value> {
    eventually(&format!("{name} is published"), async || {
        let output = tail.output();
        let events: Vec<Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        events.iter().any(|event| event["name"] == name).then_some(events)
    })
    .await
}
