//! A running stream service, and what tests say to it.

use common::UserId;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use testkit::{Issuer, Program, TestDatabase, eventually};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_amphi-stream");
pub(crate) const SECRET: &str = "a secret of the media server";

pub(crate) struct TestStream {
    pub(crate) program: Program,
    pub(crate) client: Client,
    pub(crate) database: TestDatabase,
    pub(crate) issuer: Issuer,
    url: String,
    _data: tempfile::TempDir,
}

/// Somebody with a token.
pub(crate) struct User {
    token: String,
}

/// A stream, and what its owner was told once.
pub(crate) struct Made {
    pub(crate) id: i64,
    pub(crate) key: String,
    pub(crate) playback_id: String,
}

impl TestStream {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let database = testkit::database().await;
        Self::on(database, settings).await
    }

    pub(crate) async fn on(database: TestDatabase, settings: &[(&str, &str)]) -> Self {
        let issuer = Issuer::start();
        let data = tempfile::tempdir().unwrap();
        let mut all = vec![
            ("DATABASE_URL", database.url.clone()),
            ("AMPHI_DATA_DIR", data.path().display().to_string()),
            ("AUTH_URL", issuer.url.clone()),
            ("STREAM_LISTEN", "127.0.0.1:0".to_owned()),
            ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("WEBHOOK_SECRET", SECRET.to_owned()),
            // An end is told at once, and nobody has to stay away, where a test does not say otherwise.
            ("RECONNECT_GRACE", "0s".to_owned()),
            ("PUBLISH_HOLD", "0s".to_owned()),
        ];
        all.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let program = Program::start(PROGRAM, &[], &all).await;
        let url = program.announced("stream");
        Self { program, client: testkit::client(), database, issuer, url, _data: data }
    }

    pub(crate) fn user(&self, name: &str) -> User {
        User { token: self.issuer.token(UserId::new(), name) }
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    pub(crate) fn put(&self, id: i64, user: &User, body: &Value) -> RequestBuilder {
        self.client.put(format!("{}/api/v1/streams/{id}", self.url)).bearer_auth(&user.token).json(body)
    }

    pub(crate) fn create(&self, user: &User, body: &Value) -> RequestBuilder {
        self.post("/api/v1/streams").bearer_auth(&user.token).json(body)
    }

    /// A new stream of `user`.
    pub(crate) async fn made(&self, user: &User) -> Made {
        let answer = self.create(user, &json!({"title": "Cooking"})).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let body: Value = answer.json().await.unwrap();
        Made {
            id: body["id"].as_i64().unwrap(),
            key: body["streamKey"].as_str().unwrap().to_owned(),
            playback_id: body["playbackId"].as_str().unwrap().to_owned(),
        }
    }

    /// The stream, as everybody sees it.
    pub(crate) async fn seen(&self, stream: &Made) -> Value {
        self.get(&format!("/api/v1/streams/{}", stream.id)).send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn status(&self, stream: &Made) -> String {
        self.seen(stream).await["status"].as_str().unwrap().to_owned()
    }

    /// A callback of nginx-rtmp, as its connection `client` causes it.
    pub(crate) async fn callback(&self, call: &str, name: &str, client: &str) -> Response {
        self.callback_of("1000", &format!("call={call}&name={name}"), client).await
    }

    /// The same, from the run `run` of the media server and with other fields.
    pub(crate) async fn callback_of(&self, run: &str, rest: &str, client: &str) -> Response {
        let common = "app=live&flashver=FMLE/3.0&swfurl=&tcurl=rtmp://127.0.0.1/live&pageurl=&addr=127.0.0.1";
        self.post("/api/v1/webhook/stream-event")
            .header("x-webhook-secret", SECRET)
            .header("x-media-server", "m1")
            .header("x-media-server-started", run)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("{common}&clientid={client}&{rest}"))
            .send()
            .await
            .unwrap()
    }

    /// The events that wait or went out, in order: `name` and `data`.
    pub(crate) async fn events(&self, tail: &Program, count: usize) -> Vec<Value> {
        eventually("the events are published", async || {
            let output = tail.output();
            let events: Vec<Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            (events.len() >= count).then_some(events)
        })
        .await
    }

    /// Watches events from now on.
    pub(crate) async fn tail(&self) -> Program {
        let data = self._data.path().display().to_string();
        let settings = [
            ("DATABASE_URL", self.database.url.clone()),
            ("AMPHI_DATA_DIR", data),
            ("WEBHOOK_SECRET", SECRET.to_owned()),
        ];
        let tail = Program::spawn(PROGRAM, &["events", "tail", "stream.#"], &settings);
        eventually("the tail watches", async || tail.output().contains("watching").then_some(())).await;
        tail
    }
}

/// Checks that the answer is a problem of this status and code, and returns it.
pub(crate) async fn problem(answer: Response, status: u16, code: &str) -> Value {
    let actual = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    assert_eq!((actual, body["code"].as_str()), (status, Some(code)), "{body}");
    body
}

impl TestStream {
    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The folder of its files.
    pub(crate) fn data(&self) -> String {
        self._data.path().display().to_string()
    }
}

impl User {
    pub(crate) fn token(&self) -> &str {
        &self.token
    }
}
