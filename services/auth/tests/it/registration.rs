use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{TestAuth, problem};

const INVITATIONS: &str = "/api/v1/auth/invitations";

async fn by_invitation() -> TestAuth {
    TestAuth::with(&[("REGISTRATION", "invitation")]).await
}

async fn invite(auth: &TestAuth, admin: &str, body: Value) -> Value {
    let answer = auth.send(INVITATIONS, admin, &body).await;
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    answer.json().await.unwrap()
}

async fn register_with(auth: &TestAuth, email: &str, code: &str) -> Response {
    let body = json!({
        "user_email": email, "user_password": "correct horse", "user_fullname": "Ana Silva", "invitation_code": code,
    });
    auth.send("/api/v1/auth/register", "", &body).await
}

fn code_of(invitation: &Value) -> &str {
    invitation["invitation_code"].as_str().unwrap()
}

async fn withdraw(auth: &TestAuth, token: &str, id: &Value) -> Response {
    let url = format!("{}{INVITATIONS}/{}", auth.url, id.as_str().unwrap());
    auth.client.delete(url).bearer_auth(token).send().await.unwrap()
}

#[tokio::test]
async fn a_client_learns_who_may_register() {
    for (set, told) in [("open", "open"), ("invitation", "invitation"), ("closed", "closed"), ("", "open")] {
        let auth = TestAuth::with(&[("REGISTRATION", set)]).await;
        let config: Value = auth.get("/api/v1/auth/config").send().await.unwrap().json().await.unwrap();
        assert_eq!(config, json!({"registration": told, "password_min_length": 8, "password_max_length": 128}));
    }
}

#[tokio::test]
async fn where_registration_is_closed_nobody_registers_and_the_administrator_is_there() {
    let auth = TestAuth::with(&[("REGISTRATION", "closed")]).await;
    let admin = auth.administrator().await;
    let invitation = invite(&auth, &admin, json!({})).await;

    problem(auth.register("ana@example.org").await, 403, "registration-closed").await;
    problem(register_with(&auth, "ana@example.org", code_of(&invitation)).await, 403, "registration-closed").await;
}

#[tokio::test]
async fn by_invitation_only_who_has_a_code_registers_and_only_once() {
    let auth = by_invitation().await;
    let admin = auth.administrator().await;
    let invitation = invite(&auth, &admin, json!({})).await;

    problem(auth.register("ana@example.org").await, 403, "invitation-required").await;
    for wrong in ["", "garbage", &"A".repeat(64)] {
        problem(register_with(&auth, "ana@example.org", wrong).await, 403, "invitation-invalid").await;
    }
    let answer = register_with(&auth, "ana@example.org", code_of(&invitation)).await;
    assert_eq!(answer.status(), 201);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["user"]["user_role"], "Member");
    problem(register_with(&auth, "ben@example.org", code_of(&invitation)).await, 403, "invitation-invalid").await;

    let list: Value = auth.get(INVITATIONS).bearer_auth(&admin).send().await.unwrap().json().await.unwrap();
    assert_eq!(list["total"], 1);
    assert_eq!(list["items"][0]["used_by"], body["user"]["user_uuid"]);
    assert!(!list.to_string().contains(code_of(&invitation)));
}

#[tokio::test]
async fn of_several_who_use_an_invitation_at_once_one_registers() {
    let auth = by_invitation().await;
    let admin = auth.administrator().await;
    let invitation = invite(&auth, &admin, json!({})).await;
    let code = code_of(&invitation);

    let (one, two, three) = tokio::join!(
        register_with(&auth, "ana@example.org", code),
        register_with(&auth, "ben@example.org", code),
        register_with(&auth, "cem@example.org", code),
    );

    let mut statuses = [one.status().as_u16(), two.status().as_u16(), three.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 403, 403]);
}

#[tokio::test]
async fn a_registration_that_fails_uses_no_invitation_up() {
    let auth = by_invitation().await;
    let admin = auth.administrator().await;
    let invitation = invite(&auth, &admin, json!({})).await;

    problem(register_with(&auth, "admin@amphi.example", code_of(&invitation)).await, 409, "email-taken").await;
    problem(register_with(&auth, "no address", code_of(&invitation)).await, 422, "invalid-fields").await;

    assert_eq!(register_with(&auth, "ana@example.org", code_of(&invitation)).await.status(), 201);
}

#[tokio::test]
async fn an_invitation_to_an_address_is_mailed_to_it_and_for_it_alone() {
    let auth = by_invitation().await;
    let admin = auth.administrator().await;
    let body = json!({"user_email": "Ben@Example.org", "user_role": "Admin", "expires_in_hours": 1});
    let invitation = invite(&auth, &admin, body).await;

    let mail = auth.mails_to("ben@example.org", "You are invited", 1).await.remove(0);

    assert_eq!(mail.token(), code_of(&invitation));
    assert!(mail.body.contains("/register#token="), "{}", mail.body);
    problem(register_with(&auth, "ana@example.org", mail.token()).await, 403, "invitation-invalid").await;
    let answer = register_with(&auth, "BEN@example.org", mail.token()).await;
    assert_eq!(answer.status(), 201);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["user"]["user_role"], "Admin");
    let again = json!({"user_email": "ben@example.org"});
    problem(auth.send(INVITATIONS, &admin, &again).await, 409, "email-taken").await;
}

#[tokio::test]
async fn an_invitation_that_was_withdrawn_or_whose_time_is_over_does_not_count() {
    let auth = by_invitation().await;
    let admin = auth.administrator().await;
    let withdrawn = invite(&auth, &admin, json!({})).await;
    assert_eq!(withdraw(&auth, &admin, &withdrawn["invitation_id"]).await.status(), 204);
    let expired = invite(&auth, &admin, json!({})).await;
    auth.execute("update auth.invitations set invitation_expires_at = now()").await;

    for invitation in [&withdrawn, &expired] {
        problem(register_with(&auth, "ana@example.org", code_of(invitation)).await, 403, "invitation-invalid").await;
    }
    problem(withdraw(&auth, &admin, &withdrawn["invitation_id"]).await, 404, "no-such-invitation").await;
    problem(withdraw(&auth, &admin, &json!("garbage")).await, 404, "no-such-path").await;
}

#[tokio::test]
async fn an_invitation_counts_as_long_as_who_issued_it_is_an_administrator() {
    let auth = by_invitation().await;
    let admin = auth.administrator().await;
    let invitation = invite(&auth, &admin, json!({"user_role": "Admin"})).await;
    auth.execute("update auth.users set user_role = 'Member'").await;

    problem(register_with(&auth, "ana@example.org", code_of(&invitation)).await, 403, "invitation-invalid").await;
    problem(auth.send(INVITATIONS, &admin, &json!({})).await, 403, "forbidden").await;
}

#[tokio::test]
async fn only_administrators_deal_with_invitations() {
    let auth = TestAuth::start().await;
    let ana = auth.member("ana@example.org").await;
    let admin = auth.administrator().await;
    let invitation = invite(&auth, &admin, json!({})).await;

    problem(auth.send(INVITATIONS, &ana, &json!({})).await, 403, "forbidden").await;
    problem(auth.get(INVITATIONS).bearer_auth(&ana).send().await.unwrap(), 403, "forbidden").await;
    problem(withdraw(&auth, &ana, &invitation["invitation_id"]).await, 403, "forbidden").await;
    problem(auth.send(INVITATIONS, "", &json!({})).await, 401, "token-missing").await;
    for wrong in [json!({"user_email": "ana"}), json!({"expires_in_hours": 0}), json!({"expires_in_hours": 8761})] {
        problem(auth.send(INVITATIONS, &admin, &wrong).await, 422, "invalid-fields").await;
    }
    let too_far = auth.get(&format!("{INVITATIONS}?limit=101")).bearer_auth(&admin).send().await.unwrap();
    problem(too_far, 422, "invalid-fields").await;
}

#[tokio::test]
async fn a_dump_of_the_database_holds_no_code() {
    let auth = by_invitation().await;
    let admin = auth.administrator().await;
    let invitation = invite(&auth, &admin, json!({"user_email": "ben@example.org"})).await;

    let dump = crate::operators::dump(&auth.database.url).await;

    assert!(dump.contains(invitation["invitation_id"].as_str().unwrap()), "the id is no secret");
    assert!(!dump.contains(&code_of(&invitation)[22..]));
}
