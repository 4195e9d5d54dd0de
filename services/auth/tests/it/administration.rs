use common::Role;
use common::trust::Trust;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{ADMIN, Feed, TestAuth, claims_of, problem, token_of};

fn path_of(token: &str, rest: &str) -> String {
    format!("/api/v1/auth/users/{}{rest}", claims_of(token)["sub"].as_str().unwrap())
}

async fn set_role(auth: &TestAuth, admin: &str, token: &str, role: &str) -> Response {
    let request = auth.ask(Method::PUT, &path_of(token, "/role"), admin);
    request.json(&json!({"user_role": role})).send().await.unwrap()
}

async fn suspend(auth: &TestAuth, admin: &str, token: &str) -> Response {
    let request = auth.ask(Method::PUT, &path_of(token, "/suspension"), admin);
    request.json(&json!({"reason": "Sold stolen lessons."})).send().await.unwrap()
}

async fn reinstate(auth: &TestAuth, admin: &str, token: &str) -> Response {
    auth.ask(Method::DELETE, &path_of(token, "/suspension"), admin).send().await.unwrap()
}

/// Waits until a feed says that the user of `token` has this role.
async fn find_role(feed: &mut Feed, token: &str, role: Role) {
    let claims = claims_of(token);
    feed.find("the role", |line| {
        let (Trust::Roles { roles } | Trust::Snapshot { roles, .. }) = line else { return None };
        let told = roles.iter().find(|told| json!(told.sub) == claims["sub"] && told.role == role)?;
        assert!(told.until >= claims["exp"].as_i64().unwrap(), "it is told as long as the token could be used");
        Some(())
    })
    .await;
}

#[tokio::test]
async fn administrators_list_and_find_users() {
    let auth = TestAuth::with(&ADMIN).await;
    let admin = auth.admin().await;
    for name in ["ana", "ben", "per_cent"] {
        auth.register(&format!("{name}@example.org")).await;
    }
    let list = async |query: &str| {
        let answer = auth.ask(Method::GET, &format!("/api/v1/auth/users{query}"), &admin).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let body: Value = answer.json().await.unwrap();
        let emails = body["items"].as_array().unwrap().iter().map(|user| user["user_email"].as_str().unwrap());
        (emails.map(|email| email.split('@').next().unwrap().to_owned()).collect::<Vec<_>>(), body["total"].clone())
    };

    assert_eq!(list("").await, (["root", "ana", "ben", "per_cent"].map(str::to_owned).to_vec(), json!(4)));
    assert_eq!(list("?page=2&limit=3").await, (vec!["per_cent".to_owned()], json!(4)));
    assert_eq!(list("?search=BEN@").await, (vec!["ben".to_owned()], json!(1)));
    assert_eq!(list("?search=silva").await.1, json!(3));
    assert_eq!(list("?search=_").await.0, ["per_cent"]);
    assert_eq!(list("?search=%25").await.1, json!(0));

    let wrong = auth.ask(Method::GET, "/api/v1/auth/users?limit=1000", &admin).send().await.unwrap();
    problem(wrong, 422, "invalid-fields").await;
    let null = auth.ask(Method::GET, "/api/v1/auth/users?search=%00", &admin).send().await.unwrap();
    problem(null, 422, "invalid-fields").await;
    let one = auth.ask(Method::GET, &path_of(&admin, ""), &admin).send().await.unwrap();
    assert_eq!(one.json::<Value>().await.unwrap()["user_role"], "Admin");
    let nobody = format!("/api/v1/auth/users/{}", common::UserId::new());
    problem(auth.ask(Method::GET, &nobody, &admin).send().await.unwrap(), 404, "no-such-user").await;
}

#[tokio::test]
async fn nobody_else_manages_users_whatever_their_token_says() {
    let auth = TestAuth::with(&ADMIN).await;
    let admin = auth.admin().await;
    let member = token_of(auth.register("ana@example.org").await).await;
    let former = token_of(auth.register("ben@example.org").await).await;
    assert_eq!(set_role(&auth, &admin, &former, "Admin").await.status(), 200);
    let former = token_of(auth.login("ben@example.org", "correct horse").await).await;
    assert_eq!(claims_of(&former)["role"], "Admin");
    assert_eq!(set_role(&auth, &admin, &former, "Member").await.status(), 200);

    for token in [&member, &former] {
        for path in ["/api/v1/auth/users", &path_of(&admin, "")] {
            problem(auth.ask(Method::GET, path, token).send().await.unwrap(), 403, "forbidden").await;
        }
        problem(set_role(&auth, token, token, "Admin").await, 403, "forbidden").await;
        problem(suspend(&auth, token, &admin).await, 403, "forbidden").await;
        problem(reinstate(&auth, token, &admin).await, 403, "forbidden").await;
    }
    problem(auth.get("/api/v1/auth/users").send().await.unwrap(), 401, "token-missing").await;
}

#[tokio::test]
async fn another_role_holds_everywhere_and_logs_nobody_out() {
    let auth = TestAuth::with(&ADMIN).await;
    let other = auth.instance(&[]).await;
    let admin = auth.admin().await;
    let token = token_of(auth.register("ana@example.org").await).await;
    let mut feed = Feed::open(&other.url).await;

    assert_eq!(set_role(&auth, &admin, &token, "Admin").await.status(), 200);
    find_role(&mut feed, &token, Role::Admin).await;
    let me: Value = auth.me(&token).await.json().await.unwrap();
    assert_eq!(me["user_role"], "Admin");
    assert_eq!(set_role(&auth, &token, &admin, "Member").await.status(), 200, "with the token of before");

    assert_eq!(set_role(&auth, &token, &admin, "Admin").await.status(), 200);
    assert_eq!(set_role(&auth, &admin, &token, "Member").await.status(), 200);
    assert_eq!(set_role(&auth, &admin, &token, "Member").await.status(), 200, "a repeat changes nothing");
    find_role(&mut feed, &token, Role::Member).await;
    find_role(&mut auth.feed().await, &token, Role::Member).await;
    eventually("events tell of each change", async || {
        (auth.published("auth.user.role_changed.v1").await == 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_suspended_user_is_out_at_once_and_comes_back_when_reinstated() {
    let auth = TestAuth::with(&ADMIN).await;
    let admin = auth.admin().await;
    let answer: Value = auth.register("ana@example.org").await.json().await.unwrap();
    let token = answer["token"].as_str().unwrap();
    let mut feed = auth.feed().await;

    let suspended: Value = suspend(&auth, &admin, token).await.json().await.unwrap();

    assert_eq!(suspended["user_suspended_reason"], "Sold stolen lessons.");
    feed.find_ended(token).await;
    problem(auth.me(token).await, 401, "session-ended").await;
    let refresh = auth.post("/api/v1/auth/refresh").json(&json!({"refresh_token": answer["refresh_token"]}));
    problem(refresh.send().await.unwrap(), 401, "refresh-token-invalid").await;
    problem(auth.login("ana@example.org", "a guess").await, 401, "bad-credentials").await;
    let told = problem(auth.login("ana@example.org", "correct horse").await, 403, "account-suspended").await;
    assert!(told["detail"].as_str().unwrap().contains("Sold stolen lessons."), "{told}");
    assert_eq!(suspend(&auth, &admin, token).await.status(), 200, "a repeat changes nothing");

    assert_eq!(reinstate(&auth, &admin, token).await.status(), 204);
    assert_eq!(reinstate(&auth, &admin, token).await.status(), 204, "a repeat changes nothing");

    assert_eq!(auth.login("ana@example.org", "correct horse").await.status(), 200);
    problem(auth.me(token).await, 401, "session-ended").await;
    eventually("events tell of it, once each", async || {
        let events = (auth.published("auth.user.suspended.v1").await, auth.published("auth.user.reinstated.v1").await);
        (events == (1, 1)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn there_is_always_an_administrator() {
    let auth = TestAuth::with(&ADMIN).await;
    let admin = auth.admin().await;
    problem(set_role(&auth, &admin, &admin, "Member").await, 409, "last-administrator").await;
    problem(suspend(&auth, &admin, &admin).await, 409, "last-administrator").await;

    let second = token_of(auth.register("ana@example.org").await).await;
    assert_eq!(set_role(&auth, &admin, &second, "Admin").await.status(), 200);
    assert_eq!(suspend(&auth, &admin, &second).await.status(), 200);
    problem(set_role(&auth, &admin, &admin, "Member").await, 409, "last-administrator").await;
    assert_eq!(reinstate(&auth, &admin, &second).await.status(), 204);
    let second = token_of(auth.login("ana@example.org", "correct horse").await).await;

    // Each shuts the other out, at once.
    let (one, two) = tokio::join!(suspend(&auth, &admin, &second), suspend(&auth, &second, &admin));

    let statuses = [one.status().as_u16(), two.status().as_u16()];
    assert!(statuses.contains(&200) && (statuses.contains(&401) || statuses.contains(&409)), "{statuses:?}");
    let active = "select 1 from users where user_role = 'Admin' and user_suspended_at is null";
    assert_eq!(auth.sql(active).await.len(), 1);
}

#[tokio::test]
async fn a_login_that_races_a_suspension_never_survives_it() {
    let auth = TestAuth::with(&ADMIN).await;
    let admin = auth.admin().await;
    let token = token_of(auth.register("ana@example.org").await).await;

    for _ in 0..5 {
        let logins = futures_util::future::join_all((0..4).map(|_| auth.login("ana@example.org", "correct horse")));
        let (logins, suspended) = tokio::join!(logins, suspend(&auth, &admin, &token));
        assert_eq!(suspended.status(), 200);
        for login in logins {
            if login.status() == 200 {
                problem(auth.me(&token_of(login).await).await, 401, "session-ended").await;
            } else {
                problem(login, 403, "account-suspended").await;
            }
        }
        assert_eq!(
            auth.sql("select 1 from sessions join users using (user_uuid) where user_email ~ 'ana'").await.len(),
            0
        );
        assert_eq!(reinstate(&auth, &admin, &token).await.status(), 204);
    }
}

#[tokio::test]
async fn what_an_administrator_sends_is_checked() {
    let auth = TestAuth::with(&ADMIN).await;
    let admin = auth.admin().await;
    let token = token_of(auth.register("ana@example.org").await).await;

    problem(set_role(&auth, &admin, &token, "King").await, 400, "bad-request").await;
    for reason in ["", "  ", "a\u{0}b", &"x".repeat(501)] {
        let request = auth.ask(Method::PUT, &path_of(&token, "/suspension"), &admin).json(&json!({"reason": reason}));
        problem(request.send().await.unwrap(), 422, "invalid-fields").await;
    }
    let nobody = format!("/api/v1/auth/users/{}/role", common::UserId::new());
    let request = auth.ask(Method::PUT, &nobody, &admin).json(&json!({"user_role": "Admin"}));
    problem(request.send().await.unwrap(), 404, "no-such-user").await;
}
