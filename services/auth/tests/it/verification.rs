use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{TestAuth, problem};

const ASK: &str = "/api/v1/auth/email-verification";
const CONFIRM: &str = "/api/v1/auth/email-verification/confirm";
const CHANGE: &str = "/api/v1/auth/email";
const SUBJECT: &str = "Confirm your e-mail address";
const SUBJECT_OF_CHANGE: &str = "Confirm your new e-mail address";

async fn confirm(auth: &TestAuth, token: &str) -> reqwest::Response {
    auth.send(CONFIRM, "", &json!({"token": token})).await
}

async fn change(auth: &TestAuth, token: &str, email: &str) -> reqwest::Response {
    auth.send(CHANGE, token, &json!({"user_email": email, "user_password": "correct horse"})).await
}

async fn me(auth: &TestAuth, token: &str) -> Value {
    auth.me(token).await.json().await.unwrap()
}

#[tokio::test]
async fn whoever_registers_is_asked_to_confirm_the_address() {
    let auth = TestAuth::start().await;
    let ana = auth.member("ana@example.org").await;
    assert_eq!(me(&auth, &ana).await["user_email_verified"], false);

    let mail = auth.mails_to("ana@example.org", SUBJECT, 1).await.remove(0);
    assert_eq!(confirm(&auth, mail.token()).await.status(), 204);

    assert_eq!(me(&auth, &ana).await["user_email_verified"], true);
    problem(confirm(&auth, mail.token()).await, 403, "link-invalid").await;
    problem(auth.send(ASK, &ana, &json!({})).await, 409, "email-verified").await;
}

#[tokio::test]
async fn the_mail_can_be_asked_for_again_but_not_without_end() {
    let auth = TestAuth::start().await;
    let ana = auth.member("ana@example.org").await;
    for _ in 0..4 {
        assert_eq!(auth.send(ASK, &ana, &json!({})).await.status(), 202);
    }
    problem(auth.send(ASK, &ana, &json!({})).await, 429, "too-many-mails").await;
    let mails = auth.mails_to("ana@example.org", SUBJECT, 5).await;
    assert_eq!(confirm(&auth, mails[3].token()).await.status(), 204);
    problem(confirm(&auth, mails[0].token()).await, 403, "link-invalid").await;
}

#[tokio::test]
async fn an_address_changes_when_the_new_one_is_confirmed_and_the_old_one_is_told() {
    let auth = TestAuth::start().await;
    let ana = auth.member("ana@example.org").await;
    let stale = auth.mails_to("ana@example.org", SUBJECT, 1).await.remove(0);

    assert_eq!(change(&auth, &ana, "Ana@Example.net").await.status(), 202);

    auth.mails_to("ana@example.org", "Your e-mail address is about to change", 1).await;
    let mail = auth.mails_to("ana@example.net", SUBJECT_OF_CHANGE, 1).await.remove(0);
    assert_eq!(me(&auth, &ana).await["user_email"], "ana@example.org", "not before it is confirmed");
    assert_eq!(confirm(&auth, mail.token()).await.status(), 204);
    let after = me(&auth, &ana).await;
    assert_eq!((&after["user_email"], &after["user_email_verified"]), (&json!("ana@example.net"), &json!(true)));
    problem(confirm(&auth, stale.token()).await, 403, "link-invalid").await;
    problem(auth.login("ana@example.org", "correct horse").await, 401, "bad-credentials").await;
    assert_eq!(auth.login("ana@example.net", "correct horse").await.status(), 200);
    let told = async |name| auth.emails_told(name).await.concat();
    eventually("others are told of both", async || {
        (told("auth.user.registered.v1").await.contains(&"ana@example.org".to_owned())
            && told("auth.user.email_changed.v1").await == ["ana@example.net"])
        .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reset_that_went_to_the_old_address_is_void_after_a_change() {
    let auth = TestAuth::start().await;
    let ana = auth.member("ana@example.org").await;
    auth.send("/api/v1/auth/password-reset", "", &json!({"user_email": "ana@example.org"})).await;
    let reset = auth.mails_to("ana@example.org", "Set a new password", 1).await.remove(0);
    change(&auth, &ana, "ana@example.net").await;
    let mail = auth.mails_to("ana@example.net", SUBJECT_OF_CHANGE, 1).await.remove(0);
    assert_eq!(confirm(&auth, mail.token()).await.status(), 204);

    let body = json!({"token": reset.token(), "new_password": "another horse"});

    problem(auth.send("/api/v1/auth/password-reset/confirm", "", &body).await, 403, "link-invalid").await;
}

#[tokio::test]
async fn an_address_that_somebody_else_has_by_now_is_not_taken_over() {
    let auth = TestAuth::start().await;
    let ana = auth.member("ana@example.org").await;
    change(&auth, &ana, "ben@example.org").await;
    let mail = auth.mails_to("ben@example.org", SUBJECT_OF_CHANGE, 1).await.remove(0);
    auth.member("ben@example.org").await;

    problem(confirm(&auth, mail.token()).await, 409, "email-taken").await;

    assert_eq!(me(&auth, &ana).await["user_email"], "ana@example.org");
    problem(change(&auth, &ana, "ben@example.org").await, 409, "email-taken").await;
}

#[tokio::test]
async fn an_address_is_changed_by_who_knows_the_password_alone() {
    let auth = TestAuth::start().await;
    let ana = auth.member("ana@example.org").await;

    let wrong = json!({"user_email": "eve@example.org", "user_password": "incorrect horse"});
    problem(auth.send(CHANGE, &ana, &wrong).await, 401, "bad-credentials").await;
    problem(auth.send(CHANGE, "", &wrong).await, 401, "token-missing").await;
    problem(change(&auth, &ana, "no address").await, 422, "invalid-fields").await;
    auth.send("/api/v1/auth/logout", &ana, &json!({})).await;
    problem(change(&auth, &ana, "eve@example.org").await, 401, "session-ended").await;
}
