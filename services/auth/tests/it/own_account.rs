use reqwest::Response;
use serde_json::{Value, json};
use testkit::{Program, eventually};

use crate::support::{PROGRAM, TestAuth, problem, settings_of, token_of};

const ME: &str = "/api/v1/auth/me";

async fn delete(auth: &TestAuth, token: &str, body: &Value) -> Response {
    auth.client.delete(format!("{}{ME}", auth.url)).bearer_auth(token).json(body).send().await.unwrap()
}

fn right() -> Value {
    json!({"user_password": "correct horse"})
}

#[tokio::test]
async fn one_takes_along_what_is_known_of_oneself_and_nothing_that_opens_the_account() {
    let auth = TestAuth::start().await;
    let ana = auth.member("ana@example.org").await;
    auth.member("ben@example.org").await;
    auth.send("/api/v1/auth/totp", &ana, &right()).await;

    let answer = auth.get("/api/v1/auth/me/export").bearer_auth(&ana).send().await.unwrap();

    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-disposition"], "attachment; filename=\"amphi-account.json\"");
    let text = answer.text().await.unwrap();
    let export: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(export["account"]["user_email"], "ana@example.org");
    assert_eq!(export["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(export["mails"][0]["purpose"], "verify-email");
    assert_eq!(export["mails"][0]["to"], "ana@example.org");
    for secret in ["argon2", "ben@example.org", &ana] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    problem(auth.get("/api/v1/auth/me/export").send().await.unwrap(), 401, "token-missing").await;
}

#[tokio::test]
async fn a_deleted_account_is_gone_with_its_sessions_and_its_address_is_free() {
    let auth = TestAuth::start().await;
    let here = auth.member("ana@example.org").await;
    let elsewhere = token_of(auth.login("ana@example.org", "correct horse").await).await;
    let mail = auth.mails_to("ana@example.org", "Confirm your e-mail address", 1).await.remove(0);

    let answer = delete(&auth, &here, &right()).await;

    assert_eq!(answer.status(), 204);
    assert!(answer.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    for token in [&here, &elsewhere] {
        assert_eq!(auth.me(token).await.status(), 401);
    }
    problem(auth.login("ana@example.org", "correct horse").await, 401, "bad-credentials").await;
    let token = json!({"token": mail.token()});
    problem(auth.send("/api/v1/auth/email-verification/confirm", "", &token).await, 403, "link-invalid").await;
    eventually("auth has forgotten name and address", async || {
        // What auth has told waits in the queues of others until they take it.
        let dump = crate::operators::dump_of(&auth.database.url, "auth").await;
        (!dump.contains("ana@example.org") && !dump.contains("Ana Silva")).then_some(())
    })
    .await;
    assert_eq!(auth.register("ana@example.org").await.status(), 201);
}

#[tokio::test]
async fn that_sessions_have_ended_is_remembered_after_their_user_is_gone() {
    let auth = TestAuth::start().await;
    let ana = auth.member("ana@example.org").await;
    delete(&auth, &ana, &right()).await;

    let dump = crate::operators::dump(&auth.database.url).await;

    let claims = ana.split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert!(dump.contains(claims["sid"].as_str().unwrap()), "its tokens have not expired: {dump}");
}

#[tokio::test]
async fn every_service_is_told_of_a_deletion() {
    let auth = TestAuth::start().await;
    let settings = settings_of(&auth.database.url, auth.data());
    let tail = Program::spawn(PROGRAM, &["events", "tail", "auth.#"], &settings);
    eventually("the tail watches", async || tail.output().contains("watching").then_some(())).await;
    let answer = auth.register("ana@example.org").await;
    let body: Value = answer.json().await.unwrap();

    delete(&auth, body["token"].as_str().unwrap(), &right()).await;

    let event = eventually("the event is published", async || {
        let output = tail.output();
        let mut events = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.find(|event| event["name"] == "auth.user.deleted.v1")
    })
    .await;
    assert_eq!(event["data"], json!({"user_id": body["user"]["user_uuid"]}));
}

#[tokio::test]
async fn an_account_is_deleted_by_its_owner_alone() {
    let auth = TestAuth::start().await;
    let ana = auth.member("ana@example.org").await;
    problem(delete(&auth, &ana, &json!({"user_password": "incorrect horse"})).await, 401, "bad-credentials").await;
    problem(delete(&auth, &ana, &json!({})).await, 400, "bad-request").await;
    auth.execute("update auth.users set user_totp_secret = '', user_totp_enabled_at = now()").await;
    problem(delete(&auth, &ana, &right()).await, 401, "totp-required").await;
    assert_eq!(auth.me(&ana).await.status(), 200);
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let auth = TestAuth::start().await;
    let announced = auth.program.announced("administrator");
    let password = announced.split_whitespace().nth(2).unwrap().to_owned();
    let admin = auth.administrator().await;
    let body = json!({"user_password": password});
    problem(delete(&auth, &admin, &body).await, 409, "last-administrator").await;

    let ana = auth.member("ana@example.org").await;
    auth.execute("update auth.users set user_role = 'Admin'").await;
    let (one, two) = (right(), body);
    let (one, two) = tokio::join!(delete(&auth, &ana, &one), delete(&auth, &admin, &two));

    let mut statuses = [one.status().as_u16(), two.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409], "of the last two, one stays");
}
