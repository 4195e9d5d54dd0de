use reqwest::header::CONTENT_TYPE;
use serde_json::json;

use crate::support::{TestAuth, problem};

#[tokio::test]
async fn every_field_that_is_not_valid_is_named() {
    let auth = TestAuth::start().await;
    let body = json!({"user_email": "ana", "user_password": "short", "user_fullname": "a\u{0}b"});

    let answer = auth.post("/api/v1/auth/register").json(&body).send().await.unwrap();

    let body = problem(answer, 422, "invalid-fields").await;
    for field in ["user_email", "user_password", "user_fullname"] {
        assert!(body["fields"].get(field).is_some(), "{field} in {body}");
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_the_clients_error_and_says_why() {
    let auth = TestAuth::start().await;
    let send = async |content_type: &str, body: String| {
        auth.post("/api/v1/auth/register").header(CONTENT_TYPE, content_type).body(body).send().await.unwrap()
    };

    let missing = problem(send("application/json", "{}".into()).await, 400, "bad-request").await;
    assert!(missing["detail"].as_str().unwrap().contains("user_email"), "{missing}");
    problem(send("application/json", "{".into()).await, 400, "bad-request").await;
    problem(send("application/json", "\u{fffe}".into()).await, 400, "bad-request").await;
    problem(send("text/plain", "hello".into()).await, 415, "unsupported-media-type").await;
    problem(send("application/json", " ".repeat(70_000)).await, 413, "body-too-large").await;
}

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_problems_too() {
    let auth = TestAuth::start().await;
    problem(auth.get("/api/v1/auth/nothing").send().await.unwrap(), 404, "no-such-path").await;
    problem(auth.get("/api/v1/auth/login").send().await.unwrap(), 405, "method-not-allowed").await;
}

#[tokio::test]
async fn a_login_with_anything_in_it_is_refused_and_nothing_breaks() {
    let auth = TestAuth::start().await;
    for email in ["", "\u{0}", "' or 1=1 --", "a@b.c\u{0}", &"x".repeat(5000), "zoë@exämple.org"] {
        problem(auth.login(email, "\u{0}password").await, 401, "bad-credentials").await;
    }
}
