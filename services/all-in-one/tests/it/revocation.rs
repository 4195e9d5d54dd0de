//! What ends a session is known to every process within a second, whatever else is away, and for ever.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::{Postgres, RabbitMq, Redis, eventually};

use crate::instances::{ADMIN, Instance, Instances, PASSWORD, Servers, Session, is_closed_within, open, outcome};

/// What is promised.
const A_SECOND: Duration = Duration::from_secs(1);
/// How soon an instance of auth that hangs is given up for the other: three beats of a quarter of a second, and a try.
const WHEN_AUTH_HANGS: Duration = Duration::from_secs(2);

impl Instances {
    /// The answers of every gateway and, around them, of every stream instance, to a request with `token`. It changes nothing.
    async fn answers(&self, token: &str) -> Vec<(u16, String)> {
        let bases = self.gateway.iter().chain(&self.stream);
        let asked = bases
            .map(async |it| outcome(self.ask(Method::PUT, &it.url, "/api/v1/streams/1", token, json!({})).await).await);
        join_all(asked).await
    }

    async fn assert_accepted(&self, session: &Session) {
        for (status, code) in self.answers(&session.token).await {
            assert_eq!((status, &*code), (404, "no-such-stream"));
        }
    }

    /// Waits until nobody takes the token any more. Returns how long after `since` that was.
    async fn until_refused(&self, session: &Session, since: Instant) -> Duration {
        let mut latest = Duration::ZERO;
        eventually("every process refuses the token", async || {
            let answers = self.answers(&session.token).await;
            latest = since.elapsed();
            answers.iter().all(|it| *it == (401, "session-ended".to_owned())).then_some(())
        })
        .await;
        latest
    }

    async fn log_out(&self, base: &str, session: &Session) {
        let answer = self.ask(Method::POST, base, "/api/v1/auth/logout", &session.token, Value::Null).await;
        assert_eq!(answer.status(), 204);
    }
}

#[tokio::test]
async fn every_end_of_a_session_is_known_everywhere_within_a_second_and_after_a_restart_of_everything() {
    let mut house = Instances::start(Servers::default(), &[]).await;
    let admin = house.log_in(ADMIN).await;
    let [first, second] = [&house.gateway[0].url, &house.gateway[1].url].map(String::clone);
    let mut ended = Vec::new();

    for how in ["logout", "suspension", "password", "others", "one"] {
        let email = format!("{how}@example.org");
        let session = house.register(&email).await;
        let own = house.log_in(&email).await;
        house.assert_accepted(&session).await;
        let mut open = [
            open(&second, "/api/v1/chat/ws", &session.token).await,
            open(&second, "/api/v1/chat/events", &session.token).await,
        ];
        let user = format!("/api/v1/auth/users/{}", session.user);
        let list = async || -> Value {
            house.ask(Method::GET, &first, "/api/v1/auth/sessions", &own.token, Value::Null).await.json().await.unwrap()
        };

        let answer = match how {
            "logout" => house.ask(Method::POST, &first, "/api/v1/auth/logout", &session.token, Value::Null).await,
            "suspension" => {
                house
                    .ask(Method::PUT, &first, &format!("{user}/suspension"), &admin.token, json!({"reason": "spam"}))
                    .await
            }
            "password" => {
                let body = json!({"current_password": PASSWORD, "new_password": "another horse"});
                house.ask(Method::POST, &first, "/api/v1/auth/password", &own.token, body).await
            }
            "others" => house.ask(Method::DELETE, &first, "/api/v1/auth/sessions", &own.token, Value::Null).await,
            _ => {
                let sessions = list().await;
                let others = sessions["sessions"].as_array().unwrap().iter();
                let other = others.into_iter().find(|it| it["is_current"] == false).expect("the other one");
                let id = other["session_id"].as_str().unwrap();
                house.ask(Method::DELETE, &first, &format!("/api/v1/auth/sessions/{id}"), &own.token, Value::Null).await
            }
        };
        let since = Instant::now();
        assert!(answer.status().is_success(), "{how}: {:?}", outcome(answer).await);

        let refused = house.until_refused(&session, since).await;
        for stream in &mut open {
            let left = A_SECOND.saturating_sub(since.elapsed());
            assert!(
                is_closed_within(stream, left).await,
                "{how}: what was open is still open after {:?}",
                since.elapsed()
            );
        }
        println!("{how}: refused everywhere after {refused:?}, closed after {:?}", since.elapsed());
        assert!(refused < A_SECOND, "{how}: {refused:?}");
        match how {
            // Of these, the session that asked stays.
            "password" | "others" | "one" => house.assert_accepted(&own).await,
            _ => {}
        }
        ended.push(session);
    }

    house.all().for_each(Instance::kill);
    house.start_all().await;

    for session in &ended {
        house.until_refused(session, Instant::now()).await;
        let answers = house.answers(&session.token).await;
        assert!(answers.iter().all(|it| *it == (401, "session-ended".to_owned())), "{answers:?}");
    }
    house.assert_accepted(&admin).await;
}

#[tokio::test]
async fn another_role_counts_everywhere_within_a_second() {
    let house = Instances::start(Servers::default(), &[]).await;
    let admin = house.log_in(ADMIN).await;
    let session = house.register("ana@example.org").await;
    let role = format!("/api/v1/auth/users/{}/role", session.user);
    // Of every gateway, and of every instance of auth around them.
    let statuses = async |token: &str| {
        let bases = house.gateway.iter().chain(&house.auth);
        let asked = bases.map(async |it| {
            house.ask(Method::GET, &it.url, "/api/v1/auth/users", token, Value::Null).await.status().as_u16()
        });
        join_all(asked).await
    };
    assert_eq!(statuses(&session.token).await, [403; 4]);

    for (name, expected) in [("Admin", 200), ("Member", 403)] {
        let answer =
            house.ask(Method::PUT, &house.gateway[0].url, &role, &admin.token, json!({"user_role": name})).await;
        let since = Instant::now();
        assert_eq!(answer.status(), 200);
        let mut latest = Duration::ZERO;
        eventually("the role counts", async || {
            let statuses = statuses(&session.token).await;
            latest = since.elapsed();
            (statuses == [expected; 4]).then_some(())
        })
        .await;
        assert!(latest < A_SECOND, "{name}: {latest:?}");
    }
}

#[tokio::test]
async fn neither_redis_nor_rabbitmq_is_needed_to_end_a_session_everywhere_within_a_second() {
    let (redis, rabbitmq) = tokio::join!(Redis::private(), RabbitMq::private());
    let servers = Servers { amqp: Some(rabbitmq.url()), redis: Some(redis.url()), ..Servers::default() };
    let house = Instances::start(servers, &[]).await;
    let [one, two] = [house.register("ana@example.org").await, house.register("ben@example.org").await];
    house.assert_accepted(&one).await;

    redis.kill().await;
    house.log_out(&house.gateway[0].url, &one).await;
    let took = house.until_refused(&one, Instant::now()).await;
    assert!(took < A_SECOND, "without Redis: {took:?}");

    rabbitmq.kill().await;
    house.assert_accepted(&two).await;
    house.log_out(&house.gateway[1].url, &two).await;
    let took = house.until_refused(&two, Instant::now()).await;
    assert!(took < A_SECOND, "without RabbitMQ: {took:?}");
}

#[tokio::test]
async fn while_one_instance_of_auth_hangs_the_other_tells_everybody() {
    let house = Instances::start(Servers::default(), &[]).await;
    for (hanging, other) in [(0, 1), (1, 0)] {
        let session = house.register(&format!("ana{hanging}@example.org")).await;
        house.assert_accepted(&session).await;

        let paused = house.auth[hanging].pause();
        house.log_out(&house.auth[other].url, &session).await;

        let took = house.until_refused(&session, Instant::now()).await;
        println!("instance {hanging} of auth hangs: refused everywhere after {took:?}");
        assert!(took < WHEN_AUTH_HANGS, "{took:?}");
        drop(paused);
        // Through the gateways too, before it is the other's turn.
        eventually("both are asked again", async || {
            let answers = house.auth.iter().map(|it| house.client.get(format!("{}/healthz", it.url)).send());
            join_all(answers).await.iter().all(|it| it.as_ref().is_ok_and(|it| it.status() == 200)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn without_postgresql_tokens_are_verified_everywhere_and_logging_in_is_a_503_that_recovers() {
    let postgres = Postgres::private().await;
    let house = Instances::start(Servers { postgres: Some(postgres.url()), ..Servers::default() }, &[]).await;
    let session = house.register("ana@example.org").await;
    let gone = house.register("ben@example.org").await;
    house.log_out(&house.gateway[0].url, &gone).await;
    house.until_refused(&gone, Instant::now()).await;

    postgres.kill().await;

    for gateway in &house.gateway {
        let chat =
            async |token: &str| house.ask(Method::GET, &gateway.url, "/api/v1/chat/state", token, Value::Null).await;
        assert_eq!(chat(&session.token).await.status(), 200);
        assert_eq!(outcome(chat(&gone.token).await).await, (401, "session-ended".to_owned()));
        let login = house.log_in_at(gateway, "ana@example.org").await;
        assert!(login.headers().contains_key("retry-after"));
        assert_eq!(outcome(login).await, (503, "unavailable".to_owned()));
    }
    for stream in &house.stream {
        let answer = house.ask(Method::PUT, &stream.url, "/api/v1/streams/1", &session.token, json!({})).await;
        assert_eq!(outcome(answer).await, (503, "unavailable".to_owned()));
    }

    postgres.start().await;

    for gateway in &house.gateway {
        eventually("logging in works again", async || {
            (house.log_in_at(gateway, "ana@example.org").await.status() == 200).then_some(())
        })
        .await;
    }
    eventually("what is ended becomes known again", async || {
        let session = house.log_in("ana@example.org").await;
        house.log_out(&house.gateway[0].url, &session).await;
        (house.until_refused(&session, Instant::now()).await < A_SECOND).then_some(())
    })
    .await;
}
