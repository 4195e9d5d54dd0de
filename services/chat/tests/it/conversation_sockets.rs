use futures_util::SinkExt as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::TestChat;

#[tokio::test]
async fn a_socket_without_a_valid_token_is_opened_and_closed() {
    let chat = TestChat::start().await;
    for (path, reason) in [("/ws/chat", "No token provided"), ("/ws/chat?token=garbage", "Invalid token")] {
        let mut socket = chat.open(path).await;
        assert_eq!(socket.goodbye().await, (1008, reason.to_owned()));
    }
}

#[tokio::test]
async fn users_talk_as_004_shows_it() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.known("Ana").await, chat.known("Ben").await);
    let conversation = chat.private(&ana, &ben).await;
    let mut first = chat.open(&format!("/ws/chat?token={}", ana.token)).await;
    let connected = first.hear().await.unwrap();
    assert_eq!((&connected["type"], &connected["userId"]), (&json!("connected"), &json!(ana.id)));
    let mut second = chat.listen(&ben).await;

    let message = json!({"type": "message", "content": "Hello", "clientMessageId": "m-1"});
    first.say_in(&conversation, message).await;

    let ack = first.until("ack").await;
    assert_eq!((&ack["conversationId"], &ack["clientMessageId"]), (&conversation["id"], &json!("m-1")));
    let heard = second.until("message").await["message"].clone();
    assert_eq!((&heard["id"], &heard["conversationId"]), (&ack["messageId"], &conversation["id"]));
    assert_eq!((&heard["senderId"], &heard["senderName"]), (&json!(ana.id), &json!("Ana")));
    assert_eq!((&heard["content"], &heard["type"], &heard["seq"]), (&json!("Hello"), &json!("text"), &json!(1)));
    assert!(heard["createdAt"].is_string() && heard["fileUrl"].is_null());

    let image = json!({"type": "message", "messageType": "image", "fileUrl": "/a.png"});
    second.say_in(&conversation, image).await;
    let heard = first.until_message(2).await;
    assert_eq!((&heard["type"], &heard["fileUrl"]), (&json!("image"), &json!("/a.png")));
}

#[tokio::test]
async fn rooms_and_conversations_are_one() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let room = chat.room_of(&[&ana, &ben]).await;
    let (mut in_room, mut in_conversation) = (chat.socket_in(&ana, room).await, chat.listen(&ben).await);

    in_room.send(room, "from the room").await;
    let heard = in_conversation.until("message").await["message"].clone();
    assert_eq!(heard["content"], "from the room");

    in_conversation
        .say(&json!({"type": "message", "conversationId": heard["conversationId"], "content": "from the conversation"}))
        .await;
    let expected = [(1, "from the room".to_owned()), (2, "from the conversation".to_owned())];
    assert_eq!(in_room.messages(2).await, expected);
    assert_eq!(chat.stored(room).await, expected);

    in_conversation.say(&json!({"type": "typing", "conversationId": heard["conversationId"]})).await;
    let typing = in_room.until("typing").await;
    assert_eq!(
        (&typing["room_id"], &typing["user_uuid"], &typing["is_typing"]),
        (&json!(room), &json!(ben.id), &json!(true))
    );
    in_room.say(&json!({"type": "read", "room_id": room})).await;
    let read = in_conversation.until("read").await;
    assert_eq!((&read["userId"], &read["lastReadSeq"]), (&json!(ana.id), &json!(2)));
}

#[tokio::test]
async fn a_conversation_that_begins_while_a_socket_is_open_is_heard_on_it() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.known("Ana").await, chat.known("Ben").await);
    let (mut first, mut second) = (chat.listen(&ana).await, chat.listen(&ben).await);

    let conversation = chat.private(&ana, &ben).await;

    for socket in [&mut first, &mut second] {
        assert_eq!(socket.until("joined").await["conversationId"], conversation["id"]);
    }
    first.say_in(&conversation, json!({"type": "message", "content": "hi"})).await;
    assert_eq!(second.until("message").await["message"]["content"], "hi");
}

#[tokio::test]
async fn who_is_taken_out_of_one_conversation_still_hears_the_others() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let (left, kept) = (chat.room_of(&[&ana, &ben]).await, chat.room_of(&[&ana, &ben]).await);
    let mut socket = chat.listen(&ben).await;

    chat.post(&ben, &format!("/rooms/{left}/leave"), &json!({})).send().await.unwrap();

    let told = socket.until("left").await;
    assert_eq!(told["userId"], json!(ben.id));
    chat.said(&ana, left, "not for Ben").await;
    chat.said(&ana, kept, "for Ben").await;
    assert_eq!(socket.until("message").await["message"]["content"], "for Ben");
    socket.say(&json!({"type": "message", "conversationId": told["conversationId"], "content": "let me in"})).await;
    assert_eq!(socket.until("error").await["code"], "no-such-room");
    chat.post(&ben, &format!("/rooms/{left}/join"), &json!({})).send().await.unwrap();
    assert_eq!(socket.until("joined").await["conversationId"], told["conversationId"]);
    chat.said(&ana, left, "welcome").await;
    assert_eq!(socket.until("message").await["message"]["content"], "welcome");
}

#[tokio::test]
async fn a_client_that_comes_back_gets_exactly_what_it_has_missed() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let rooms = [chat.room_of(&[&ana, &ben]).await, chat.room_of(&[&ana, &ben]).await];
    let mut since = serde_json::Map::new();
    for (had, room) in [1, 3].into_iter().zip(rooms) {
        let mut id = None;
        for n in 1..=3 {
            chat.said(&ana, room, &format!("{room} {n}")).await;
        }
        let list: serde_json::Value = chat.get(&ben, "/conversations").send().await.unwrap().json().await.unwrap();
        for item in list["items"].as_array().unwrap() {
            if item["roomId"] == room {
                id = item["id"].as_str().map(str::to_owned);
            }
        }
        since.insert(id.unwrap(), json!(had));
    }
    let mut socket = chat.open(&format!("/ws/chat?token={}", ben.token)).await;
    let connected = socket.until("connected").await;
    assert!(since.keys().all(|id| connected["since"][id] == 3), "{connected}");

    socket.say(&json!({"type": "resume", "since": since})).await;

    for _ in rooms {
        let joined = socket.until("joined").await;
        assert_eq!((&joined["recovered"], &joined["seq"]), (&json!(true), &json!(3)));
        if since[joined["conversationId"].as_str().unwrap()] == 1 {
            assert_eq!(socket.until_message(2).await["content"], format!("{} 2", rooms[0]));
            assert_eq!(socket.until_message(3).await["content"], format!("{} 3", rooms[0]));
        }
    }
    for (_, had) in &mut since {
        *had = json!(4);
    }
    socket.say(&json!({"type": "resume", "since": since})).await;
    assert_eq!(socket.until("joined").await["recovered"], false, "it knows of what never was");
}

#[tokio::test]
async fn what_was_read_is_told_and_never_backwards() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.known("Ana").await, chat.known("Ben").await);
    let conversation = chat.private(&ana, &ben).await;
    let (mut first, mut second) = (chat.listen(&ana).await, chat.listen(&ben).await);
    let mut ids = Vec::new();
    for n in 1..=3 {
        first.say_in(&conversation, json!({"type": "message", "content": n.to_string()})).await;
        ids.push(first.until("ack").await["messageId"].clone());
    }
    for id in [&ids[1], &ids[0], &ids[2]] {
        second.say_in(&conversation, json!({"type": "read", "messageId": id})).await;
    }
    for (id, seq) in [(&ids[1], 2), (&ids[2], 3)] {
        let read = first.until("read").await;
        assert_eq!((&read["conversationId"], &read["userId"]), (&conversation["id"], &json!(ben.id)));
        assert_eq!((&read["messageId"], &read["lastReadSeq"]), (id, &json!(seq)));
        assert!(read["lastReadAt"].is_string());
    }
    second.say_in(&conversation, json!({"type": "read", "messageId": 999_999})).await;
    assert_eq!(second.until("error").await["code"], "invalid-fields");

    first.say_in(&conversation, json!({"type": "message", "content": "4"})).await;
    first.until("ack").await;
    let path = format!("/conversations/{}/read", conversation["id"].as_str().unwrap());
    assert_eq!(chat.put(&ben, &path, &json!({})).send().await.unwrap().status(), 200);
    for socket in [&mut first, &mut second] {
        while socket.until("read").await["lastReadSeq"] != 4 {}
    }
}

#[tokio::test]
async fn another_socket_of_the_same_client_takes_its_place_and_one_of_another_does_not() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.known("Ana").await, chat.known("Ben").await);
    let conversation = chat.private(&ana, &ben).await;
    let open = async |client: &str| {
        let mut socket = chat.open(&format!("/ws/chat?token={}&clientId={client}", ana.token)).await;
        socket.until("connected").await;
        socket
    };
    let (mut phone, mut laptop) = (open("phone").await, open("laptop").await);

    let mut phone_again = open("phone").await;

    assert_eq!(phone.closed().await, 4000);
    phone_again.say_in(&conversation, json!({"type": "message", "content": "hi"})).await;
    assert_eq!(laptop.until_message(1).await["content"], "hi");
}

#[tokio::test]
async fn typing_is_told_to_others_and_ends_by_itself() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.known("Ana").await, chat.known("Ben").await);
    let conversation = chat.private(&ana, &ben).await;
    let (mut first, mut phone, mut second) =
        (chat.listen(&ana).await, chat.listen(&ana).await, chat.listen(&ben).await);

    // Begun and said to be over; begun and over with the message; begun, and nothing more.
    first.say_in(&conversation, json!({"type": "typing", "isTyping": true})).await;
    first.say_in(&conversation, json!({"type": "typing", "isTyping": false})).await;
    for is_typing in [true, false] {
        let typing = second.until("typing").await;
        assert_eq!((&typing["userId"], &typing["isTyping"]), (&json!(ana.id), &json!(is_typing)));
        assert_eq!(typing["conversationId"], conversation["id"]);
    }
    first.say_in(&conversation, json!({"type": "typing"})).await;
    first.say_in(&conversation, json!({"type": "message", "content": "done"})).await;
    for is_typing in [true, false] {
        assert_eq!(second.until("typing").await["isTyping"], is_typing);
    }
    second.until_message(1).await;
    first.say_in(&conversation, json!({"type": "typing"})).await;
    for is_typing in [true, false] {
        assert_eq!(second.until("typing").await["isTyping"], is_typing);
    }

    // The user's own devices have heard of the message, and of no typing.
    second.say_in(&conversation, json!({"type": "message", "content": "read it"})).await;
    for socket in [&mut first, &mut phone] {
        loop {
            let heard = socket.hear().await.unwrap();
            assert_ne!(heard["type"], "typing");
            if heard["message"]["content"] == "read it" {
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_understood_is_answered_and_too_much_of_it_ends_the_socket() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.known("Ana").await, chat.known("Ben").await);
    let conversation = chat.private(&ana, &ben).await;
    let mut socket = chat.listen(&ana).await;
    for text in [
        "",
        "[]",
        "{}",
        r#"{"type":"fly"}"#,
        r#"{"type":"message","content":"hi"}"#,
        r#"{"type":"typing","conversationId":"1"}"#,
        r#"{"type":"resume","since":[]}"#,
    ] {
        socket.0.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.until("error").await["code"], "not-understood", "{text}");
    }
    socket.say_in(&conversation, json!({"type": "message", "content": " "})).await;
    assert_eq!(socket.until("error").await["code"], "invalid-fields");
    let nowhere = json!({"id": uuid::Uuid::now_v7()});
    for kind in ["message", "typing", "read"] {
        socket.say_in(&nowhere, json!({"type": kind, "content": "hi"})).await;
        let error = socket.until("error").await;
        assert_eq!((&error["code"], &error["conversationId"]), (&json!("no-such-room"), &nowhere["id"]));
    }
    socket.say(&json!({"type": "ping"})).await;
    socket.until("pong").await;
    for _ in 0..4 {
        socket.0.send(Message::binary(vec![0; 10])).await.unwrap();
    }
    assert_eq!(socket.closed().await, 1008);
}

#[tokio::test]
async fn a_session_that_ends_takes_its_sockets_with_it() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let mut socket = chat.listen(&ana).await;
    chat.house.issuer.end(ana.session);
    assert_eq!(socket.closed().await, 1008);
}
