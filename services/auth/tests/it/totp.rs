use reqwest::Response;
use serde_json::{Value, json};
use totp_rs::{Builder, Secret, Totp};

use crate::support::{TestAuth, problem};

const TOTP: &str = "/api/v1/auth/totp";
const CONFIRM: &str = "/api/v1/auth/totp/confirm";
const RECOVERY_CODES: &str = "/api/v1/auth/totp/recovery-codes";

/// Somebody with an authenticator app.
struct Protected {
    token: String,
    app: Totp,
    secret: String,
    recovery_codes: Vec<String>,
}

impl Protected {
    /// The code of the step `later` than now. A step lasts 30 s.
    fn code(&self, later: i64) -> String {
        code_of(&self.app, later)
    }
}

fn code_of(app: &Totp, later: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    app.generate(now.checked_add_signed(later * 30).unwrap()).to_string()
}

/// An authenticator app with this secret.
fn app_of(secret: &str) -> Totp {
    Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).with_account_name("ana").build().unwrap()
}

async fn begin(auth: &TestAuth, token: &str) -> Value {
    let answer = auth.send(TOTP, token, &json!({"user_password": "correct horse"})).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    answer.json().await.unwrap()
}

async fn codes_of(answer: Response) -> Vec<String> {
    assert_eq!(answer.status(), 200);
    let body: Value = answer.json().await.unwrap();
    serde_json::from_value(body["recovery_codes"].clone()).unwrap()
}

/// Ana, whose account was just protected. Her next logins may use any code of these minutes.
async fn protected(auth: &TestAuth) -> Protected {
    let token = auth.member("ana@example.org").await;
    let secret = begin(auth, &token).await["secret"].as_str().unwrap().to_owned();
    let app = app_of(&secret);
    let recovery_codes = codes_of(auth.send(CONFIRM, &token, &json!({"code": code_of(&app, 0)})).await).await;
    forget_used_codes(auth).await;
    Protected { token, app, secret, recovery_codes }
}

async fn forget_used_codes(auth: &TestAuth) {
    auth.execute("update auth.users set user_totp_last_step = 0").await;
}

async fn login(auth: &TestAuth, factor: Value) -> Response {
    let mut body = json!({"user_email": "ana@example.org", "user_password": "correct horse"});
    body.as_object_mut().unwrap().extend(factor.as_object().unwrap().clone());
    auth.send("/api/v1/auth/login", "", &body).await
}

async fn disable(auth: &TestAuth, token: &str, body: &Value) -> Response {
    auth.client.delete(format!("{}{TOTP}", auth.url)).bearer_auth(token).json(body).send().await.unwrap()
}

#[tokio::test]
async fn a_protected_account_opens_with_password_and_code_only() {
    let auth = TestAuth::start().await;
    let ana = protected(&auth).await;

    problem(login(&auth, json!({})).await, 401, "totp-required").await;
    for wrong in ["12345", "abcdef"] {
        problem(login(&auth, json!({"totp_code": wrong})).await, 401, "totp-wrong").await;
    }
    problem(login(&auth, json!({"totp_code": ana.code(10)})).await, 401, "totp-wrong").await;
    let answer = login(&auth, json!({"totp_code": ana.code(0)})).await;
    assert_eq!(answer.status(), 200);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["user"]["user_totp_enabled"], true);
}

#[tokio::test]
async fn without_the_password_nobody_learns_that_an_account_is_protected() {
    let auth = TestAuth::start().await;
    let ana = protected(&auth).await;
    for factor in [json!({}), json!({"totp_code": ana.code(0)}), json!({"recovery_code": ana.recovery_codes[0]})] {
        let mut body = json!({"user_email": "ana@example.org", "user_password": "incorrect horse"});
        body.as_object_mut().unwrap().extend(factor.as_object().unwrap().clone());
        problem(auth.send("/api/v1/auth/login", "", &body).await, 401, "bad-credentials").await;
    }
    let code = json!({"recovery_code": ana.recovery_codes[0]});
    assert_eq!(login(&auth, code).await.status(), 200, "a wrong password uses nothing up");
}

#[tokio::test]
async fn a_code_is_taken_once_however_many_try_at_once() {
    let auth = TestAuth::start().await;
    let ana = protected(&auth).await;
    let code = json!({"totp_code": ana.code(1)});

    let (one, two, three) =
        tokio::join!(login(&auth, code.clone()), login(&auth, code.clone()), login(&auth, code.clone()));

    let mut statuses = [one.status().as_u16(), two.status().as_u16(), three.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401, 401]);
    problem(login(&auth, json!({"totp_code": ana.code(0)})).await, 401, "totp-wrong").await;
}

#[tokio::test]
async fn a_recovery_code_stands_in_once_however_it_is_typed() {
    let auth = TestAuth::start().await;
    let ana = protected(&auth).await;
    assert_eq!(ana.recovery_codes.len(), 10);

    let typed = ana.recovery_codes[3].to_uppercase().replace('-', " ");
    let (one, two) = tokio::join!(
        login(&auth, json!({"recovery_code": typed})),
        login(&auth, json!({"recovery_code": ana.recovery_codes[3]})),
    );

    let mut statuses = [one.status().as_u16(), two.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401]);
    assert_eq!(login(&auth, json!({"recovery_code": ana.recovery_codes[4]})).await.status(), 200);
    problem(login(&auth, json!({"recovery_code": "00000-00000-00000-00000"})).await, 401, "totp-wrong").await;
}

#[tokio::test]
async fn a_secret_counts_only_once_a_code_has_confirmed_it() {
    let auth = TestAuth::start().await;
    let ana = auth.member("ana@example.org").await;
    problem(auth.send(CONFIRM, &ana, &json!({"code": "123456"})).await, 409, "totp-not-enabled").await;

    let first = begin(&auth, &ana).await;
    assert_eq!(login(&auth, json!({})).await.status(), 200, "not confirmed yet");
    let second = begin(&auth, &ana).await;
    let url = second["otpauth_url"].as_str().unwrap();
    assert!(url.starts_with("otpauth://totp/Amphi:ana%40example.org?"), "{url}");
    let app = Totp::from_url(url).unwrap();
    assert_eq!(app.secret().to_base32(), second["secret"].as_str().unwrap());
    let stale = app_of(first["secret"].as_str().unwrap());
    problem(auth.send(CONFIRM, &ana, &json!({"code": code_of(&stale, 0)})).await, 401, "totp-wrong").await;
    codes_of(auth.send(CONFIRM, &ana, &json!({"code": code_of(&app, 0)})).await).await;

    problem(login(&auth, json!({})).await, 401, "totp-required").await;
    problem(auth.send(TOTP, &ana, &json!({"user_password": "correct horse"})).await, 409, "totp-enabled").await;
    problem(auth.send(CONFIRM, &ana, &json!({"code": code_of(&app, 1)})).await, 409, "totp-enabled").await;
}

#[tokio::test]
async fn an_authenticator_is_taken_away_with_password_and_code() {
    let auth = TestAuth::start().await;
    let ana = protected(&auth).await;

    let wrong = json!({"user_password": "incorrect horse", "code": ana.code(0)});
    problem(disable(&auth, &ana.token, &wrong).await, 401, "bad-credentials").await;
    problem(disable(&auth, &ana.token, &json!({"user_password": "correct horse"})).await, 401, "totp-required").await;
    let right = json!({"user_password": "correct horse", "recovery_code": ana.recovery_codes[0]});
    assert_eq!(disable(&auth, &ana.token, &right).await.status(), 204);

    assert_eq!(login(&auth, json!({})).await.status(), 200);
    problem(disable(&auth, &ana.token, &right).await, 409, "totp-not-enabled").await;
    let secret = begin(&auth, &ana.token).await["secret"].as_str().unwrap().to_owned();
    assert_ne!(secret, ana.secret);
}

#[tokio::test]
async fn new_recovery_codes_replace_the_old_ones() {
    let auth = TestAuth::start().await;
    let ana = protected(&auth).await;
    let wrong = json!({"user_password": "correct horse", "code": ana.code(10)});
    problem(auth.send(RECOVERY_CODES, &ana.token, &wrong).await, 401, "totp-wrong").await;

    let body = json!({"user_password": "correct horse", "code": ana.code(0)});
    let codes = codes_of(auth.send(RECOVERY_CODES, &ana.token, &body).await).await;

    problem(login(&auth, json!({"recovery_code": ana.recovery_codes[0]})).await, 401, "totp-wrong").await;
    assert_eq!(login(&auth, json!({"recovery_code": codes[0]})).await.status(), 200);
}

#[tokio::test]
async fn codes_are_guessed_slowly_from_wherever_one_guesses() {
    let auth = TestAuth::start().await;
    let ana = protected(&auth).await;
    let guess = async |place: usize, code: &str| {
        let body = json!({"user_email": "ana@example.org", "user_password": "correct horse", "totp_code": code});
        let request = auth.post("/api/v1/auth/login").header("x-forwarded-for", format!("192.0.2.{place}"));
        request.json(&body).send().await.unwrap()
    };
    for place in 0..10 {
        problem(guess(place, "000000").await, 401, "totp-wrong").await;
    }

    let refused = guess(10, &ana.code(0)).await;

    assert!(refused.headers().contains_key("retry-after"));
    problem(refused, 429, "too-many-attempts").await;
}

#[tokio::test]
async fn a_reset_of_the_password_does_not_get_past_the_authenticator() {
    let auth = TestAuth::start().await;
    let ana = protected(&auth).await;
    auth.send("/api/v1/auth/password-reset", "", &json!({"user_email": "ana@example.org"})).await;
    let mail = auth.mails_to("ana@example.org", "Set a new password", 1).await.remove(0);
    let body = json!({"token": mail.token(), "new_password": "correct horse"});
    assert_eq!(auth.send("/api/v1/auth/password-reset/confirm", "", &body).await.status(), 204);

    problem(login(&auth, json!({})).await, 401, "totp-required").await;
    assert_eq!(login(&auth, json!({"totp_code": ana.code(0)})).await.status(), 200);
}

#[tokio::test]
async fn a_dump_of_the_database_makes_no_codes() {
    let auth = TestAuth::start().await;
    let ana = protected(&auth).await;

    let dump = crate::operators::dump(&auth.database.url).await.to_lowercase();

    assert!(dump.contains("ana@example.org"), "the dump is one");
    let hex: String = ana.app.secret().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let plain_code = ana.recovery_codes[0].replace('-', "");
    for secret in [&ana.secret.to_lowercase(), &hex, &ana.recovery_codes[0], &plain_code] {
        assert!(!dump.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_protected_account_opens_after_a_restart() {
    let auth = TestAuth::start().await;
    let ana = protected(&auth).await;
    let auth = auth.restart().await;
    assert_eq!(login(&auth, json!({"totp_code": ana.code(0)})).await.status(), 200);
}
