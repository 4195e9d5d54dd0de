//! Who is present is counted alike in Redis and in memory.

#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect fails")]

use std::time::Duration;

use backplane::{Attendance, Backplane, Beat, Lasting};
use testkit::{Redis, eventually};

const LASTING: Lasting = Lasting { member: Duration::from_secs(60), group: Duration::from_secs(3600) };

/// Both kinds, with names that nobody else uses.
fn both() -> [Backplane; 2] {
    let prefix = format!("test-{}", uuid::Uuid::now_v7().simple());
    [Backplane::redis(&testkit::services().redis_url, &prefix).unwrap(), Backplane::in_process()]
}

async fn attendance(backplane: &Backplane, group: &str, lasting: Lasting) -> Attendance {
    backplane.attendance(&[group.to_owned()], lasting).await.unwrap()[0]
}

#[tokio::test]
async fn a_member_is_present_once_it_has_got_on_and_a_bot_that_does_not_never_is() {
    for backplane in both() {
        let beat = async |member, position| backplane.beat("g", member, position, LASTING).await.unwrap();
        assert_eq!(beat("ana", 10).await, Beat { is_present: false, present: 0 });
        for _ in 0..3 {
            assert_eq!(beat("bot", 10).await, Beat { is_present: false, present: 0 });
        }
        assert_eq!(beat("ana", 11).await, Beat { is_present: true, present: 1 });
        assert_eq!(beat("ana", 11).await, Beat { is_present: true, present: 1 }, "paused");
        assert_eq!(beat("ana", 5).await, Beat { is_present: true, present: 1 }, "gone back");
        assert_eq!(beat("ben", 0).await, Beat { is_present: false, present: 1 });
        assert_eq!(beat("ben", 1).await, Beat { is_present: true, present: 2 });
        let counted = attendance(&backplane, "g", LASTING).await;
        assert_eq!((counted.present, counted.unique), (2, 2));
        assert_eq!(attendance(&backplane, "another", LASTING).await, Attendance::default());
    }
}

#[tokio::test]
async fn members_leave_by_being_silent_or_by_not_getting_on() {
    let lasting = Lasting { member: Duration::from_millis(500), ..LASTING };
    for backplane in both() {
        for position in [0, 1] {
            for member in ["ana", "ben"] {
                backplane.beat("g", member, position, lasting).await.unwrap();
            }
        }
        assert_eq!(attendance(&backplane, "g", lasting).await.present, 2);
        eventually("ana is silent, and ben does not get on", async || {
            backplane.beat("g", "ben", 1, lasting).await.unwrap();
            (attendance(&backplane, "g", lasting).await.present == 0).then_some(())
        })
        .await;
        assert_eq!(attendance(&backplane, "g", lasting).await.unique, 2, "they were there");
        let back = backplane.beat("g", "ana", 1000, lasting).await.unwrap();
        assert_eq!(back, Beat { is_present: false, present: 0 }, "it begins anew");
        assert!(backplane.beat("g", "ana", 1001, lasting).await.unwrap().is_present);
        assert_eq!(attendance(&backplane, "g", lasting).await.unique, 2);
    }
}

#[tokio::test]
async fn time_is_what_has_passed_and_is_told_once() {
    for backplane in both() {
        let began = tokio::time::Instant::now();
        let mut position = 0;
        let told = eventually("two seconds are full", async || {
            position += 3_600_000;
            backplane.beat("g", "ana", position, LASTING).await.unwrap();
            // Members that get on by little add little.
            backplane.beat("g", "ben", position / 3_600_000, LASTING).await.unwrap();
            let passed = began.elapsed();
            (passed >= Duration::from_millis(2200)).then_some(passed)
        })
        .await;
        let seconds = attendance(&backplane, "g", LASTING).await.seconds;
        assert!((2..=told.as_secs() + 1).contains(&seconds), "{seconds} s of {told:?}");
        assert_eq!(attendance(&backplane, "g", LASTING).await.seconds, 0);
    }
}

#[tokio::test]
async fn many_groups_are_asked_at_once_in_their_order() {
    for backplane in both() {
        let groups: Vec<_> = (0..450).map(|n| format!("g{n}")).collect();
        for group in groups.iter().step_by(7) {
            for position in [1, 2] {
                backplane.beat(group, "ana", position, LASTING).await.unwrap();
            }
        }
        let attendance = backplane.attendance(&groups, LASTING).await.unwrap();
        let present: Vec<_> = attendance.iter().map(|of| of.present).collect();
        let expected: Vec<_> = (0..450_u64).map(|n| u64::from(n % 7 == 0)).collect();
        assert_eq!(present, expected);
    }
}

#[tokio::test]
async fn without_redis_a_beat_fails_and_counts_again_when_it_is_back() {
    let redis = Redis::private().await;
    let backplane = Backplane::redis(&redis.url(), "test").unwrap();
    backplane.beat("g", "ana", 1, LASTING).await.unwrap();

    redis.kill().await;
    assert!(backplane.beat("g", "ana", 2, LASTING).await.is_err());
    assert!(backplane.attendance(&["g".to_owned()], LASTING).await.is_err());

    redis.start().await;
    let mut position = 2;
    eventually("it is present again", async || {
        position += 1;
        backplane.beat("g", "ana", position, LASTING).await.ok().filter(|beat| beat.is_present)
    })
    .await;
}
