use std::time::Duration;

use serde_json::json;
use testkit::Redis;
use tokio::time::timeout;

use crate::support::TestChat;

/// Two instances that share a Redis.
pub(crate) async fn two(redis_url: String, prefix: &str) -> (TestChat, TestChat) {
    let settings = vec![("REDIS_URL", redis_url), ("REDIS_PREFIX", prefix.to_owned())];
    let one = TestChat::with(settings).await;
    let other = one.another().await;
    (one, other)
}

#[tokio::test]
async fn what_is_said_at_one_instance_is_heard_at_the_other_in_one_order() {
    const EACH: usize = 100;
    let prefix = format!("test-{}", uuid::Uuid::now_v7().simple());
    let (one, other) = two(testkit::services().redis_url.clone(), &prefix).await;
    let (ana, ben) = (one.user("Ana"), one.user("Ben"));
    let room = one.room_of(&[&ana, &ben]).await;
    let (mut first, mut second) = (one.socket_in(&ana, room).await, other.socket_in(&ben, room).await);
    assert_eq!(first.until("user_joined").await["type"], "user_joined");

    let talk = [&mut first, &mut second].into_iter().enumerate().map(async |(who, socket)| {
        for n in 0..EACH {
            socket.send(room, &format!("{who} {n}")).await;
        }
        socket.messages(2 * EACH).await
    });
    let heard = futures_util::future::join_all(talk).await;

    let stored = one.stored(room).await;
    assert_eq!(stored.len(), 2 * EACH);
    assert_eq!(heard, [stored.clone(), stored]);
}

#[tokio::test]
async fn without_redis_instances_hear_each_other_all_the_same() {
    let redis = Redis::private().await;
    let (one, other) = two(redis.url(), "test").await;
    let (ana, ben) = (one.user("Ana"), one.user("Ben"));
    let room = one.room_of(&[&ana, &ben]).await;
    let (mut first, mut second) = (one.socket_in(&ana, room).await, other.socket_in(&ben, room).await);

    redis.kill().await;

    first.send(room, "without").await;
    assert_eq!(second.messages(1).await, [(1, "without".to_owned())]);
    redis.start().await;
    first.send(room, "with").await;
    assert_eq!(second.messages(1).await, [(2, "with".to_owned())]);
    assert_eq!(first.messages(2).await.len(), 2);
}

#[tokio::test]
async fn a_redis_that_hangs_does_not_hold_every_message_up() {
    const COUNT: usize = 100;
    let redis = Redis::private().await;
    let (one, other) = two(redis.url(), "test").await;
    let (ana, ben) = (one.user("Ana"), one.user("Ben"));
    let room = one.room_of(&[&ana, &ben]).await;
    let (mut first, mut second) = (one.socket_in(&ana, room).await, other.socket_in(&ben, room).await);

    redis.pause().await;

    for n in 0..COUNT {
        first.send(room, &n.to_string()).await;
    }
    let acknowledged = async {
        for _ in 0..COUNT {
            first.until("ack").await;
        }
    };
    // Waiting for Redis with each of them would take half a second a message.
    timeout(Duration::from_secs(20), acknowledged).await.unwrap();
    let heard = second.messages(COUNT).await;
    redis.resume().await;
    assert_eq!(heard, one.stored(room).await);
}

#[tokio::test]
async fn an_instance_that_is_killed_loses_nothing_that_it_has_acknowledged() {
    let prefix = format!("test-{}", uuid::Uuid::now_v7().simple());
    let (one, other) = two(testkit::services().redis_url.clone(), &prefix).await;
    let (ana, ben) = (one.user("Ana"), one.user("Ben"));
    let room = one.room_of(&[&ana, &ben]).await;
    let (mut first, mut second) = (one.socket_in(&ana, room).await, other.socket_in(&ben, room).await);
    let message = |n: i64| json!({"type": "send_message", "room_id": room, "content": n.to_string(), "client_message_id": n.to_string()});
    let mut acknowledged = 0;
    for n in 1..=100 {
        first.say(&message(n)).await;
    }
    one.program.kill();
    while let Ok(heard) = first.hear().await {
        if heard["type"] == "ack" {
            acknowledged = heard["client_message_id"].as_str().unwrap().parse().unwrap();
        }
    }

    // The client goes on at the other instance, and sends again what was not acknowledged.
    let mut first = other.socket_in(&ana, room).await;
    for n in acknowledged + 1..=200 {
        first.say(&message(n)).await;
        first.until("ack").await;
    }

    let expected: Vec<_> = (1..=200).map(|n| (n, n.to_string())).collect();
    assert_eq!(other.stored(room).await, expected, "each once, in order");
    assert_eq!(second.messages(200).await, expected);
}
