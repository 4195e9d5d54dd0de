use serde_json::{Value, json};

use crate::support::{TestChat, problem};

#[tokio::test]
async fn who_writes_too_fast_is_told_to_wait_and_others_are_not() {
    let chat = TestChat::with(vec![("CHAT_RATE_PER_USER", "5/10m".to_owned())]).await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let room = chat.room_of(&[&ana, &ben]).await;
    for n in 0..5 {
        chat.said(&ana, room, &format!("{n}")).await;
    }
    let path = format!("/rooms/{room}/messages");
    let answer = chat.post(&ana, &path, &json!({"content": "too fast"})).send().await.unwrap();
    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((100..=120).contains(&wait), "{wait}");
    problem(answer, 429, "too-fast").await;

    let mut socket = chat.socket_in(&ana, room).await;
    socket.say(&json!({"type": "send_message", "room_id": room, "content": "a", "client_message_id": "m-1"})).await;
    let error = socket.until("error").await;
    assert_eq!((&error["code"], &error["client_message_id"]), (&json!("too-fast"), &json!("m-1")));
    assert!(error["retry_after"].as_u64().unwrap() >= 100, "{error}");
    let mut all = chat.listen(&ana).await;
    let list: Value = chat.get(&ana, "/conversations").send().await.unwrap().json().await.unwrap();
    all.say_in(&list["items"][0], json!({"type": "message", "content": "a"})).await;
    let error = all.until("error").await;
    assert!(error["code"] == "too-fast" && error["retryAfter"].as_u64().unwrap() >= 100, "{error}");

    chat.said(&ben, room, "at ease").await;
    assert_eq!(chat.stored(room).await.len(), 6);
}

#[tokio::test]
async fn a_room_takes_no_more_than_its_rate_of_all_together() {
    let chat = TestChat::with(vec![("CHAT_RATE_PER_ROOM", "4/10m".to_owned())]).await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let (full, other) = (chat.room_of(&[&ana, &ben]).await, chat.room_of(&[&ana, &ben]).await);
    for n in 0..2 {
        chat.said(&ana, full, &format!("{n}")).await;
        chat.said(&ben, full, &format!("{n}")).await;
    }
    let path = format!("/rooms/{full}/messages");
    problem(chat.post(&ben, &path, &json!({"content": "one more"})).send().await.unwrap(), 429, "too-fast").await;
    chat.said(&ben, other, "here").await;
}

#[tokio::test]
async fn whoever_says_all_the_time_that_they_type_is_heard_now_and_then() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let room = chat.room_of(&[&ana, &ben]).await;
    let (mut first, mut second) = (chat.socket_in(&ana, room).await, chat.socket_in(&ben, room).await);
    for n in 0..200 {
        first.say(&json!({"type": "typing", "room_id": room, "is_typing": n % 2 == 0})).await;
    }
    first.send(room, "end").await;
    let mut count = 0;
    loop {
        let heard = second.hear().await.unwrap();
        match heard["type"].as_str().unwrap() {
            "typing" => count += 1,
            "new_message" => break,
            _ => {}
        }
    }
    assert!((2..=60).contains(&count), "{count}");
}
