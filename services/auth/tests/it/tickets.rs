use reqwest::Response;
use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{TestAuth, claims_of, problem, token_of};

async fn ticket(auth: &TestAuth, token: &str) -> String {
    let answer = auth.post("/api/v1/auth/ws-ticket").bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    answer.json::<Value>().await.unwrap()["ticket"].as_str().unwrap().to_owned()
}

async fn redeem(auth: &TestAuth, ticket: &str) -> Response {
    auth.post("/internal/tickets/redeem").json(&json!({"ticket": ticket})).send().await.unwrap()
}

#[tokio::test]
async fn a_ticket_stands_for_the_token_that_asked_for_it_once() {
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;
    let ticket = ticket(&auth, &token).await;

    let answers = futures_util::future::join_all((0..8).map(|_| redeem(&auth, &ticket))).await;

    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status() == 200);
    assert_eq!((good.len(), bad.len()), (1, 7));
    for answer in bad {
        problem(answer, 401, "ticket-invalid").await;
    }
    for answer in good {
        let redeemed = token_of(answer).await;
        for claim in ["sub", "sid", "exp", "name", "role"] {
            assert_eq!(claims_of(&redeemed)[claim], claims_of(&token)[claim], "{claim}");
        }
        assert_eq!(auth.me(&redeemed).await.status(), 200);
    }
}

#[tokio::test]
async fn a_ticket_is_good_for_seconds_and_no_longer_than_its_session() {
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;
    let late = ticket(&auth, &token).await;
    let lifetime = auth.sql("select extract(epoch from ticket_expires_at - now()) from ws_tickets").await;
    let seconds: f64 = lifetime[0][0].parse().unwrap();
    assert!((1.0..=30.0).contains(&seconds), "{seconds}");
    auth.sql("update ws_tickets set ticket_expires_at = now()").await;
    problem(redeem(&auth, &late).await, 401, "ticket-invalid").await;

    let orphan = ticket(&auth, &token).await;
    auth.post("/api/v1/auth/logout").bearer_auth(&token).send().await.unwrap();
    problem(redeem(&auth, &orphan).await, 401, "ticket-invalid").await;

    problem(redeem(&auth, "garbage").await, 401, "ticket-invalid").await;
    let ended = auth.post("/api/v1/auth/ws-ticket").bearer_auth(&token).send().await.unwrap();
    problem(ended, 401, "session-ended").await;
    let nobody = auth.post("/api/v1/auth/ws-ticket").send().await.unwrap();
    problem(nobody, 401, "token-missing").await;
}

#[tokio::test]
async fn tickets_that_nobody_used_are_swept_and_none_can_be_read_in_the_database() {
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;
    let ticket = ticket(&auth, &token).await;
    let stored = auth.sql("select t::text, encode(ticket_hash, 'escape') from ws_tickets t").await;
    assert!(!stored.is_empty() && !format!("{stored:?}").contains(&ticket));

    auth.sql("update ws_tickets set ticket_expires_at = now()").await;
    let auth = auth.restart().await;

    eventually("it is swept", async || auth.sql("select * from ws_tickets").await.is_empty().then_some(())).await;
}
