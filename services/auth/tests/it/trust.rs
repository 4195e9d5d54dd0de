use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::trust::Trust;
use testkit::{Postgres, Program, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{ADMIN, Feed, PROGRAM, TestAuth, problem, settings_of, token_of};

/// What is promised for every instance.
const A_SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_feed_begins_with_everything_and_is_never_silent_for_long() {
    let auth = TestAuth::start().await;
    let gone = token_of(auth.register("ana@example.org").await).await;
    auth.post("/api/v1/auth/logout").bearer_auth(&gone).send().await.unwrap();

    let mut feed = auth.feed().await;

    let Some(Trust::Snapshot { keys, ended, roles }) = feed.next().await else { panic!("no snapshot first") };
    assert_eq!((keys.len(), ended.len(), roles.len()), (1, 1, 0));
    let start = Instant::now();
    for _ in 0..8 {
        assert_eq!(feed.next().await, Some(Trust::Beat));
    }
    assert!(start.elapsed() < 8 * common::trust::BEAT_EVERY, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_logout_at_one_instance_is_told_by_every_other_within_a_second() {
    let auth = TestAuth::start().await;
    let other = auth.instance(&[]).await;
    let token = token_of(auth.register("ana@example.org").await).await;
    let mut feeds = [auth.feed().await, Feed::open(&other.url).await, Feed::open(&other.url).await];
    for feed in &mut feeds {
        assert!(matches!(feed.next().await, Some(Trust::Snapshot { .. })));
    }

    let answer = auth.post("/api/v1/auth/logout").bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), 204);

    let committed = Instant::now();
    for feed in &mut feeds {
        feed.find_ended(&token).await;
    }
    assert!(committed.elapsed() < A_SECOND, "{:?}", committed.elapsed());
}

#[tokio::test]
async fn what_was_changed_is_known_after_a_restart_and_forgotten_when_it_matters_to_no_token() {
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;
    auth.post("/api/v1/auth/logout").bearer_auth(&token).send().await.unwrap();

    let auth = auth.restart().await;
    auth.feed().await.find_ended(&token).await;

    auth.sql("update ended_sessions set ended_until = now() - interval '1 second'").await;
    let auth = auth.restart().await;
    let Some(Trust::Snapshot { ended, .. }) = auth.feed().await.next().await else { panic!("no snapshot first") };
    assert_eq!(ended, []);
    eventually("it is swept", async || auth.sql("select * from ended_sessions").await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn many_sessions_that_end_at_once_are_all_told() {
    let auth = TestAuth::with(&ADMIN).await;
    let admin = auth.admin().await;
    let user = auth.register("ana@example.org").await.json::<serde_json::Value>().await.unwrap();
    let user = user["user"]["user_uuid"].as_str().unwrap();
    // More than fit into one notification.
    auth.sql(&format!(
        "insert into sessions (session_id, user_uuid, session_created_at, session_expires_at, session_tokens_until,
             session_last_seen_at, session_refresh_expires_at)
         select gen_random_uuid(), '{user}', now(), now() + interval '1 day', now() + interval '1 day', now(), now()
         from generate_series(1, 250)"
    ))
    .await;
    let mut feed = auth.feed().await;
    feed.next().await;

    let path = format!("/api/v1/auth/users/{user}/suspension");
    let answer = auth.ask(reqwest::Method::PUT, &path, &admin).json(&serde_json::json!({"reason": "spam"}));
    assert_eq!(answer.send().await.unwrap().status(), 200);

    let mut told = 0;
    while told < 251 {
        told += feed
            .find("an end", |line| match line {
                Trust::Ended { ended } => Some(ended.len()),
                _ => None,
            })
            .await;
    }
    assert_eq!(told, 251);
}

#[tokio::test]
async fn a_feed_does_not_hold_an_instance_that_stops() {
    let auth = TestAuth::start().await;
    let mut feed = auth.feed().await;
    feed.next().await;

    let (status, output) = auth.program.stop();

    assert!(status.success() && !output.contains("deadline"), "{output}");
    while let Some(line) = feed.next().await {
        assert_eq!(line, Trust::Beat);
    }
}

#[tokio::test]
async fn an_instance_that_is_killed_takes_nothing_with_it() {
    let auth = TestAuth::start().await;
    let other = auth.instance(&[]).await;
    let token = token_of(auth.register("ana@example.org").await).await;
    let mut feed = auth.feed().await;
    let answer = auth.client.post(format!("{}/api/v1/auth/logout", other.url)).bearer_auth(&token).send().await;
    assert_eq!(answer.unwrap().status(), 204);

    other.program.kill();

    feed.find_ended(&token).await;
}

#[tokio::test]
async fn without_postgresql_the_feed_goes_on_and_what_changes_afterwards_is_told() {
    let postgres = Postgres::private().await;
    let database = testkit::database_on(&postgres.url()).await;
    let data = tempfile::tempdir().unwrap();
    let program = Program::start(PROGRAM, &[], &settings_of(&database.url, data.path())).await;
    let (url, client) = (program.announced("auth"), testkit::client());
    let body = serde_json::json!({"email": "ana@example.org", "password": "correct horse", "fullname": "Ana"});
    let register = client.post(format!("{url}/api/v1/auth/register")).json(&body).send().await.unwrap();
    let token = token_of(register).await;
    let mut feed = Feed::open(&url).await;
    feed.next().await;

    postgres.kill().await;

    let readiness = async || client.get(format!("{}/readyz", program.private_port())).send().await.unwrap();
    eventually("readiness says so", async || {
        readiness().await.text().await.unwrap().contains("changes of trust are not heard of").then_some(())
    })
    .await;
    for _ in 0..4 {
        assert_eq!(feed.next().await, Some(Trust::Beat));
    }
    let mut late = Feed::open(&url).await;
    assert!(matches!(late.next().await, Some(Trust::Snapshot { keys, .. }) if keys.len() == 1));
    let jwks = client.get(format!("{url}/.well-known/jwks.json")).send().await.unwrap();
    assert_eq!(jwks.status(), 200, "tokens go on to be verified");
    let logout = async || client.post(format!("{url}/api/v1/auth/logout")).bearer_auth(&token).send().await.unwrap();
    problem(logout().await, 503, "unavailable").await;

    postgres.start().await;

    eventually("logging out works again", async || (logout().await.status() == 204).then_some(())).await;
    feed.find_ended(&token).await;
    late.find_ended(&token).await;
}

#[tokio::test]
async fn a_connection_that_is_dead_without_being_closed_is_noticed() {
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;
    let proxy = Proxy::start(&auth.database.url).await;
    let behind = auth.instance(&[("DATABASE_URL", &proxy.url), ("SHUTDOWN_DEADLINE", "1s")]).await;
    let mut feed = Feed::open(&behind.url).await;
    feed.next().await;

    proxy.freeze();
    let answer = auth.post("/api/v1/auth/logout").bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), 204);

    let committed = Instant::now();
    feed.find_ended(&token).await;
    // By itself, long before TCP gives the connection up.
    assert!(committed.elapsed() < Duration::from_secs(5), "{:?}", committed.elapsed());
}

/// Stands between a program and PostgreSQL.
struct Proxy {
    url: String,
    /// Of the connections so far. Those to come are not frozen.
    frozen: Arc<std::sync::Mutex<Arc<AtomicBool>>>,
}

impl Proxy {
    /// In front of the server of `url`.
    async fn start(url: &str) -> Self {
        let (credentials, rest) = url.rsplit_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let server = server.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{credentials}@{}/{database}", listener.local_addr().unwrap());
        let frozen = Arc::new(std::sync::Mutex::new(Arc::new(AtomicBool::new(false))));
        let shared = Arc::clone(&frozen);
        let tasks = chassis::Tasks::default();
        tasks.clone().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = TcpStream::connect(&server).await.unwrap();
                let is_frozen = Arc::clone(&shared.lock().unwrap());
                let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), upstream.into_split());
                tasks.spawn(forward(client_in, server_out, Arc::clone(&is_frozen)));
                tasks.spawn(forward(server_in, client_out, is_frozen));
            }
        });
        Self { url, frozen }
    }

    /// Nothing passes any more on the connections that there are, and none is closed.
    fn freeze(&self) {
        let mut frozen = self.frozen.lock().unwrap();
        frozen.store(true, Ordering::Relaxed);
        *frozen = Arc::new(AtomicBool::new(false));
    }
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    is_frozen: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        if is_frozen.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if length == 0 || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
