use reqwest::Method;
use serde_json::Value;
use testkit::eventually;

use crate::support::{TestAuth, claims_of, problem, token_of};

async fn sessions(auth: &TestAuth, token: &str) -> Vec<Value> {
    let answer = auth.ask(Method::GET, "/api/v1/auth/sessions", token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let body: Value = answer.json().await.unwrap();
    body["sessions"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_user_sees_where_they_are_logged_in() {
    let auth = TestAuth::start().await;
    let here = token_of(auth.register("ana@example.org").await).await;
    let body = serde_json::json!({"email": "ana@example.org", "password": "correct horse"});
    let login = auth.post("/api/v1/auth/login").json(&body).header("user-agent", "A phone/1.0");
    let answer = login.header("x-forwarded-for", "2001:db8::7").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    auth.register("ben@example.org").await;

    let sessions = sessions(&auth, &here).await;

    assert_eq!(sessions.len(), 2, "{sessions:?}");
    let (current, others): (Vec<_>, Vec<_>) = sessions.iter().partition(|session| session["is_current"] == true);
    assert_eq!(current[0]["session_id"], claims_of(&here)["sid"]);
    assert_eq!(current[0]["session_address"], "127.0.0.1", "without a gateway it is the peer");
    assert_eq!(others[0]["session_address"], "2001:db8::7");
    assert_eq!(others[0]["session_user_agent"], "A phone/1.0");
}

#[tokio::test]
async fn a_user_ends_any_session_of_their_own_and_no_other() {
    let auth = TestAuth::start().await;
    let here = token_of(auth.register("ana@example.org").await).await;
    let elsewhere = token_of(auth.login("ana@example.org", "correct horse").await).await;
    let bens = token_of(auth.register("ben@example.org").await).await;
    let mut feed = auth.feed().await;
    let end = async |token: &str| {
        let path = format!("/api/v1/auth/sessions/{}", claims_of(token)["sid"].as_str().unwrap());
        auth.ask(Method::DELETE, &path, &here).send().await.unwrap()
    };

    problem(end(&bens).await, 404, "no-such-session").await;
    assert_eq!(end(&elsewhere).await.status(), 204);

    feed.find_ended(&elsewhere).await;
    problem(auth.me(&elsewhere).await, 401, "session-ended").await;
    problem(end(&elsewhere).await, 404, "no-such-session").await;
    assert_eq!(auth.me(&here).await.status(), 200);
    assert_eq!(auth.me(&bens).await.status(), 200);
    let no_id = auth.ask(Method::DELETE, "/api/v1/auth/sessions/7", &here).send().await.unwrap();
    problem(no_id, 404, "no-such-path").await;
    assert_eq!(end(&here).await.status(), 204);
    problem(end(&here).await, 401, "session-ended").await;
}

#[tokio::test]
async fn a_user_ends_all_sessions_but_this_one() {
    let auth = TestAuth::start().await;
    let here = token_of(auth.register("ana@example.org").await).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(token_of(auth.login("ana@example.org", "correct horse").await).await);
    }
    let mut feed = auth.feed().await;
    let end = async || {
        let answer = auth.ask(Method::DELETE, "/api/v1/auth/sessions", &here).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["ended"].clone()
    };

    assert_eq!(end().await, 3);

    for other in &others {
        problem(auth.me(other).await, 401, "session-ended").await;
    }
    feed.find_ended(&others[2]).await;
    assert_eq!(auth.me(&here).await.status(), 200);
    assert_eq!(end().await, 0);
}

#[tokio::test]
async fn a_user_has_at_most_a_hundred_sessions_and_the_oldest_ends() {
    let auth = TestAuth::start().await;
    let oldest = token_of(auth.register("ana@example.org").await).await;
    auth.sql(
        "insert into sessions (session_id, user_uuid, session_created_at, session_expires_at, session_tokens_until,
             session_last_seen_at, session_refresh_expires_at)
         select gen_random_uuid(), user_uuid, now(), now() + interval '1 day', now() + interval '1 day', now(), now()
         from users, generate_series(1, 99) where user_email = 'ana@example.org'",
    )
    .await;
    assert_eq!(sessions(&auth, &oldest).await.len(), 100);
    let mut feed = auth.feed().await;

    let newest = token_of(auth.login("ana@example.org", "correct horse").await).await;

    problem(auth.me(&oldest).await, 401, "session-ended").await;
    feed.find_ended(&oldest).await;
    assert_eq!(sessions(&auth, &newest).await.len(), 100);
}

#[tokio::test]
async fn when_a_session_was_last_seen_is_written_now_and_then() {
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;
    let last_seen = async || {
        auth.sql("select session_last_seen_at > now() - interval '1 minute' from sessions").await[0][0].clone()
    };

    auth.sql("update sessions set session_last_seen_at = now() - interval '4 minutes'").await;
    auth.me(&token).await;
    assert_eq!(last_seen().await, "f");

    auth.sql("update sessions set session_last_seen_at = now() - interval '6 minutes'").await;
    auth.me(&token).await;
    assert_eq!(last_seen().await, "t");
}

#[tokio::test]
async fn a_session_that_has_expired_is_over_and_swept() {
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;

    auth.sql("update sessions set session_expires_at = now()").await;

    problem(auth.me(&token).await, 401, "session-ended").await;
    let auth = auth.restart().await;
    eventually("it is swept", async || auth.sql("select * from sessions").await.is_empty().then_some(())).await;
}
