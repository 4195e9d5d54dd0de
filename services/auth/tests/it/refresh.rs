use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{ADMIN, TestAuth, claims_of, problem, token_of};

async fn refresh(auth: &TestAuth, refresh_token: &str) -> Response {
    auth.post("/api/v1/auth/refresh").json(&json!({"refresh_token": refresh_token})).send().await.unwrap()
}

/// The refresh token and the access token of an answer.
async fn refreshed(answer: Response) -> (String, String) {
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    let body: Value = answer.json().await.unwrap();
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    (text("refresh_token"), text("token"))
}

#[tokio::test]
async fn each_refresh_token_is_exchanged_for_the_next_and_for_a_token_of_the_same_session() {
    let auth = TestAuth::start().await;
    let (mut refresh_token, first) = refreshed(auth.register("ana@example.org").await).await;

    for _ in 0..3 {
        let (next, token) = refreshed(refresh(&auth, &refresh_token).await).await;
        assert_ne!(next, refresh_token);
        assert_eq!(claims_of(&token)["sid"], claims_of(&first)["sid"]);
        assert_eq!(auth.me(&token).await.status(), 200);
        refresh_token = next;
    }

    assert_eq!(auth.me(&first).await.status(), 200, "tokens of before stay good");
}

#[tokio::test]
async fn a_lost_answer_loses_nothing() {
    let auth = TestAuth::start().await;
    let (first, _) = refreshed(auth.register("ana@example.org").await).await;

    let (second, _) = refreshed(refresh(&auth, &first).await).await;
    let (again, _) = refreshed(refresh(&auth, &first).await).await;
    assert_eq!(again, second);

    let (third, _) = refreshed(refresh(&auth, &again).await).await;
    let (fourth, _) = refreshed(refresh(&auth, &third).await).await;
    let tries = futures_util::future::join_all((0..8).map(|_| refresh(&auth, &fourth))).await;
    let mut answers = Vec::new();
    for answer in tries {
        answers.push(refreshed(answer).await.0);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "tries at once get the same token");
    refreshed(refresh(&auth, &answers[0]).await).await;
}

#[tokio::test]
async fn a_token_whose_successor_was_used_ends_the_session_for_whoever_has_it() {
    let auth = TestAuth::start().await;
    let (first, token) = refreshed(auth.register("ana@example.org").await).await;
    let elsewhere = token_of(auth.login("ana@example.org", "correct horse").await).await;
    let (second, _) = refreshed(refresh(&auth, &first).await).await;
    let (third, newest) = refreshed(refresh(&auth, &second).await).await;
    let mut feed = auth.feed().await;

    problem(refresh(&auth, &first).await, 401, "refresh-token-reused").await;

    feed.find_ended(&newest).await;
    problem(refresh(&auth, &third).await, 401, "refresh-token-invalid").await;
    problem(refresh(&auth, &first).await, 401, "refresh-token-invalid").await;
    problem(auth.me(&token).await, 401, "session-ended").await;
    assert_eq!(auth.me(&elsewhere).await.status(), 200);
}

#[tokio::test]
async fn what_is_no_good_refresh_token_changes_nothing() {
    let auth = TestAuth::start().await;
    let (good, token) = refreshed(auth.register("ana@example.org").await).await;
    let (_, elsewhere) = refreshed(auth.login("ana@example.org", "correct horse").await).await;
    let (ended, gone) = refreshed(auth.login("ana@example.org", "correct horse").await).await;
    auth.post("/api/v1/auth/logout").bearer_auth(gone).send().await.unwrap();
    let forged = format!("{}{}", &good[..good.len() - 4], if good.ends_with("AAAA") { "BBBB" } else { "AAAA" });

    for wrong in ["", "garbage", &token, &forged, &ended, &"A".repeat(10_000)] {
        problem(refresh(&auth, wrong).await, 401, "refresh-token-invalid").await;
    }

    assert_eq!(auth.me(&elsewhere).await.status(), 200);
    let (next, _) = refreshed(refresh(&auth, &good).await).await;
    auth.sql("update sessions set session_refresh_expires_at = now()").await;
    problem(refresh(&auth, &next).await, 401, "refresh-token-invalid").await;
    problem(refresh(&auth, &good).await, 401, "refresh-token-invalid").await;
    assert_eq!(auth.me(&token).await.status(), 200, "the session lives as long as its access token");
}

#[tokio::test]
async fn refreshing_moves_the_end_of_the_session() {
    let auth = TestAuth::with(&[("REFRESH_TOKEN_LIFETIME", "20d")]).await;
    let (refresh_token, token) = refreshed(auth.register("ana@example.org").await).await;
    let days = async |column: &str| {
        auth.sql(&format!("select round(extract(epoch from {column} - now()) / 86400) from sessions")).await[0][0]
            .clone()
    };
    assert_eq!(days("session_expires_at").await, "20");
    auth.sql(
        "update sessions set session_expires_at = now() + interval '1 day', session_tokens_until = now(),
             session_refresh_expires_at = now() + interval '1 day'",
    )
    .await;

    refreshed(refresh(&auth, &refresh_token).await).await;

    assert_eq!(days("session_expires_at").await, "20");
    assert_eq!(days("session_refresh_expires_at").await, "20");
    assert_eq!(days("session_tokens_until").await, "7");
    assert_eq!(auth.me(&token).await.status(), 200);
}

#[tokio::test]
async fn a_refreshed_token_says_what_is_true_of_the_user_now() {
    let auth = TestAuth::with(&ADMIN).await;
    let admin = auth.admin().await;
    let (refresh_token, token) = refreshed(auth.register("ana@example.org").await).await;
    assert_eq!(claims_of(&token)["role"], "Member");
    let path = format!("/api/v1/auth/users/{}/role", claims_of(&token)["sub"].as_str().unwrap());
    let promote = auth.ask(reqwest::Method::PUT, &path, &admin).json(&json!({"user_role": "Admin"}));
    assert_eq!(promote.send().await.unwrap().status(), 200);

    let (_, token) = refreshed(refresh(&auth, &refresh_token).await).await;

    assert_eq!(claims_of(&token)["role"], "Admin");
}

#[tokio::test]
async fn the_cookie_is_renewed_for_clients_that_have_it() {
    let auth = TestAuth::start().await;
    let (refresh_token, token) = refreshed(auth.register("ana@example.org").await).await;
    let request = || auth.post("/api/v1/auth/refresh").json(&json!({"refreshToken": refresh_token}));

    let without = request().send().await.unwrap();
    let with = request().header("cookie", format!("auth_token={token}")).send().await.unwrap();

    assert!(!without.headers().contains_key("set-cookie"));
    let cookie = with.headers()["set-cookie"].to_str().unwrap().to_owned();
    let (_, token) = refreshed(with).await;
    assert!(cookie.contains(&token) && cookie.contains("HttpOnly"), "{cookie}");
}
