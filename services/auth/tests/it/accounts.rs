use common::token::Jwks;
use common::trust::Trust;
use common::{SystemClock, Verifier};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::support::{TestAuth, problem, token_of};

#[tokio::test]
async fn a_registered_user_is_logged_in_by_cookie_and_by_token() {
    let auth = TestAuth::start().await;

    let answer = auth.register("Ana@Example.org").await;

    assert_eq!(answer.status(), 201);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=604800"] {
        assert!(cookie.contains(attribute), "{attribute} in {cookie}");
    }
    assert!(!cookie.contains("Secure"), "development is plain HTTP: {cookie}");
    let token = token_of(answer).await;
    let by_cookie = auth.get("/api/v1/auth/me").header("cookie", format!("auth_token={token}")).send().await.unwrap();
    let by_bearer = auth.me(&token).await;
    for me in [by_cookie, by_bearer] {
        let me: Value = me.json().await.unwrap();
        assert_eq!(me["user_email"], "ana@example.org");
        assert_eq!(me["user_fullname"], "Ana Silva");
        assert_eq!(me["user_role"], "Member");
    }
}

#[tokio::test]
async fn a_stale_cookie_does_not_hide_a_good_bearer_token() {
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;

    let request = auth.get("/api/v1/auth/me").header("cookie", "auth_token=stale").bearer_auth(token);

    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_short_field_names_are_understood() {
    let auth = TestAuth::start().await;
    let body = json!({"email": "ana@example.org", "password": "correct horse", "fullname": "Ana"});
    assert_eq!(auth.post("/api/v1/auth/register").json(&body).send().await.unwrap().status(), 201);
    let body = json!({"email": "ana@example.org", "password": "correct horse"});
    assert_eq!(auth.post("/api/v1/auth/login").json(&body).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_address_is_registered_once_however_it_is_typed_and_however_many_try_at_once() {
    let auth = TestAuth::start().await;

    let (one, two, three) = tokio::join!(
        auth.register("ana@example.org"),
        auth.register("ANA@example.org"),
        auth.register("Ana@Example.Org"),
    );

    let mut statuses = [one.status().as_u16(), two.status().as_u16(), three.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409]);
    problem(auth.register("ana@example.org").await, 409, "email-taken").await;
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_are_refused_alike() {
    let auth = TestAuth::start().await;
    auth.register("ana@example.org").await;

    let wrong = problem(auth.login("ana@example.org", "incorrect horse").await, 401, "bad-credentials").await;
    let unknown = problem(auth.login("ben@example.org", "incorrect horse").await, 401, "bad-credentials").await;

    assert_eq!(wrong["detail"], unknown["detail"]);
}

#[tokio::test]
async fn logging_out_ends_this_session_and_no_other() {
    let auth = TestAuth::start().await;
    let here = token_of(auth.register("ana@example.org").await).await;
    let elsewhere = token_of(auth.login("ana@example.org", "correct horse").await).await;

    let answer = auth.post("/api/v1/auth/logout").bearer_auth(&here).send().await.unwrap();

    assert_eq!(answer.status(), 204);
    assert!(answer.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    problem(auth.me(&here).await, 401, "session-ended").await;
    assert_eq!(auth.me(&elsewhere).await.status(), 200);
    let again = auth.post("/api/v1/auth/logout").bearer_auth(&here).send().await.unwrap();
    assert_eq!(again.status(), 204, "a repeat changes nothing");
    let stale = auth.post("/api/v1/auth/logout").header("cookie", "auth_token=stale").send().await.unwrap();
    assert_eq!(stale.status(), 204, "a cookie that is no good any more goes too");
    assert!(stale.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn anyone_can_verify_a_token_with_the_keys_that_are_served() {
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;
    let jwks: Jwks = auth.get("/.well-known/jwks.json").send().await.unwrap().json().await.unwrap();

    let verifier = Verifier::new("amphi", Arc::new(SystemClock));
    verifier.learn(Trust::Keys { keys: jwks.keys });

    assert_eq!(verifier.verify(&token).unwrap().name, "Ana Silva");
}

#[tokio::test]
async fn a_restart_logs_nobody_out() {
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;

    let auth = auth.restart().await;

    assert_eq!(auth.me(&token).await.status(), 200);
}

#[tokio::test]
async fn without_a_token_nobody_is_told_who_they_are() {
    let auth = TestAuth::start().await;
    problem(auth.get("/api/v1/auth/me").send().await.unwrap(), 401, "token-missing").await;
    problem(auth.me("garbage").await, 401, "token-invalid").await;
}
