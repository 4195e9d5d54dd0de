//! A running auth service, and what tests say to it.

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use testkit::{Program, TestDatabase};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_amphi-auth");

pub(crate) struct TestAuth {
    pub(crate) program: Program,
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) database: TestDatabase,
    data: tempfile::TempDir,
}

impl TestAuth {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let database = testkit::database().await;
        let data = tempfile::tempdir().unwrap();
        let mut all = settings_of(&database.url, data.path());
        all.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let program = Program::start(PROGRAM, &[], &all).await;
        Self { url: program.announced("auth"), program, client: testkit::client(), database, data }
    }

    /// Stops it, and starts it again on the same database.
    pub(crate) async fn restart(self) -> Self {
        let Self { program, client, database, data, .. } = self;
        let (status, output) = program.stop();
        assert!(status.success(), "{output}");
        let program = Program::start(PROGRAM, &[], &settings_of(&database.url, data.path())).await;
        Self { url: program.announced("auth"), program, client, database, data }
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub(crate) async fn register(&self, email: &str) -> Response {
        let body = json!({"user_email": email, "user_password": "correct horse", "user_fullname": "Ana Silva"});
        self.post("/api/v1/auth/register").json(&body).send().await.unwrap()
    }

    pub(crate) async fn login(&self, email: &str, password: &str) -> Response {
        let body = json!({"user_email": email, "user_password": password});
        self.post("/api/v1/auth/login").json(&body).send().await.unwrap()
    }

    pub(crate) async fn me(&self, token: &str) -> Response {
        self.get("/api/v1/auth/me").bearer_auth(token).send().await.unwrap()
    }
}

pub(crate) fn settings_of(database: &str, data: &std::path::Path) -> Vec<(&'static str, String)> {
    vec![
        ("DATABASE_URL", database.to_owned()),
        ("AMPHI_DATA_DIR", data.display().to_string()),
        ("AUTH_LISTEN", "127.0.0.1:0".to_owned()),
        ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
    ]
}

/// The token of an answer to register or login.
pub(crate) async fn token_of(answer: Response) -> String {
    let body: Value = answer.json().await.unwrap();
    body["token"].as_str().unwrap().to_owned()
}

/// Checks that the answer is a problem of this status and code, and returns it.
pub(crate) async fn problem(answer: Response, status: u16, code: &str) -> Value {
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let actual = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    assert_eq!((actual, body["code"].as_str()), (status, Some(code)), "{body}");
    assert_eq!(body["trace_id"].as_str().map(str::len), Some(32), "{body}");
    body
}
