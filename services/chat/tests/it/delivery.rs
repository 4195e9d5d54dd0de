use serde_json::json;
use testkit::Postgres;

use crate::support::{TestChat, problem};

#[tokio::test]
async fn a_client_that_comes_back_gets_exactly_what_it_has_missed() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let room = chat.room_of(&[&ana, &ben]).await;
    for n in 1..=5 {
        chat.said(&ana, room, &format!("{n}")).await;
    }
    let mut socket = chat.socket(&ben, "").await;
    for since in 0..=5 {
        socket.say(&json!({"type": "join_room", "room_id": room, "since": since})).await;
        let joined = socket.until("joined").await;
        assert_eq!((&joined["recovered"], &joined["seq"]), (&json!(true), &json!(5)));
        let missed = socket.messages(5 - usize::try_from(since).unwrap()).await;
        let expected: Vec<_> = (since + 1..=5).map(|n| (n, n.to_string())).collect();
        assert_eq!(missed, expected);
    }
    // A memory of another room, of another time, or of nothing that there is.
    for since in [6, -1, i64::MIN, i64::MAX] {
        socket.say(&json!({"type": "join_room", "room_id": room, "since": since})).await;
        assert_eq!(socket.until("joined").await["recovered"], false);
    }
}

#[tokio::test]
async fn who_was_away_for_too_long_is_told_to_load_anew() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let room = chat.room_of(&[&ana]).await;
    let mut socket = chat.socket_in(&ana, room).await;
    for n in 0..501 {
        socket.send(room, &format!("{n}")).await;
    }
    socket.messages(501).await;
    let mut back = chat.socket(&ana, "").await;
    back.say(&json!({"type": "join_room", "room_id": room, "since": 0})).await;
    assert_eq!(back.until("joined").await["recovered"], false);
    back.say(&json!({"type": "join_room", "room_id": room, "since": 1})).await;
    assert_eq!(back.until("joined").await["recovered"], true);
    let contents = back.messages(500).await;
    assert!(contents.iter().zip(2..).all(|((seq, content), n)| *seq == n && *content == (n - 1).to_string()));
}

#[tokio::test]
async fn many_write_at_once_and_all_read_the_same_order_without_a_gap() {
    const EACH: usize = 50;
    let chat = TestChat::start().await;
    let users: Vec<_> = (0..8).map(|n| chat.user(&format!("User {n}"))).collect();
    let room = chat.room_of(&users.iter().collect::<Vec<_>>()).await;
    let mut sockets = Vec::new();
    for user in &users {
        sockets.push(chat.socket_in(user, room).await);
    }
    let talk = sockets.iter_mut().enumerate().map(async |(who, socket)| {
        for n in 0..EACH {
            socket.send(room, &format!("{who} {n}")).await;
        }
        socket.messages(EACH * 8).await
    });

    let heard = futures_util::future::join_all(talk).await;

    let stored = chat.stored(room).await;
    assert_eq!(stored.len(), EACH * 8);
    assert!(stored.iter().zip(1..).all(|((seq, _), n)| *seq == n));
    for messages in heard {
        assert_eq!(messages, stored);
    }
    for who in 0..8 {
        let own: Vec<_> = stored.iter().filter(|(_, content)| content.starts_with(&format!("{who} "))).collect();
        assert!(own.iter().enumerate().all(|(n, (_, content))| *content == format!("{who} {n}")), "in the order sent");
    }
}

#[tokio::test]
async fn a_message_is_acknowledged_under_its_own_name() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let room = chat.room_of(&[&ana]).await;
    let mut socket = chat.socket_in(&ana, room).await;
    let message = json!({"type": "send_message", "room_id": room, "content": "hi", "client_message_id": "m-1"});
    socket.say(&message).await;
    let ack = socket.until("ack").await;
    assert_eq!((&ack["client_message_id"], &ack["seq"]), (&json!("m-1"), &json!(1)));
    socket.say(&message).await;
    assert_eq!(socket.until("ack").await, ack, "the same message");
    assert_eq!(chat.stored(room).await.len(), 1);
}

#[tokio::test]
async fn without_postgresql_nothing_is_acknowledged_and_it_recovers_by_itself() {
    let postgres = Postgres::private().await;
    let chat = TestChat::on(testkit::database_on(&postgres.url()).await, Vec::new()).await;
    let ana = chat.user("Ana");
    let room = chat.room_of(&[&ana]).await;
    let mut socket = chat.socket_in(&ana, room).await;
    socket.send(room, "before").await;
    socket.until("ack").await;

    postgres.kill().await;

    socket.send(room, "lost").await;
    assert_eq!(socket.until("error").await["code"], "unavailable");
    let path = format!("/rooms/{room}/messages");
    problem(chat.post(&ana, &path, &json!({"content": "lost too"})).send().await.unwrap(), 503, "unavailable").await;

    postgres.start().await;

    testkit::eventually("messages are stored again", async || {
        let answer = chat.post(&ana, &path, &json!({"content": "after"})).send().await.unwrap();
        (answer.status() == 201).then_some(())
    })
    .await;
    assert_eq!(socket.messages(1).await[0].1, "after", "the socket has lived on");
    let contents: Vec<_> = chat.stored(room).await.into_iter().map(|(_, content)| content).collect();
    assert_eq!(contents, ["before", "after"]);
}

#[tokio::test]
async fn a_message_whose_commit_was_not_heard_of_is_told_when_it_is_sent_again() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let room = chat.room_of(&[&ana, &ben]).await;
    let (mut first, mut second) = (chat.socket_in(&ana, room).await, chat.socket_in(&ben, room).await);
    // As it is when the database commits, and its answer is lost with the connection.
    chat.query("update chat.rooms set last_seq = 1 where room_id = $1", &[&room]).await;
    let sql = "insert into chat.messages (room_id, seq, user_uuid, content, client_message_id, message_created_at)
               values ($1, 1, $2::text::uuid, 'hi', 'm-1', now())";
    chat.query(sql, &[&room, &ana.id.to_string()]).await;

    first.say(&json!({"type": "send_message", "room_id": room, "content": "hi", "client_message_id": "m-1"})).await;

    assert_eq!(first.until("ack").await["seq"], 1);
    assert_eq!(second.messages(1).await, [(1, "hi".to_owned())]);
}
