use futures_util::SinkExt as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{TestChat, problem};

#[tokio::test]
async fn members_hear_each_other_as_003_shows_it() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let room = chat.room_of(&[&ana, &ben]).await;
    let mut first = chat.socket_in(&ana, room).await;

    let mut second = chat.socket(&ben, "").await;
    second.say(&json!({"type": "join_room", "room_id": room})).await;

    let joined = first.until("user_joined").await;
    // Ana's own came first.
    let joined = if joined["user_uuid"] == json!(ana.id) { first.until("user_joined").await } else { joined };
    assert_eq!(
        joined,
        json!({"type": "user_joined", "room_id": room, "user_uuid": ben.id, "data": {"user_uuid": ben.id}})
    );
    second.until("joined").await;
    second.send(room, "Hello everyone!").await;
    for socket in [&mut first, &mut second] {
        let message = socket.until("new_message").await;
        assert_eq!((&message["room_id"], &message["content"]), (&json!(room), &json!("Hello everyone!")));
        assert_eq!(message["user_uuid"], json!(ben.id));
        assert_eq!(message["timestamp"], message["data"]["created_at"]);
        let data = &message["data"];
        assert_eq!((&data["message_id"], &data["content"]), (&message["message_id"], &message["content"]));
        assert_eq!(data["user_uuid"], json!(ben.id));
    }
    second.say(&json!({"type": "leave_room", "room_id": room})).await;
    assert_eq!(first.until("user_left").await["user_uuid"], json!(ben.id));
}

#[tokio::test]
async fn who_has_not_joined_is_told_so_and_writes_nothing() {
    let chat = TestChat::start().await;
    let (ana, eve) = (chat.user("Ana"), chat.user("Eve"));
    let room = chat.room_of(&[&ana]).await;
    let mut socket = chat.socket(&ana, "").await;
    socket.send(room, "too early").await;
    let error = socket.until("error").await;
    assert_eq!((&error["content"], &error["code"]), (&json!("You must join the room first"), &json!("not-joined")));

    let mut socket = chat.socket(&eve, "").await;
    socket.say(&json!({"type": "join_room", "room_id": room})).await;
    assert_eq!(socket.until("error").await["code"], "no-such-room");
    assert!(chat.stored(room).await.is_empty());
}

#[tokio::test]
async fn a_socket_needs_a_token() {
    let chat = TestChat::start().await;
    let nobody = crate::support::User { token: "garbage".into(), ..chat.user("Nobody") };
    let upgrade = chat
        .get(&nobody, "/chat/ws")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "x3JJHMbDL1EzLkh9GBhXDw==");
    problem(upgrade.send().await.unwrap(), 401, "token-invalid").await;
}

#[tokio::test]
async fn a_session_that_ends_takes_its_sockets_with_it() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let room = chat.room_of(&[&ana]).await;
    let mut socket = chat.socket_in(&ana, room).await;
    chat.house.issuer.end(ana.session);
    assert_eq!(socket.closed().await, 1008);
}

#[tokio::test]
async fn who_is_taken_out_of_a_room_hears_no_more_of_it() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let room = chat.room_of(&[&ana, &ben]).await;
    let mut socket = chat.socket_in(&ben, room).await;
    let left = chat.post(&ben, &format!("/rooms/{room}/leave"), &json!({})).send().await.unwrap();
    assert_eq!(left.status(), 204);
    assert_eq!(socket.closed().await, 1008);
}

#[tokio::test]
async fn what_is_not_understood_is_answered_and_too_much_of_it_ends_the_socket() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let mut socket = chat.socket(&ana, "").await;
    for text in
        ["", "x", "[]", "{}", r#"{"type":"fly"}"#, r#"{"type":"join_room"}"#, r#"{"type":"join_room","room_id":"1"}"#]
    {
        socket.0.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.hear().await.unwrap()["code"], "not-understood", "{text}");
    }
    for _ in 0..4 {
        socket.0.send(Message::binary(vec![0; 10])).await.unwrap();
    }
    assert_eq!(socket.closed().await, 1008);

    let mut socket = chat.socket(&ana, "").await;
    socket.0.send(Message::text("a".repeat(65 * 1024))).await.unwrap();
    assert_eq!(socket.closed().await, 1009);
}

#[tokio::test]
async fn another_socket_of_the_same_client_takes_its_place_and_one_of_another_does_not() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let room = chat.room_of(&[&ana]).await;
    let query = format!("&room_id={room}&client_id=phone");
    let mut phone = chat.socket(&ana, &query).await;
    phone.until("joined").await;
    let mut laptop = chat.socket(&ana, &format!("&room_id={room}&client_id=laptop")).await;
    laptop.until("joined").await;

    let mut phone_again = chat.socket(&ana, &query).await;
    phone_again.until("joined").await;

    assert_eq!(phone.closed().await, 4000);
    phone_again.send(room, "hi").await;
    assert_eq!(laptop.messages(1).await[0].1, "hi");
}

#[tokio::test]
async fn when_the_service_stops_clients_are_told_to_come_back() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let room = chat.room_of(&[&ana]).await;
    let mut socket = chat.socket_in(&ana, room).await;
    chat.program.ask_to_stop();
    assert_eq!(socket.closed().await, 1012);
}
