use reqwest::Response;
use serde_json::json;
use testkit::{Redis, eventually};

use crate::support::{TestAuth, problem, token_of};

async fn login_from(auth: &TestAuth, url: &str, address: &str, email: &str, password: &str) -> Response {
    let body = json!({"user_email": email, "user_password": password});
    let login = auth.client.post(format!("{url}/api/v1/auth/login")).json(&body);
    login.header("x-forwarded-for", address).send().await.unwrap()
}

/// Guesses until there is a pause of at least two seconds, which does not pass by itself while we look.
async fn guess_until_refused(auth: &TestAuth, url: &str, address: &str) -> u64 {
    eventually("the next guess has to wait", async || {
        let answer = login_from(auth, url, address, "ana@example.org", "a guess").await;
        if answer.status() == 401 {
            return None;
        }
        let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        problem(answer, 429, "too-many-attempts").await;
        (wait >= 3).then_some(wait)
    })
    .await
}

#[tokio::test]
async fn whoever_guesses_waits_ever_longer_and_the_owner_elsewhere_does_not() {
    let auth = TestAuth::start().await;
    auth.register("ana@example.org").await;
    for _ in 0..5 {
        problem(login_from(&auth, &auth.url, "192.0.2.1", "ana@example.org", "a guess").await, 401, "bad-credentials")
            .await;
    }
    let wait = guess_until_refused(&auth, &auth.url, "192.0.2.1").await;
    assert!(wait <= 15 * 60);

    let right = login_from(&auth, &auth.url, "192.0.2.1", "ana@example.org", "correct horse").await;
    problem(right, 429, "too-many-attempts").await;
    let owner = login_from(&auth, &auth.url, "192.0.2.2", "ana@example.org", "correct horse").await;
    assert_eq!(owner.status(), 200);
    let another = login_from(&auth, &auth.url, "192.0.2.1", "ben@example.org", "a guess").await;
    problem(another, 401, "bad-credentials").await;
}

#[tokio::test]
async fn an_unknown_address_is_refused_as_a_known_one_is() {
    let auth = TestAuth::start().await;
    auth.register("ana@example.org").await;
    let statuses = async |email: &str, address: &str| {
        let mut statuses = Vec::new();
        for _ in 0..7 {
            statuses.push(login_from(&auth, &auth.url, address, email, "a guess").await.status().as_u16());
        }
        statuses
    };
    let known = statuses("ana@example.org", "192.0.2.1").await;
    assert_eq!(known, statuses("ben@example.org", "192.0.2.2").await);
    assert_eq!(known, [401, 401, 401, 401, 401, 429, 429]);
}

#[tokio::test]
async fn a_success_is_forgotten_and_so_are_the_failures_before() {
    let auth = TestAuth::start().await;
    auth.register("ana@example.org").await;
    for _ in 0..4 {
        for _ in 0..4 {
            let answer = login_from(&auth, &auth.url, "192.0.2.1", "ana@example.org", "a guess").await;
            problem(answer, 401, "bad-credentials").await;
        }
        let answer = login_from(&auth, &auth.url, "192.0.2.1", "ana@example.org", "correct horse").await;
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test]
async fn guesses_at_many_accounts_from_one_place_are_limited_too() {
    let auth = TestAuth::start().await;
    let mut statuses = Vec::new();
    for n in 0..51 {
        // Of one customer: the last 64 bits are theirs to choose.
        let address = format!("2001:db8:1:2::{n}");
        let answer = login_from(&auth, &auth.url, &address, &format!("user{n}@example.org"), "a guess").await;
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses[..50], [401; 50]);
    assert_eq!(statuses[50], 429);
}

#[tokio::test]
async fn whoever_attacks_one_account_from_everywhere_does_not_lock_its_owner_out() {
    let auth = TestAuth::start().await;
    auth.register("ana@example.org").await;
    let home = "198.51.100.1";
    assert_eq!(login_from(&auth, &auth.url, home, "ana@example.org", "correct horse").await.status(), 200);
    let guess = async |n: u32| {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string();
        login_from(&auth, &auth.url, &address, "ana@example.org", "a guess").await
    };
    let mut places = 0;
    let refused = eventually("new places are refused too", async || {
        let answers = futures_util::future::join_all((places..places + 30).map(&guess)).await;
        places += 30;
        answers.into_iter().find(|answer| answer.status() == 429)
    })
    .await;
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(wait <= 10, "others wait no longer than that: {wait}");

    assert_eq!(login_from(&auth, &auth.url, home, "ana@example.org", "correct horse").await.status(), 200);
}

#[tokio::test]
async fn attempts_are_counted_across_instances_and_by_each_alone_while_redis_is_away() {
    let redis = Redis::private().await;
    let redis_url = redis.url();
    let auth = TestAuth::with(&[("REDIS_URL", &redis_url)]).await;
    let other = auth.instance(&[("REDIS_URL", &redis_url)]).await;
    let token = token_of(auth.register("ana@example.org").await).await;
    guess_until_refused(&auth, &auth.url, "192.0.2.1").await;
    let elsewhere = login_from(&auth, &other.url, "192.0.2.1", "ana@example.org", "a guess").await;
    problem(elsewhere, 429, "too-many-attempts").await;
    let dump = redis_keys(&redis_url).await;
    assert!(dump.contains("auth:pair:") && !dump.contains("ana@"), "{dump}");

    redis.kill().await;

    let first = login_from(&auth, &other.url, "192.0.2.1", "ana@example.org", "a guess").await;
    problem(first, 401, "bad-credentials").await;
    guess_until_refused(&auth, &other.url, "192.0.2.1").await;
    let owner = login_from(&auth, &other.url, "192.0.2.2", "ana@example.org", "correct horse").await;
    assert_eq!(owner.status(), 200);
    assert_eq!(auth.me(&token).await.status(), 200);
}

async fn redis_keys(url: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut socket = tokio::net::TcpStream::connect(url.trim_start_matches("redis://")).await.unwrap();
    socket.write_all(b"KEYS *\r\nQUIT\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}
