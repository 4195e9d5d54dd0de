//! A running stream service, and what tests say to it.

use chrono::{DateTime, TimeDelta, Utc};
use common::{Clock as _, Role, SessionId, SystemClock, UserId};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use testkit::{Issuer, Program, TestDatabase, eventually};
use tokio_postgres::{NoTls, SimpleQueryMessage};

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
    pub(crate) id: UserId,
    pub(crate) token: String,
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

    /// Runs SQL behind the service's back.
    pub(crate) async fn execute(&self, statements: &str) {
        let (client, connection) = tokio_postgres::connect(&self.database.url, NoTls).await.unwrap();
        tokio::select! {
            done = client.batch_execute(statements) => done.unwrap(),
            ended = connection => panic!("the connection ended: {ended:?}"),
        }
    }

    pub(crate) fn user(&self, name: &str) -> User {
        let id = UserId::new();
        User { id, token: self.issuer.token(id, name) }
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
    pub(crate) fn admin(&self) -> User {
        let id = UserId::new();
        User { id, token: self.issuer.token_as(Role::Admin, SessionId::new(), id, "Ada") }
    }

    /// What `user` is answered, or somebody without a token.
    pub(crate) async fn asked(
        &self,
        method: Method,
        path: &str,
        user: Option<&User>,
        body: Option<&Value>,
    ) -> Response {
        let mut request = self.client.request(method, format!("{}/api/v1/streams{path}", self.url));
        if let Some(user) = user {
            request = request.bearer_auth(&user.token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.unwrap()
    }

    /// What `user` finds under a path that belongs to streams.
    pub(crate) async fn look(&self, path: &str, user: Option<&User>) -> Response {
        self.asked(Method::GET, path, user, None).await
    }

    /// The stream that `user` makes of `body`.
    pub(crate) async fn made_of(&self, user: &User, body: &Value) -> Made {
        let answer = self.create(user, body).send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(status, 201, "{body}");
        Made {
            id: body["id"].as_i64().unwrap(),
            key: body["streamKey"].as_str().unwrap().to_owned(),
            playback_id: body["playbackId"].as_str().unwrap().to_owned(),
        }
    }

    /// The ids of the streams in a list, in their order.
    pub(crate) async fn listed(&self, query: &str, user: Option<&User>) -> Vec<i64> {
        let answer = self.look(&format!("?{query}"), user).await;
        let status = answer.status();
        let page: Value = answer.json().await.unwrap();
        assert_eq!(status, 200, "{page}");
        let ids: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| item["id"].as_i64().unwrap()).collect();
        if !query.contains("page=") && !query.contains("limit=") {
            assert_eq!(page["total"].as_i64().unwrap(), i64::try_from(ids.len()).unwrap(), "{page}");
        }
        ids
    }

    /// A number that the service measures, by the beginning of its line.
    pub(crate) async fn measured(&self, name: &str) -> u64 {
        let url = format!("{}/metrics", self.program.private_port());
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(name));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

/// A time from now on.
pub(crate) fn in_minutes(minutes: i64) -> DateTime<Utc> {
    SystemClock.now() + TimeDelta::minutes(minutes)
}

/// Where media servers call.
pub(crate) const WEBHOOK: &str = "/api/v1/webhook/stream-event";

impl TestStream {
    /// What `user` asks for.
    pub(crate) async fn ask_as(&self, user: &User, request: RequestBuilder) -> Response {
        request.bearer_auth(&user.token).send().await.unwrap()
    }

    /// A callback with this JSON.
    pub(crate) async fn call(&self, body: &Value) -> Response {
        self.post(WEBHOOK).header("x-webhook-secret", SECRET).json(body).send().await.unwrap()
    }

    /// A callback that says everything in the query, as `curl` makes it in a hook of MediaMTX.
    pub(crate) async fn hook(&self, query: &str) -> Response {
        let path = format!("{WEBHOOK}?{query}");
        self.post(&path).header("x-webhook-secret", SECRET).send().await.unwrap()
    }

    /// The kept calls of media servers that `query` selects, the last one first, once there are `count` of them.
    pub(crate) async fn kept_calls(&self, query: &str, count: usize) -> Vec<Value> {
        let administrator = self.admin();
        eventually(&format!("{count} calls are kept"), async || {
            let request = self.get(&format!("/api/v1/admin/webhooks?limit=100&{query}"));
            let list: Value = self.ask_as(&administrator, request).await.json().await.unwrap();
            let items = list["items"].as_array().unwrap().clone();
            (items.len() == count).then_some(items)
        })
        .await
    }

    /// What `statement` finds in the database: its first column, as text.
    pub(crate) async fn found(&self, statement: &str) -> Vec<String> {
        let (client, connection) = tokio_postgres::connect(&self.database.url, tokio_postgres::NoTls).await.unwrap();
        let rows = tokio::select! {
            rows = client.query(statement, &[]) => rows.unwrap(),
            ended = connection => panic!("the connection ended: {ended:?}"),
        };
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Somebody whom auth has told of.
    pub(crate) async fn known(&self, name: &str) -> User {
        let user = self.user(name);
        self.hears("auth.user.registered.v1", &json!({"user_id": user.id, "full_name": name, "role": "Member"})).await;
        eventually("the name is known", async || {
            let answer = self.get(&format!("/api/v1/channels/{}", user.id)).send().await.unwrap();
            (answer.status() == 200).then_some(())
        })
        .await;
        user
    }

    /// Lets the service have an event, as if another service had sent it.
    pub(crate) async fn hears(&self, name: &str, data: &Value) {
        let event = format!(
            "insert into stream.outbox (event_id, name, occurred_at, data)
             values (gen_random_uuid(), '{name}', now(), '{data}');
             select pg_notify('stream.outbox', '')"
        );
        self.sql(&event).await;
    }

    /// Runs SQL, and returns the rows as text.
    pub(crate) async fn sql(&self, text: &str) -> Vec<Vec<String>> {
        sql(&self.database.url, text).await
    }
}

/// Runs SQL on the database at `url`, and returns the rows as text.
pub(crate) async fn sql(url: &str, text: &str) -> Vec<Vec<String>> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let messages = tokio::select! {
        messages = client.simple_query(text) => messages.unwrap(),
        ended = connection => panic!("the connection ended: {ended:?}"),
    };
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|n| row.get(n).unwrap_or_default().to_owned()).collect()).collect()
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
