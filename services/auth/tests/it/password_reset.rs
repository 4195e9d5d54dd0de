use serde_json::json;

use crate::support::{TestAuth, problem};

const ASK: &str = "/api/v1/auth/password-reset";
const CONFIRM: &str = "/api/v1/auth/password-reset/confirm";
const SUBJECT: &str = "Set a new password";

async fn ask(auth: &TestAuth, email: &str) -> reqwest::Response {
    auth.send(ASK, "", &json!({"user_email": email})).await
}

async fn confirm(auth: &TestAuth, token: &str, password: &str) -> reqwest::Response {
    auth.send(CONFIRM, "", &json!({"token": token, "new_password": password})).await
}

#[tokio::test]
async fn who_forgot_the_password_sets_another_by_mail_and_every_session_ends() {
    let auth = TestAuth::start().await;
    let old = auth.member("ana@example.org").await;

    assert_eq!(ask(&auth, "Ana@Example.org").await.status(), 202);
    let mails = auth.mails_to("ana@example.org", SUBJECT, 1).await;
    assert_eq!(confirm(&auth, mails[0].token(), "another horse").await.status(), 204);

    problem(auth.me(&old).await, 401, "session-ended").await;
    problem(auth.login("ana@example.org", "correct horse").await, 401, "bad-credentials").await;
    let answer = auth.login("ana@example.org", "another horse").await;
    assert_eq!(answer.status(), 200);
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["user"]["user_email_verified"], true, "the mail has shown whose the address is");
    auth.mails_to("ana@example.org", "Your password was changed", 1).await;
}

#[tokio::test]
async fn a_reset_counts_once_and_makes_the_others_void() {
    let auth = TestAuth::start().await;
    auth.member("ana@example.org").await;
    ask(&auth, "ana@example.org").await;
    ask(&auth, "ana@example.org").await;
    let mails = auth.mails_to("ana@example.org", SUBJECT, 2).await;

    let (one, two) =
        tokio::join!(confirm(&auth, mails[0].token(), "first horse"), confirm(&auth, mails[0].token(), "second horse"));

    let mut statuses = [one.status().as_u16(), two.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 403], "one token sets one password");
    problem(confirm(&auth, mails[1].token(), "third horse").await, 403, "link-invalid").await;
}

#[tokio::test]
async fn an_unknown_address_is_answered_alike_and_gets_no_mail() {
    let auth = TestAuth::start().await;
    auth.member("ana@example.org").await;

    let unknown = ask(&auth, "ben@example.org").await;
    let known = ask(&auth, "ana@example.org").await;

    assert_eq!((unknown.status(), known.status()), (202.try_into().unwrap(), 202.try_into().unwrap()));
    assert_eq!(unknown.text().await.unwrap(), known.text().await.unwrap());
    // It was asked for later, and mails are sent in their order.
    auth.mails_to("ana@example.org", SUBJECT, 1).await;
    assert!(auth.mails_now("ben@example.org", SUBJECT).is_empty());
}

#[tokio::test]
async fn an_address_gets_no_more_mails_than_its_share_known_or_not() {
    let auth = TestAuth::start().await;
    auth.member("ana@example.org").await;
    for email in ["ana@example.org", "ben@example.org"] {
        let answers = futures_util::future::join_all((0..8).map(|_| ask(&auth, email))).await;
        let accepted = answers.iter().filter(|answer| answer.status() == 202).count();
        assert_eq!(accepted, 5, "{email}");
        let refused = answers.into_iter().find(|answer| answer.status() != 202).unwrap();
        let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((3500..=3600).contains(&wait), "{wait}");
        problem(refused, 429, "too-many-mails").await;
    }
}

#[tokio::test]
async fn whoever_changes_the_password_is_told_by_mail() {
    let auth = TestAuth::start().await;
    let ana = auth.member("ana@example.org").await;
    let body = json!({"current_password": "correct horse", "new_password": "another horse"});

    assert_eq!(auth.send("/api/v1/auth/password", &ana, &body).await.status(), 204);

    let mail = auth.mails_to("ana@example.org", "Your password was changed", 1).await.remove(0);
    assert!(!mail.body.contains("token") && !mail.body.contains("horse"), "{}", mail.body);
}

#[tokio::test]
async fn nobody_asks_for_the_mails_of_a_whole_town() {
    let auth = TestAuth::start().await;
    let from = async |place: &str, number: usize| {
        let body = json!({"user_email": format!("ana{number}@example.org")});
        auth.post(ASK).header("x-forwarded-for", place).json(&body).send().await.unwrap()
    };
    for number in 0..50 {
        assert_eq!(from("192.0.2.1", number).await.status(), 202);
    }
    let refused = from("192.0.2.1", 50).await;
    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, 429, "too-many-attempts").await;
    assert_eq!(from("192.0.2.2", 50).await.status(), 202, "from elsewhere");
}

#[tokio::test]
async fn a_token_that_is_none_of_ours_or_for_something_else_or_too_old_sets_nothing() {
    let auth = TestAuth::start().await;
    auth.member("ana@example.org").await;
    ask(&auth, "ana@example.org").await;
    let reset = auth.mails_to("ana@example.org", SUBJECT, 1).await.remove(0);
    let verification = auth.mails_to("ana@example.org", "Confirm your e-mail address", 1).await.remove(0);
    let mut forged = reset.token().to_owned();
    forged.replace_range(40..41, if &forged[40..41] == "A" { "B" } else { "A" });

    for token in ["", "garbage", &forged, verification.token()] {
        problem(confirm(&auth, token, "another horse").await, 403, "link-invalid").await;
    }
    problem(confirm(&auth, reset.token(), "short").await, 422, "invalid-fields").await;
    auth.execute("update auth.mails set mail_expires_at = now()").await;
    problem(confirm(&auth, reset.token(), "another horse").await, 403, "link-invalid").await;
    assert_eq!(auth.login("ana@example.org", "correct horse").await.status(), 200);
}

#[tokio::test]
async fn what_is_no_address_is_told_so() {
    let auth = TestAuth::start().await;
    for wrong in ["", "ana", "ana@example.org\r\nBcc: ben@example.org", "ana@example.org,ben@example.org"] {
        problem(ask(&auth, wrong).await, 422, "invalid-fields").await;
    }
}
