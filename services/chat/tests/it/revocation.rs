//! Who may no longer listen does not: at every instance, within a second.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use testkit::Redis;
use tokio::time::{Instant, timeout};

use crate::instances::two;
use crate::peers::{DIALECTS, Dialect, Heard, Peer, Place};
use crate::support::{TestChat, User};

/// What the house promises.
const SECOND: Duration = Duration::from_secs(1);

async fn two_with_redis() -> (TestChat, TestChat) {
    two(testkit::services().redis_url.clone(), &format!("test-{}", uuid::Uuid::now_v7().simple())).await
}

/// A connection in each dialect to each instance, which has joined.
async fn everywhere(instances: [&TestChat; 2], user: &User, place: &Place) -> Vec<(Dialect, Peer)> {
    let mut peers = Vec::new();
    for chat in instances {
        for dialect in DIALECTS {
            let mut peer = Peer::come(&chat.url, dialect, &user.token, place, Some(0)).await.unwrap();
            while !matches!(peer.hear().await.unwrap(), Heard::Joined { .. }) {}
            peers.push((dialect, peer));
        }
    }
    peers
}

#[tokio::test]
async fn a_session_that_ends_closes_its_sockets_at_every_instance_within_a_second() {
    let (one, other) = two_with_redis().await;
    let (ana, ben) = (one.user("Ana"), one.user("Ben"));
    let room = one.room_of(&[&ana, &ben]).await;
    let place = Place::of(&one, &ana, room).await;
    let mut peers = everywhere([&one, &other], &ana, &place).await;
    let mut others = everywhere([&one, &other], &ben, &place).await;

    let begin = Instant::now();
    one.house.issuer.end(ana.session);
    let codes = timeout(10 * SECOND, join_all(peers.iter_mut().map(|(_, peer)| peer.closed()))).await;

    assert!(begin.elapsed() < SECOND, "{:?}", begin.elapsed());
    assert_eq!(codes.expect("all are closed"), [1008; 6]);
    for (dialect, peer) in &mut others {
        peer.send("m", "still here").await.unwrap();
        loop {
            match peer.hear().await {
                Ok(Heard::Stored { .. }) => break,
                Ok(_) => {}
                Err(gone) => panic!("{dialect:?}: {gone:?}"),
            }
        }
    }
}

#[tokio::test]
async fn who_is_taken_out_hears_nothing_more_at_any_instance_within_a_second() {
    let (one, other) = two_with_redis().await;
    taken_out(&one, &other, SECOND).await;
}

#[tokio::test]
async fn without_redis_who_is_taken_out_hears_nothing_more_at_any_instance_soon() {
    let redis = Redis::private().await;
    let (one, other) = two(redis.url(), "test").await;
    redis.kill().await;
    taken_out(&one, &other, 3 * SECOND).await;
}

#[tokio::test]
async fn while_redis_hangs_who_is_taken_out_hears_nothing_more_at_any_instance_soon() {
    let redis = Redis::private().await;
    let (one, other) = two(redis.url(), "test").await;
    redis.pause().await;
    taken_out(&one, &other, 4 * SECOND).await;
    redis.resume().await;
}

/// Ben leaves over REST at one instance, with sockets at both.
async fn taken_out(one: &TestChat, other: &TestChat, within: Duration) {
    let (ana, ben) = (one.user("Ana"), one.user("Ben"));
    let room = one.room_of(&[&ana, &ben]).await;
    let place = Place::of(one, &ana, room).await;
    let peers = everywhere([one, other], &ben, &place).await;

    let left = one.post(&ben, &format!("/rooms/{room}/leave"), &json!({})).send().await.unwrap();
    assert_eq!(left.status(), 204);
    let begin = Instant::now();
    let ends = peers.into_iter().map(async |(dialect, mut peer)| match dialect {
        // It has other conversations, and is told that this one is over.
        Dialect::Conversations => {
            peer.until_told("left").await;
            peer
        }
        Dialect::Rooms | Dialect::SocketIo => {
            assert_eq!(peer.closed().await, 1008, "{dialect:?}");
            peer
        }
    });
    let peers = timeout(10 * SECOND, join_all(ends)).await.expect("all are told");
    assert!(begin.elapsed() < within, "{:?}", begin.elapsed());

    one.said(&ana, room, "not for Ben").await;
    for mut peer in peers {
        let Ok(()) = peer.say(json!({"type": "ping"}).to_string()).await else { continue };
        while let Ok(text) = peer.text().await {
            assert!(!text.contains("not for Ben"));
            if text.contains("pong") {
                break;
            }
        }
    }
}
