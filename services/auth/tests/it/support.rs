//! A running auth service, and what tests say to it.

use std::time::Duration;

use common::trust::{self, Trust};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use testkit::{Program, TestDatabase, eventually};
use tokio_postgres::{NoTls, SimpleQueryMessage};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_amphi-auth");

pub(crate) struct TestAuth {
    pub(crate) program: Program,
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) database: TestDatabase,
    pub(crate) data: tempfile::TempDir,
}

/// Another instance on the same database.
pub(crate) struct Instance {
    pub(crate) program: Program,
    pub(crate) url: String,
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

    /// Starts another instance on the same database.
    pub(crate) async fn instance(&self, settings: &[(&str, &str)]) -> Instance {
        let mut all = settings_of(&self.database.url, self.data.path());
        all.retain(|(name, _)| settings.iter().all(|(other, _)| other != name));
        all.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let program = Program::start(PROGRAM, &[], &all).await;
        Instance { url: program.announced("auth"), program }
    }

    /// Runs a command of the program, and returns what it printed. Panics when it fails.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let (status, output) =
            Program::spawn(PROGRAM, arguments, &settings_of(&self.database.url, self.data.path())).wait();
        assert!(status.success(), "{output}");
        output
    }

    /// Runs SQL in the schema of auth, and returns the rows as text.
    pub(crate) async fn sql(&self, text: &str) -> Vec<Vec<String>> {
        sql(&self.database.url_for_schema("auth"), text).await
    }

    /// How many events of this name were published. They stay where nobody consumes them.
    pub(crate) async fn published(&self, name: &str) -> usize {
        let query = format!("select distinct event_id from broker.messages where body->>'name' = '{name}'");
        sql(&self.database.url, &query).await.len()
    }

    /// The addresses in all events of this name.
    pub(crate) async fn emails_told(&self, name: &str) -> Vec<Vec<String>> {
        let query = format!(
            "select distinct body->'data'->>'email' as email from broker.messages where body->>'name' = '{name}'"
        );
        sql(&self.database.url, &query).await
    }

    pub(crate) fn ask(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(token)
    }

    /// The token of the first administrator, of an installation that was started with [`ADMIN`].
    pub(crate) async fn admin(&self) -> String {
        token_of(self.login("root@example.org", "given by hand").await).await
    }

    pub(crate) async fn feed(&self) -> Feed {
        Feed::open(&self.url).await
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

    /// Posts `body` as whoever has `token`; as nobody, when it is empty.
    pub(crate) async fn send(&self, path: &str, token: &str, body: &Value) -> Response {
        let request = self.post(path).json(body);
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        request.send().await.unwrap()
    }

    /// Registers and returns the token.
    pub(crate) async fn member(&self, email: &str) -> String {
        let answer = self.register(email).await;
        assert_eq!(answer.status(), 201);
        token_of(answer).await
    }

    /// Logs the first administrator in and returns the token.
    pub(crate) async fn administrator(&self) -> String {
        let announced = self.program.announced("administrator");
        let password = announced.split_whitespace().nth(2).unwrap();
        token_of(self.login("admin@amphi.example", password).await).await
    }

    /// Changes the database behind its back: time passes, say.
    pub(crate) async fn execute(&self, statement: &str) {
        let (client, connection) = tokio_postgres::connect(&self.database.url, tokio_postgres::NoTls).await.unwrap();
        tokio::select! {
            done = client.batch_execute(statement) => done.unwrap(),
            ended = connection => panic!("the connection ended: {ended:?}"),
        }
    }

    /// Where the program keeps what is not in the database.
    pub(crate) fn data(&self) -> &std::path::Path {
        self.data.path()
    }

    /// The folder where mails are written.
    pub(crate) fn mails(&self) -> std::path::PathBuf {
        self.data.path().join("mail")
    }

    /// The mails to `to` with this subject, once there are `count` or more. The oldest first.
    pub(crate) async fn mails_to(&self, to: &str, subject: &str, count: usize) -> Vec<Mail> {
        eventually(&format!("{count} times `{subject}` to {to}"), async || {
            let found = self.mails_now(to, subject);
            (found.len() >= count).then_some(found)
        })
        .await
    }

    /// The mails to `to` with this subject that are there now. The oldest first.
    pub(crate) fn mails_now(&self, to: &str, subject: &str) -> Vec<Mail> {
        let Ok(folder) = std::fs::read_dir(self.mails()) else { return Vec::new() };
        let mut paths: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
        // Their names are UUIDs of version 7.
        paths.sort();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
        let mails = paths.iter().map(|path| Mail::parse(&std::fs::read_to_string(path).unwrap()));
        mails.filter(|mail| mail.header("To") == to && mail.header("Subject") == subject).collect()
    }

    pub(crate) async fn me(&self, token: &str) -> Response {
        self.get("/api/v1/auth/me").bearer_auth(token).send().await.unwrap()
    }
}

/// A mail as it was sent.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) head: String,
    /// Both parts, decoded.
    pub(crate) body: String,
}

impl Mail {
    pub(crate) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        // Quoted-printable breaks long lines with `=`, and writes `=` as `=3D`.
        Self { head: head.to_owned(), body: body.replace("=\r\n", "").replace("=3D", "=") }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    /// The token that stands alone in it, for users of the API.
    pub(crate) fn token(&self) -> &str {
        let (_, after) = self.body.split_once("Or with this token:").unwrap();
        after.split_whitespace().next().unwrap()
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

/// Settings that give the first administrator a known password.
pub(crate) const ADMIN: [(&str, &str); 2] =
    [("AMPHI_ADMIN_EMAIL", "root@example.org"), ("AMPHI_ADMIN_PASSWORD", "given by hand")];

/// Runs SQL, and returns the rows as text.
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

/// A reader of the feed of trust.
pub(crate) struct Feed {
    answer: Response,
    rest: Vec<u8>,
}

impl Feed {
    pub(crate) async fn open(url: &str) -> Self {
        // The client of other requests gives up after a while, and a feed does not end.
        let client = Client::builder().build().unwrap();
        let answer = client.get(format!("{url}{}", trust::PATH)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        Self { answer, rest: Vec::new() }
    }

    /// The next line; `None` when the feed has ended.
    pub(crate) async fn next(&mut self) -> Option<Trust> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = tokio::time::timeout(Duration::from_secs(10), self.answer.chunk()).await.expect("a beat");
            self.rest.extend(chunk.ok()??);
        }
    }

    /// Reads until `look` finds something in a line. Panics when it does not for 20 s.
    pub(crate) async fn find<T>(&mut self, what: &str, look: impl Fn(&Trust) -> Option<T>) -> T {
        let found = async {
            loop {
                let line = self.next().await.expect("the feed goes on");
                if let Some(found) = look(&line) {
                    return found;
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), found).await;
        found.unwrap_or_else(|_| panic!("the feed does not tell: {what}"))
    }

    /// Reads until the session of `token` is told to have ended.
    pub(crate) async fn find_ended(&mut self, token: &str) {
        let claims = claims_of(token);
        self.find("the end of the session", |line| {
            let (Trust::Ended { ended } | Trust::Snapshot { ended, .. }) = line else { return None };
            let ended = ended.iter().find(|ended| json!(ended.sid) == claims["sid"])?;
            assert!(ended.until >= claims["exp"].as_i64().unwrap(), "it is told as long as the token could be used");
            Some(())
        })
        .await;
    }
}

/// What a token says, unverified.
pub(crate) fn claims_of(token: &str) -> Value {
    decoded(token, 1)
}

/// The id of the key that signed a token.
pub(crate) fn kid_of(token: &str) -> String {
    decoded(token, 0)["kid"].as_str().unwrap().to_owned()
}

fn decoded(token: &str, part: usize) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(part).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
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
