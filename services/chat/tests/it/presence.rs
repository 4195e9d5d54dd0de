use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::Redis;

use crate::support::{Socket, TestChat, User};

async fn online(chat: &TestChat, user: &User, room: i64) -> Vec<Value> {
    let path = format!("/chat/rooms/{room}/status");
    let status: Value = chat.get(user, &path).send().await.unwrap().json().await.unwrap();
    let users = status["online_users"].as_array().unwrap().clone();
    assert_eq!(status["online_count"], users.len());
    users
}

/// Who comes and goes, until the message `end`.
async fn heard(socket: &mut Socket) -> Vec<(String, Value)> {
    let mut heard = Vec::new();
    loop {
        let value = socket.hear().await.unwrap();
        match value["type"].as_str().unwrap() {
            "new_message" if value["content"] == "end" => return heard,
            kind @ ("user_joined" | "user_left") => heard.push((kind.to_owned(), value["user_uuid"].clone())),
            _ => {}
        }
    }
}

async fn come_and_go(here: &TestChat, there: &TestChat) {
    let (ana, ben) = (here.user("Ana"), here.user("Ben"));
    let room = here.room_of(&[&ana, &ben]).await;
    let mut socket = here.socket_in(&ana, room).await;
    let own = socket.until("user_joined").await;
    assert_eq!(own["user_uuid"], json!(ana.id));

    let phone = here.socket_in(&ben, room).await;
    assert_eq!(socket.until("user_joined").await["user_uuid"], json!(ben.id));
    let laptop = there.socket_in(&ben, room).await;
    let everybody = async |chat: &TestChat| {
        testkit::eventually("both are seen", async || (online(chat, &ana, room).await.len() == 2).then_some(())).await;
    };
    everybody(here).await;
    everybody(there).await;
    drop(phone);
    // Seen where the phone was, after that instance has let go of it.
    let tablet = here.socket_in(&ben, room).await;
    drop(laptop);
    everybody(there).await;
    here.said(&ana, room, "end").await;
    assert_eq!(heard(&mut socket).await, [], "Ben was there all the time");

    drop(tablet);
    assert_eq!(socket.until("user_left").await["user_uuid"], json!(ben.id));
    testkit::eventually("Ben is gone", async || (online(there, &ana, room).await == [json!(ana.id)]).then_some(()))
        .await;
}

#[tokio::test]
async fn who_has_several_devices_is_there_once() {
    let chat = TestChat::start().await;
    come_and_go(&chat, &chat).await;
}

/// Two instances that share the Redis of all tests.
async fn two() -> (TestChat, TestChat) {
    let prefix = format!("test-{}", uuid::Uuid::now_v7().simple());
    let settings = vec![("REDIS_URL", testkit::services().redis_url.clone()), ("REDIS_PREFIX", prefix)];
    let here = TestChat::with(settings).await;
    let there = here.another().await;
    (here, there)
}

#[tokio::test]
async fn who_has_several_devices_at_several_instances_is_there_once() {
    let (here, there) = two().await;
    come_and_go(&here, &there).await;
}

#[tokio::test]
async fn who_is_at_another_instance_is_told_to_all() {
    let (here, there) = two().await;
    let (ana, ben) = (here.known("Ana").await, here.known("Ben").await);
    let conversation = here.private(&ana, &ben).await;
    let mut first = here.listen(&ana).await;
    let own = first.until("presence").await;
    assert_eq!((&own["userId"], &own["isOnline"]), (&json!(ana.id), &json!(true)));

    let mut second = there.listen(&ben).await;
    let presence = first.until("presence").await;
    assert_eq!((&presence["userId"], &presence["isOnline"]), (&json!(ben.id), &json!(true)));
    assert_eq!(presence["conversationId"], conversation["id"]);

    first.say_in(&conversation, json!({"type": "typing"})).await;
    assert_eq!(second.until("typing").await["userId"], json!(ana.id));

    second.0.close(None).await.unwrap();
    let presence = first.until("presence").await;
    assert_eq!((&presence["userId"], &presence["isOnline"]), (&json!(ben.id), &json!(false)));
}

#[tokio::test]
async fn who_was_at_an_instance_that_was_killed_is_gone_within_fifteen_seconds() {
    let (here, there) = two().await;
    let (ana, ben) = (here.user("Ana"), here.user("Ben"));
    let room = here.room_of(&[&ana, &ben]).await;
    let mut socket = here.socket_in(&ana, room).await;
    socket.until("user_joined").await;
    let _phone = there.socket_in(&ben, room).await;
    assert_eq!(socket.until("user_joined").await["user_uuid"], json!(ben.id));

    there.program.kill();
    let killed_at = Instant::now();

    assert_eq!(socket.until("user_left").await["user_uuid"], json!(ben.id));
    let took = killed_at.elapsed();
    println!("told after {took:.1?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(online(&here, &ana, room).await, [json!(ana.id)]);
}

#[tokio::test]
async fn who_comes_and_goes_in_a_crowd_is_counted_and_told_again_when_it_is_none() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let others: Vec<_> = (0..100).map(|n| chat.user(&format!("{n}"))).collect();
    let all: Vec<_> = [&ana, &ben].into_iter().chain(&others).collect();
    let room = chat.room_of(&all).await;
    let mut socket = chat.socket_in(&ana, room).await;
    let mut crowd = Vec::new();
    for user in &others {
        crowd.push(chat.socket_in(user, room).await);
    }
    assert_eq!(socket.until("online").await["online_count"], 101);

    let phone = chat.socket_in(&ben, room).await;
    assert_eq!(socket.until("online").await["online_count"], 102, "in a while");
    drop(phone);
    testkit::eventually("Ben is gone", async || (online(&chat, &ana, room).await.len() == 101).then_some(())).await;
    chat.said(&ana, room, "end").await;
    assert_eq!(heard(&mut socket).await, [], "nobody is told that Ben came and went");

    crowd.truncate(75);
    let few = loop {
        let count = socket.until("online").await["online_count"].as_i64().unwrap();
        if count <= 80 {
            break count;
        }
    };
    testkit::eventually("all are gone", async || (online(&chat, &ana, room).await.len() == 76).then_some(())).await;
    assert!((76..=80).contains(&few), "{few}");
    let _phone = chat.socket_in(&ben, room).await;
    let joined = socket.until("user_joined").await;
    assert_eq!(joined["user_uuid"], json!(ben.id), "told one by one");
}

#[tokio::test]
async fn a_conversation_that_begins_at_another_instance_is_heard() {
    let (here, there) = two().await;
    let (ana, ben) = (here.known("Ana").await, here.known("Ben").await);
    let (mut first, mut second) = (here.listen(&ana).await, there.listen(&ben).await);

    let conversation = here.private(&ana, &ben).await;

    assert_eq!(second.until("joined").await["conversationId"], conversation["id"]);
    first.say_in(&conversation, json!({"type": "message", "content": "new"})).await;
    assert_eq!(second.until("message").await["message"]["content"], "new");
}

#[tokio::test]
async fn a_conversation_that_begins_without_redis_is_heard_when_it_is_back() {
    let redis = Redis::private().await;
    let settings = vec![("REDIS_URL", redis.url()), ("REDIS_PREFIX", "test".to_owned())];
    let here = TestChat::with(settings).await;
    let there = here.another().await;
    let (ana, ben) = (here.known("Ana").await, here.known("Ben").await);
    let mut socket = there.listen(&ben).await;
    let left = here.room_of(&[&ana, &ben]).await;
    socket.until("joined").await;

    redis.kill().await;
    let conversation = here.private(&ana, &ben).await;
    here.post(&ben, &format!("/rooms/{left}/leave"), &json!({})).send().await.unwrap();
    redis.start().await;

    let (mut has_joined, mut has_left) = (false, false);
    while !(has_joined && has_left) {
        let heard = socket.hear().await.unwrap();
        has_joined |= heard["type"] == "joined" && heard["conversationId"] == conversation["id"];
        has_left |= heard["type"] == "left" && heard["userId"] == json!(ben.id);
    }
}
