use std::sync::Arc;

use common::token::Jwks;
use common::trust::Trust;
use common::{SystemClock, Verifier};
use testkit::{Program, eventually};

use crate::support::{Feed, PROGRAM, TestAuth, kid_of, problem, settings_of, token_of};

async fn jwks(auth: &TestAuth) -> Jwks {
    auth.get("/.well-known/jwks.json").send().await.unwrap().json().await.unwrap()
}

/// Waits until a feed tells of so many keys, and returns their ids.
async fn told_keys(feed: &mut Feed, count: usize) -> Vec<String> {
    feed.find("the keys", |line| match line {
        Trust::Keys { keys } | Trust::Snapshot { keys, .. } if keys.len() == count => {
            Some(keys.iter().map(|key| key.kid.clone()).collect())
        }
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_new_key_is_published_at_once_signs_later_and_logs_nobody_out() {
    let auth = TestAuth::start().await;
    let other = auth.instance(&[]).await;
    let before = token_of(auth.register("ana@example.org").await).await;
    let mut feed = Feed::open(&other.url).await;
    feed.next().await;

    let said = auth.command(&["auth", "rotate-key"]);

    let kids = told_keys(&mut feed, 2).await;
    let new = kids.iter().find(|kid| **kid != kid_of(&before)).unwrap();
    assert!(said.contains(new.as_str()), "{said}");
    assert_eq!(jwks(&auth).await.keys.len(), 2);
    let meanwhile = token_of(auth.login("ana@example.org", "correct horse").await).await;
    assert_eq!(kid_of(&meanwhile), kid_of(&before), "not everybody knows the new key yet");

    // Two minutes later.
    auth.sql("update signing_keys set key_signs_from = now() where key_retires_at is null").await;
    auth.sql(r#"select pg_notify('auth.trust', '{"type":"keys"}')"#).await;
    let after = eventually("the new key signs", async || {
        let token = token_of(auth.login("ana@example.org", "correct horse").await).await;
        (kid_of(&token) == *new).then_some(token)
    })
    .await;

    let verifier = Verifier::new("amphi", Arc::new(SystemClock));
    verifier.learn(Trust::Keys { keys: jwks(&auth).await.keys });
    for token in [&before, &meanwhile, &after] {
        assert!(verifier.verify(token).is_ok());
        assert_eq!(auth.me(token).await.status(), 200);
    }
}

#[tokio::test]
async fn a_key_goes_when_the_last_token_that_it_signed_has_expired() {
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;
    auth.command(&["auth", "rotate-key"]);
    let stored = auth
        .sql(
            "select key_retires_at > key_signs_from + interval '7 days'
                and key_retires_at > (select max(session_tokens_until) from sessions)
             from signing_keys where key_retires_at is not null",
        )
        .await;
    assert_eq!(stored, [["t"]]);

    auth.sql("update signing_keys set key_signs_from = now() where key_retires_at is null").await;
    auth.sql("update signing_keys set key_retires_at = now() where key_retires_at is not null").await;
    let auth = auth.restart().await;

    eventually("the old key is swept and not published", async || {
        let keys = jwks(&auth).await.keys;
        (keys.len() == 1 && keys[0].kid != kid_of(&token)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_key_that_leaked_is_gone_at_once_and_with_it_its_tokens() {
    let auth = TestAuth::start().await;
    let answer: serde_json::Value = auth.register("ana@example.org").await.json().await.unwrap();
    let (token, refresh_token) = (answer["token"].as_str().unwrap(), answer["refresh_token"].as_str().unwrap());
    let mut feed = auth.feed().await;
    feed.next().await;

    auth.command(&["auth", "rotate-key", "--now"]);

    let kids = told_keys(&mut feed, 1).await;
    assert_ne!(kids[0], kid_of(token));
    problem(auth.me(token).await, 401, "token-invalid").await;
    let body = serde_json::json!({"refresh_token": refresh_token});
    let fresh = token_of(auth.post("/api/v1/auth/refresh").json(&body).send().await.unwrap()).await;
    assert_eq!(kid_of(&fresh), kids[0]);
    assert_eq!(auth.me(&fresh).await.status(), 200);
}

#[tokio::test]
async fn of_two_rotations_the_second_waits_for_the_first() {
    let auth = TestAuth::start().await;
    auth.command(&["auth", "rotate-key"]);
    let settings = settings_of(&auth.database.url, auth.data.path());

    let (status, output) = Program::spawn(PROGRAM, &["auth", "rotate-key"], &settings).wait();

    assert!(!status.success() && output.contains("nothing is changed"), "{output}");
    assert_eq!(jwks(&auth).await.keys.len(), 2);
}

#[tokio::test]
async fn a_key_that_the_instances_could_not_open_is_not_made() {
    let auth = TestAuth::start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let settings = settings_of(&auth.database.url, elsewhere.path());

    let (status, output) = Program::spawn(PROGRAM, &["auth", "rotate-key"], &settings).wait();

    assert!(!status.success() && output.contains("AMPHI_SECRET: it does not open the signing key"), "{output}");
    assert_eq!(auth.sql("select kid from signing_keys").await.len(), 1);
}

#[tokio::test]
async fn the_help_says_what_happens_to_those_who_are_logged_in() {
    let (status, output) = Program::spawn(PROGRAM, &["auth", "rotate-key", "--help"], &[]).wait();
    assert!(status.success());
    let words = output.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("Nobody is logged out") && words.contains("so everybody is logged out"), "{output}");
}
