//! The API does what its OpenAPI document says, whatever it is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use reqwest::Client;
use serde_json::{Value, json};
use testkit::{Program, eventually, free_port, workspace};

use crate::house::{AMPHI, folder};

const PASSWORD: &str = "correct horse battery";
const WEBHOOK_SECRET: &str = "a-secret-of-the-media-server";

/// What cannot be brought to succeed by asking alone: it takes the token of a mail, the code of an authenticator, or a live
/// picture. Tests of auth and `news.rs` have them.
const NEED_MORE: &[&str] = &[
    "GET /api/v1/streams/{id}/thumbnail",
    "POST /api/v1/auth/email-verification/confirm",
    "POST /api/v1/auth/password-reset/confirm",
    "DELETE /api/v1/auth/totp",
    "POST /api/v1/auth/totp/confirm",
    "POST /api/v1/auth/totp/recovery-codes",
];

/// Events as they happen.
const ENDLESS: &str = "/api/v1/streams/events";

/// Somebody who is logged in.
struct Somebody {
    token: String,
    user_uuid: String,
    user_email: String,
    session_id: String,
}

/// A stream that is live, of somebody else.
struct LiveStream {
    id: i64,
    user_id: String,
    /// Of its chat.
    room_id: i64,
    /// Of another room of the same user.
    room_code: String,
}

/// A room, and a message in it.
struct Room {
    id: i64,
    conversation_id: String,
    message_id: i64,
}

/// The whole house on embedded defaults, with no rate in the way.
struct Api {
    client: Client,
    gateway: String,
    folder: tempfile::TempDir,
    _program: Program,
}

impl Api {
    async fn start() -> Self {
        let folder = folder();
        let settings = [
            ("AMPHI_DATA_DIR", folder.path().join("data").display().to_string()),
            ("GATEWAY_LISTEN", format!("127.0.0.1:{}", free_port())),
            ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("AMPHI_ADMIN_PASSWORD", PASSWORD.to_owned()),
            ("WEBHOOK_SECRET", WEBHOOK_SECRET.to_owned()),
            ("GATEWAY_RATE_PER_ADDRESS", "1000000/1s".to_owned()),
            ("GATEWAY_RATE_PER_USER", "1000000/1s".to_owned()),
            ("CHAT_RATE_PER_USER", "1000000/1s".to_owned()),
            ("CHAT_RATE_PER_ROOM", "1000000/1s".to_owned()),
            ("LOG_LEVEL", "warn".to_owned()),
            // Guesses at passwords are counted by the place that they come from.
            ("TRUSTED_PROXIES", "127.0.0.1".to_owned()),
            // No media server reports the stream that is live.
            ("BROADCAST_STALE_AFTER", "1h".to_owned()),
        ];
        let program = Program::start(AMPHI, &[], &settings).await;
        Self { client: testkit::client(), gateway: program.announced("gateway"), folder, _program: program }
    }

    async fn enter(&self, how: &str, email: &str) -> Somebody {
        let body = json!({"user_email": email, "user_password": PASSWORD, "user_fullname": "Ana Silva"});
        let url = format!("{}/api/v1/auth/{how}", self.gateway);
        let entered: Value = self.client.post(url).json(&body).send().await.unwrap().json().await.unwrap();
        let token = entered["token"].as_str().unwrap_or_else(|| panic!("{how}: {entered}")).to_owned();
        let url = format!("{}/api/v1/auth/sessions", self.gateway);
        let sessions = self.client.get(url).bearer_auth(&token).send().await.unwrap();
        let sessions: Value = sessions.json().await.unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let session_id = text(&sessions["sessions"][0]["session_id"]);
        let user_uuid = text(&entered["user"]["user_uuid"]);
        Somebody { token, user_uuid, user_email: email.to_owned(), session_id }
    }

    async fn live_stream(&self) -> LiveStream {
        let streamer = self.enter("register", "streamer@example.org").await;
        let made = self.post(&streamer, "streams", &json!({"title": "Cooking"})).await;
        let call = format!("call=publish&name={}&clientid=1", made["streamKey"].as_str().unwrap());
        let callback = self.client.post(format!("{}/api/v1/webhook/stream-event", self.gateway));
        let callback = callback.header("x-webhook-secret", WEBHOOK_SECRET);
        let callback = callback.header("content-type", "application/x-www-form-urlencoded").body(call);
        assert_eq!(callback.send().await.unwrap().status(), 302);
        let room_id = eventually("the stream's chat is open", async || {
            let rooms = self.client.get(format!("{}/api/v1/rooms", self.gateway)).bearer_auth(&streamer.token);
            let rooms: Value = rooms.send().await.unwrap().json().await.unwrap();
            rooms["items"][0]["room_id"].as_i64()
        })
        .await;
        let another = self.post(&streamer, "rooms", &json!({})).await;
        let room_code = another["room_code"].as_str().unwrap().to_owned();
        LiveStream { id: made["id"].as_i64().unwrap(), user_id: streamer.user_uuid, room_id, room_code }
    }

    /// A new room of `who` and `other`.
    async fn room(&self, who: &Somebody, other: &Somebody) -> Room {
        let body = json!({"type": "group", "participantIds": [other.user_uuid]});
        let made = eventually("chat knows the other", async || {
            let made = self.post(who, "conversations", &body).await;
            made["id"].is_string().then_some(made)
        })
        .await;
        let id = made["roomId"].as_i64().unwrap();
        let message = self.post(who, &format!("rooms/{id}/messages"), &json!({"content": "Hello"})).await;
        Room {
            id,
            conversation_id: made["id"].as_str().unwrap().to_owned(),
            message_id: message["message_id"].as_i64().unwrap(),
        }
    }

    async fn post(&self, who: &Somebody, path: &str, body: &Value) -> Value {
        let request = self.client.post(format!("{}/api/v1/{path}", self.gateway));
        request.bearer_auth(&who.token).json(body).send().await.unwrap().json().await.unwrap()
    }

    /// Lets Schemathesis ask as `who`, and returns which statuses each operation answered. Panics with its report where it
    /// has found something.
    async fn examine(&self, who: &Somebody, managed: &Somebody, live: &LiveStream) -> BTreeMap<String, BTreeSet<u16>> {
        let [logs_out, deletes] = ["logs-out", "deletes"].map(|what| format!("{what}-{}@example.org", who.user_uuid));
        let (logs_out, deletes) = (self.enter("register", &logs_out).await, self.enter("register", &deletes).await);
        let answers = self.folder.path().join("answers");
        let room = self.room(who, managed).await;
        let given = json!({
            "gateway": self.gateway,
            "user_uuid": who.user_uuid,
            "user_email": who.user_email,
            "session_id": who.session_id,
            "password": PASSWORD,
            "login_email": "login@example.org",
            "managed": managed.user_uuid,
            "webhook_secret": WEBHOOK_SECRET,
            "live": live.id,
            "channel": live.user_id,
            "stream_room": live.room_id,
            "room": room.id,
            "conversation": room.conversation_id,
            "message": room.message_id,
            "room_code": live.room_code,
            "token": who.token,
            "answers": answers,
        });
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api");
        let output = Command::new(workspace().join("deploy/local/schemathesis"))
            .arg("--config-file")
            .arg(files.join("schemathesis.toml"))
            .args(["run", "--no-color", &format!("{}/openapi.json", self.gateway)])
            // Its answer has no end: news.rs asks for it.
            .args(["--exclude-path", ENDLESS])
            .args(["--header", &format!("Authorization: Bearer {}", who.token)])
            .env("SCHEMATHESIS_HOOKS", files.join("hooks.py"))
            .env("TOKEN_TO_LOG_OUT", logs_out.token)
            .env("TOKEN_TO_DELETE", deletes.token)
            .env("AMPHI_API_TEST", given.to_string())
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
        let mut statuses = BTreeMap::<_, BTreeSet<_>>::new();
        for line in std::fs::read_to_string(answers).unwrap().lines() {
            let (operation, status) = line.rsplit_once(' ').unwrap();
            statuses.entry(operation.to_owned()).or_default().insert(status.parse().unwrap());
        }
        statuses
    }

    /// Every operation of the document: `GET /api/v1/streams`.
    async fn operations(&self) -> Vec<String> {
        let document = self.client.get(format!("{}/openapi.json", self.gateway)).send().await.unwrap();
        let document: Value = document.json().await.unwrap();
        let paths = document["paths"].as_object().unwrap().iter();
        let methods = paths.flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |name| (name, path)));
        methods.map(|(method, path)| format!("{} {path}", method.to_uppercase())).collect()
    }
}

#[tokio::test]
async fn no_request_is_answered_with_500_or_with_what_the_document_does_not_say() {
    let api = Api::start().await;
    api.enter("register", "login@example.org").await;
    let user = api.enter("register", "user@example.org").await;
    let managed = api.enter("register", "managed@example.org").await;
    let administrator = api.enter("login", "admin@amphi.example").await;

    let live = api.live_stream().await;

    let as_user = api.examine(&user, &managed, &live).await;
    let as_administrator = api.examine(&administrator, &managed, &live).await;

    // What was only refused was not looked at.
    for operation in api.operations().await.into_iter().filter(|operation| !operation.ends_with(ENDLESS)) {
        let answered =
            [&as_user, &as_administrator].map(|statuses| statuses.get(&operation).cloned().unwrap_or_default());
        let has_succeeded = answered.iter().flatten().any(|status| (200..400).contains(status));
        assert_eq!(has_succeeded, !NEED_MORE.contains(&operation.as_str()), "{operation} answered {answered:?}");
    }
}

/// Bodies that are odd in the same ways whoever takes them, each with its content type; `fields` are those that are known.
fn odd_bodies(fields: &[&String]) -> Vec<(&'static str, Vec<u8>)> {
    let json = "application/json";
    let with = |value: &[u8]| {
        let members: Vec<_> = fields.iter().map(|field| [b"\"", field.as_bytes(), b"\":", value].concat()).collect();
        [b"{", members.join(&b',').as_slice(), b"}"].concat()
    };
    let deep = [[b'['; 20_000], [b']'; 20_000]].concat();
    let long = ["\"", &"a".repeat(5_000), "\""].concat();
    let mut bodies = vec![
        (json, vec![]),
        (json, b"[]".to_vec()),
        (json, b"[null, null, null]".to_vec()),
        (json, b"{".to_vec()),
        (json, vec![b' '; 100_000]),
        ("text/plain", b"{}".to_vec()),
        ("application/json; charset=utf-16", b"{}".to_vec()),
        ("", b"{}".to_vec()),
    ];
    let values: [&[u8]; 11] = [
        br#""a\u0000b""#,
        br#""\ud800""#,
        b"\"\xff\xfe\"",
        &deep,
        long.as_bytes(),
        &[b'9'; 400],
        b"1e308",
        b"-1",
        b"null",
        b"true",
        b"{}",
    ];
    bodies.extend(values.map(|value| (json, with(value))));
    bodies
}

/// The fields of the JSON that `operation` takes; `None` where it takes none.
fn fields_of<'a>(document: &'a Value, operation: &'a Value) -> Option<Vec<&'a String>> {
    let resolve = |schema: &'a Value| match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    let schema = resolve(operation["requestBody"]["content"].get("application/json")?.get("schema")?);
    let parts = schema["allOf"].as_array().map_or_else(|| vec![schema], |parts| parts.iter().map(resolve).collect());
    Some(parts.iter().filter_map(|part| part["properties"].as_object()).flat_map(|fields| fields.keys()).collect())
}

/// Odd addresses of the operation at `path`.
fn odd_targets(path: &str, operation: &Value) -> Vec<String> {
    let has_query =
        operation["parameters"].as_array().into_iter().flatten().any(|parameter| parameter["in"] == "query");
    let queries = match has_query {
        true => vec!["page=-1&limit=0", "page=99999999999999999999", "search=%00&status=%00", "search=%ff&status=%ff"],
        false => vec![""],
    };
    let segments = match path.contains('{') {
        true => vec!["0", "-1", "99999999999999999999", "a%ffb", "%20", "00000000-0000-0000-0000-000000000000"],
        false => vec![""],
    };
    let fill = |segment: &str| {
        let parts: Vec<_> = path.split('/').map(|part| if part.starts_with('{') { segment } else { part }).collect();
        parts.join("/")
    };
    let targets = queries.iter().flat_map(|query| segments.iter().map(move |segment| (query, segment)));
    targets.map(|(query, segment)| format!("{}?{query}", fill(segment))).collect()
}

#[tokio::test]
async fn nothing_odd_in_a_body_a_path_or_a_query_is_answered_with_500_or_a_status_that_is_not_in_the_document() {
    let api = Api::start().await;
    let administrator = api.enter("login", "admin@amphi.example").await;
    let document = api.client.get(format!("{}/openapi.json", api.gateway)).send().await.unwrap();
    let document: Value = document.json().await.unwrap();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let bodies = match fields_of(&document, operation) {
                Some(fields) => odd_bodies(&fields),
                None => vec![("", vec![])],
            };
            for (target, (content_type, body)) in
                odd_targets(path, operation).iter().flat_map(|target| bodies.iter().map(move |body| (target, body)))
            {
                asked += 1;
                // Logging out would end the session that the rest is asked in.
                let token = if path.ends_with("/logout") { "" } else { &administrator.token };
                let mut request = api
                    .client
                    .request(method.to_uppercase().parse().unwrap(), format!("{}{target}", api.gateway))
                    .bearer_auth(token)
                    // Guesses are counted by the place that they come from.
                    .header("X-Forwarded-For", format!("10.{}.{}.1", asked / 250, asked % 250))
                    .body(body.clone());
                if !content_type.is_empty() {
                    request = request.header("Content-Type", *content_type);
                }

                let status = request.send().await.unwrap().status();

                let sent = String::from_utf8_lossy(&body[..body.len().min(100)]);
                let what = format!("{status} to {method} {target} {content_type} {sent}");
                assert!(!status.is_server_error(), "{what}");
                assert!(operation["responses"].get(status.as_str()).is_some(), "{what}");
                assert!(!(sent.contains("\\u0000") || sent.starts_with('[')) || status.is_client_error(), "{what}");
            }
        }
    }
    assert!(asked > 300, "{asked} requests");
}
