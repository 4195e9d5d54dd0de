//! Tries are counted alike in Redis and in memory.

#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect fails")]

use std::time::Duration;

use backplane::{Backplane, Pace};
use testkit::{Redis, eventually};

const PACE: Pace =
    Pace { free: 3, first: Duration::from_secs(20), longest: Duration::from_secs(50), forget: Duration::from_secs(60) };

/// Both kinds, with names that nobody else uses.
fn both() -> [Backplane; 2] {
    let prefix = format!("test-{}", uuid::Uuid::now_v7().simple());
    [Backplane::redis(&testkit::services().redis_url, &prefix).unwrap(), Backplane::in_process()]
}

fn try_at(key: &str) -> [(String, Pace); 1] {
    [(key.to_owned(), PACE)]
}

#[tokio::test]
async fn some_tries_are_free_and_each_other_is_followed_by_a_pause() {
    for backplane in both() {
        for _ in 0..3 {
            assert_eq!(backplane.attempt(&try_at("key")).await.unwrap(), None);
        }
        let wait = backplane.attempt(&try_at("key")).await.unwrap().unwrap();
        assert!(wait <= PACE.first && wait > PACE.first / 2, "{wait:?}");
        let again = backplane.attempt(&try_at("key")).await.unwrap().unwrap();
        assert!(again <= wait, "a try that was refused makes nobody wait longer");
        assert_eq!(backplane.attempt(&try_at("another")).await.unwrap(), None);
    }
}

#[tokio::test]
async fn of_tries_at_once_no_more_pass_than_are_free() {
    for backplane in both() {
        let key = try_at("key");
        let passed = futures_util::future::join_all((0..50).map(|_| backplane.attempt(&key))).await;
        assert_eq!(passed.iter().filter(|answer| matches!(answer, Ok(None))).count(), 3);
    }
}

#[tokio::test]
async fn a_try_of_several_is_counted_for_all_or_for_none() {
    for backplane in both() {
        for _ in 0..3 {
            assert_eq!(backplane.attempt(&try_at("strict")).await.unwrap(), None);
        }
        let several = [try_at("strict"), try_at("other")].concat();
        for _ in 0..10 {
            assert!(backplane.attempt(&several).await.unwrap().is_some());
        }
        for _ in 0..3 {
            assert_eq!(backplane.attempt(&try_at("other")).await.unwrap(), None);
        }
        assert!(backplane.attempt(&try_at("other")).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn what_was_taken_back_or_forgotten_does_not_count() {
    for backplane in both() {
        backplane.take_back("key").await.unwrap();
        for _ in 0..10 {
            assert_eq!(backplane.attempt(&try_at("key")).await.unwrap(), None);
            backplane.take_back("key").await.unwrap();
        }
        for _ in 0..3 {
            assert_eq!(backplane.attempt(&try_at("key")).await.unwrap(), None);
        }
        assert!(backplane.attempt(&try_at("key")).await.unwrap().is_some());
        backplane.take_back("key").await.unwrap();
        assert!(backplane.attempt(&try_at("key")).await.unwrap().is_some(), "the pause stays");

        backplane.forget_tries("key").await.unwrap();

        assert_eq!(backplane.attempt(&try_at("key")).await.unwrap(), None);
    }
}

#[tokio::test]
async fn pauses_grow() {
    let ms = Duration::from_millis;
    for backplane in both() {
        let tries = [("key".to_owned(), Pace { free: 1, first: ms(1), longest: ms(400), forget: ms(800) })];
        let passed = async || backplane.attempt(&tries).await.unwrap();
        eventually("it grows up to the longest", async || passed().await.filter(|wait| *wait > ms(200))).await;
    }
}

#[tokio::test]
async fn tries_are_forgotten_in_time() {
    let pace = Pace { free: 1, forget: Duration::from_millis(300), ..PACE };
    for backplane in both() {
        let tries = [("key".to_owned(), pace)];
        assert_eq!(backplane.attempt(&tries).await.unwrap(), None);
        eventually("it begins anew", async || backplane.attempt(&tries).await.unwrap().is_none().then_some(())).await;
    }
}

#[tokio::test]
async fn without_redis_a_try_fails_and_works_again_when_it_is_back() {
    let redis = Redis::private().await;
    let backplane = Backplane::redis(&redis.url(), "test").unwrap();
    assert_eq!(backplane.attempt(&try_at("key")).await.unwrap(), None);

    redis.kill().await;
    assert!(backplane.attempt(&try_at("key")).await.is_err());

    redis.start().await;
    eventually("it is back", async || backplane.attempt(&try_at("key")).await.ok()).await;
}
