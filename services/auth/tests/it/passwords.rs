use std::time::{Duration, Instant};

use argon2::password_hash::PasswordHasher as _;
use reqwest::Response;
use serde_json::json;

use crate::support::{TestAuth, problem, token_of};

async fn change(auth: &TestAuth, token: &str, current: &str, new: &str) -> Response {
    let body = json!({"current_password": current, "new_password": new});
    auth.post("/api/v1/auth/password").bearer_auth(token).json(&body).send().await.unwrap()
}

#[tokio::test]
async fn a_changed_password_is_the_only_one_and_ends_all_other_sessions() {
    let auth = TestAuth::start().await;
    let here = token_of(auth.register("ana@example.org").await).await;
    let elsewhere = token_of(auth.login("ana@example.org", "correct horse").await).await;
    let mut feed = auth.feed().await;

    assert_eq!(change(&auth, &here, "correct horse", "battery staple").await.status(), 204);

    feed.find_ended(&elsewhere).await;
    problem(auth.me(&elsewhere).await, 401, "session-ended").await;
    assert_eq!(auth.me(&here).await.status(), 200);
    problem(auth.login("ana@example.org", "correct horse").await, 401, "bad-credentials").await;
    assert_eq!(auth.login("ana@example.org", "battery staple").await.status(), 200);
}

#[tokio::test]
async fn only_whoever_knows_the_password_changes_it_and_guessing_is_limited() {
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;

    for _ in 0..5 {
        problem(change(&auth, &token, "a guess", "battery staple").await, 401, "bad-credentials").await;
    }
    let limited = change(&auth, &token, "a guess", "battery staple").await;
    assert!(limited.headers().contains_key("retry-after"));
    problem(limited, 429, "too-many-attempts").await;
    let short = problem(change(&auth, &token, "correct horse", "short").await, 422, "invalid-fields").await;
    assert!(short["fields"].get("new_password").is_some(), "{short}");
    let nobody = auth.post("/api/v1/auth/password").json(&json!({"current_password": "", "new_password": ""}));
    problem(nobody.send().await.unwrap(), 401, "token-missing").await;
}

#[tokio::test]
async fn of_two_changes_at_once_one_holds() {
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;

    let (one, two) = tokio::join!(
        change(&auth, &token, "correct horse", "battery staple one"),
        change(&auth, &token, "correct horse", "battery staple two"),
    );

    let mut statuses = [one.status().as_u16(), two.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 401]);
}

#[tokio::test]
async fn a_password_that_was_hashed_with_less_is_hashed_again_at_login() {
    let auth = TestAuth::start().await;
    auth.register("ana@example.org").await;
    let weak = argon2::Params::new(4 * 1024, 1, 1, None).unwrap();
    let weak = argon2::Argon2::from(weak).hash_password(b"correct horse").unwrap().to_string();
    auth.sql(&format!("update users set user_password = '{weak}' where user_email = 'ana@example.org'")).await;
    let stored =
        async || auth.sql("select user_password from users where user_email = 'ana@example.org'").await[0][0].clone();

    problem(auth.login("ana@example.org", "a guess").await, 401, "bad-credentials").await;
    assert_eq!(stored().await, weak);
    assert_eq!(auth.login("ana@example.org", "correct horse").await.status(), 200);

    let strong = stored().await;
    assert!(strong.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{strong}");
    assert_eq!(auth.login("ana@example.org", "correct horse").await.status(), 200);
    assert_eq!(stored().await, strong, "once is enough");
}

#[tokio::test]
async fn more_logins_than_can_wait_are_refused_at_once_and_say_when_to_come_back() {
    let auth = TestAuth::with(&[("PASSWORD_WORKERS", "1")]).await;
    let guess = async |n: usize| {
        let body = json!({"email": format!("user{n}@example.org"), "password": "a guess"});
        let login = auth.post("/api/v1/auth/login").json(&body);
        login.header("x-forwarded-for", format!("192.0.2.{n}")).send().await.unwrap()
    };

    let answers = futures_util::future::join_all((0..200).map(guess)).await;

    let (refused, checked): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status() == 503);
    assert!(!refused.is_empty() && checked.len() > 10, "{} {}", refused.len(), checked.len());
    for answer in refused {
        assert!(answer.headers().contains_key("retry-after"));
        problem(answer, 503, "unavailable").await;
    }
    for answer in checked {
        problem(answer, 401, "bad-credentials").await;
    }
}

/// Run it alone, on a machine with nothing else to do:
/// `cargo nextest run --release -p auth --run-ignored only two_hundred_bad_logins --no-capture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "it measures time"]
async fn two_hundred_bad_logins_a_second_leave_other_routes_alone() {
    const PHASE: Duration = Duration::from_secs(8);
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;
    // Each from another place at another account: so none is throttled.
    let guess = async |n: u32| {
        let body = json!({"email": format!("user{n}@example.org"), "password": "a guess"});
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string();
        let login = auth.post("/api/v1/auth/login").json(&body).header("x-forwarded-for", address);
        login.send().await.unwrap().status().as_u16()
    };
    let look = async |path: &str| {
        let start = Instant::now();
        let answer = auth.get(path).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
        start.elapsed()
    };

    let mut figures = Vec::new();
    let mut guesses = 0;
    for round in 0..6 {
        let is_flooded = round % 2 == 1;
        let flood = async {
            let mut statuses = Vec::new();
            if is_flooded {
                let range = guesses..guesses + 200 * PHASE.as_secs() as u32;
                statuses = paced(Duration::from_millis(5), range, &guess).await;
            }
            statuses
        };
        let looks = u32::try_from(PHASE.as_millis() / 20).unwrap();
        let me = paced(Duration::from_millis(20), 0..looks, |_| look("/api/v1/auth/me"));
        let jwks = paced(Duration::from_millis(20), 0..looks, |_| look("/.well-known/jwks.json"));
        let (statuses, me, jwks) = tokio::join!(flood, me, jwks);
        guesses += u32::try_from(statuses.len()).unwrap();
        let checked = statuses.iter().filter(|status| **status == 401).count();
        println!(
            "{} checked, {} refused; me: {}; jwks: {}",
            checked,
            statuses.len() - checked,
            summary(&me),
            summary(&jwks)
        );
        figures.push((p99(&me), p99(&jwks)));
    }

    let best = |flooded: usize, of: fn(&(Duration, Duration)) -> Duration| {
        figures.iter().skip(flooded).step_by(2).map(of).min().unwrap()
    };
    for (route, of) in [("me", (|p99| p99.0) as fn(&(Duration, Duration)) -> Duration), ("jwks", |p99| p99.1)] {
        let (calm, flooded) = (best(0, of), best(1, of));
        println!("{route}: p99 {calm:?}, under the flood {flooded:?}");
        assert!(flooded <= calm * 2, "{route}: {flooded:?} is more than twice {calm:?}");
    }
}

/// Run it alone, as the one above.
#[tokio::test]
#[ignore = "it measures time"]
async fn a_known_and_an_unknown_address_are_refused_in_the_same_time() {
    let auth = TestAuth::start().await;
    auth.register("ana@example.org").await;
    let guess = async |n: u32, email: &str| {
        let body = json!({"email": email, "password": "a guess"});
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string();
        let start = Instant::now();
        let login = auth.post("/api/v1/auth/login").json(&body).header("x-forwarded-for", address);
        problem(login.send().await.unwrap(), 401, "bad-credentials").await;
        start.elapsed()
    };

    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for n in 0..90 {
        // Each goes first as often as the other.
        if n % 2 == 0 {
            known.push(guess(n, "ana@example.org").await);
        }
        unknown.push(guess(1000 + n, "ben@example.org").await);
        if n % 2 == 1 {
            known.push(guess(n, "ana@example.org").await);
        }
    }

    println!("known: {}; unknown: {}", summary(&known), summary(&unknown));
    known.sort_unstable();
    unknown.sort_unstable();
    // The quicker half tells of our work, the slower of what else the machine does.
    let difference = known[22].abs_diff(unknown[22]);
    assert!(difference < known[22] / 20, "the lower quartiles differ by {difference:?}");
}

/// Starts one call for each number, at this pace however long each takes, and returns what they answered.
async fn paced<T>(every: Duration, numbers: std::ops::Range<u32>, call: impl AsyncFn(u32) -> T) -> Vec<T> {
    let start = tokio::time::Instant::now();
    let first = numbers.start;
    let calls = numbers.map(async |n| {
        tokio::time::sleep_until(start + every * (n - first)).await;
        call(n).await
    });
    futures_util::future::join_all(calls).await
}

fn p99(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

fn summary(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    format!("p50 {:?}, p99 {:?}, most {:?}", sorted[sorted.len() / 2], p99(times), sorted[sorted.len() - 1])
}
