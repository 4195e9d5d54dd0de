use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{TestChat, User, problem};

async fn list(chat: &TestChat, user: &User) -> Value {
    chat.get(user, "/conversations").send().await.unwrap().json().await.unwrap()
}

fn path(conversation: &Value, rest: &str) -> String {
    format!("/conversations/{}{rest}", conversation["id"].as_str().unwrap())
}

#[tokio::test]
async fn two_users_have_one_private_conversation_whoever_begins_it() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.known("Ana").await, chat.known("Ben").await);
    let begin = async |n: usize| {
        let (from, body) = match n % 2 {
            0 => (&ana, json!({"type": "private", "userId": ben.id})),
            _ => (&ben, json!({"type": "private", "participantIds": [ana.id]})),
        };
        let answer = chat.post(from, "/conversations", &body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["id"].clone())
    };

    let answers = join_all((0..20).map(begin)).await;

    assert_eq!(answers.iter().filter(|(status, _)| *status == 201).count(), 1);
    assert!(answers.iter().all(|(status, _)| [200, 201].contains(status)), "{answers:?}");
    assert!(answers.iter().all(|(_, id)| *id == answers[0].1));
    for user in [&ana, &ben] {
        let list = list(&chat, user).await;
        assert_eq!((&list["total"], &list["items"][0]["id"]), (&json!(1), &answers[0].1));
        assert_eq!(list["items"][0]["participantCount"], 2);
    }
}

#[tokio::test]
async fn a_group_has_a_name_and_those_who_were_asked() {
    let chat = TestChat::start().await;
    let (ana, ben, cem) = (chat.known("Ana").await, chat.known("Ben").await, chat.known("Cem").await);
    let body = json!({"type": "group", "name": "Cooking", "participantIds": [ben.id, cem.id, ben.id, ana.id]});
    let answer = chat.post(&ana, "/conversations", &body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let group: Value = answer.json().await.unwrap();
    assert_eq!((&group["type"], &group["name"]), (&json!("group"), &json!("Cooking")));
    assert_eq!((&group["avatarUrl"], &group["lastMessage"]), (&Value::Null, &Value::Null));
    let mut names: Vec<_> =
        group["participants"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["Ana", "Ben", "Cem"]);

    let seen: Value = chat.get(&ben, &path(&group, "")).send().await.unwrap().json().await.unwrap();
    assert_eq!(seen["id"], group["id"]);
    let eve = chat.known("Eve").await;
    for rest in ["", "/messages"] {
        problem(chat.get(&eve, &path(&group, rest)).send().await.unwrap(), 404, "no-such-room").await;
    }
    for rest in ["/messages", "/read"] {
        let answer = chat.post(&eve, &path(&group, rest), &json!({"content": "hi"})).send().await.unwrap();
        problem(answer, 404, "no-such-room").await;
    }
}

#[tokio::test]
async fn conversations_are_listed_with_what_was_said_last_and_what_is_unread() {
    let chat = TestChat::start().await;
    let (ana, ben, cem) = (chat.known("Ana").await, chat.known("Ben").await, chat.known("Cem").await);
    let (with_ben, with_cem) = (chat.private(&ana, &ben).await, chat.private(&ana, &cem).await);
    for text in ["one", "two"] {
        let said = chat.post(&ben, &path(&with_ben, "/messages"), &json!({"content": text})).send().await.unwrap();
        assert_eq!(said.status(), 201);
    }
    let own = chat.post(
        &ana,
        &path(&with_ben, "/messages"),
        &json!({"content": "three", "type": "image", "fileUrl": "/a.png"}),
    );
    let own: Value = own.send().await.unwrap().json().await.unwrap();
    assert_eq!((&own["senderId"], &own["senderName"]), (&json!(ana.id), &json!("Ana")));
    assert_eq!(
        (&own["type"], &own["fileUrl"], &own["conversationId"]),
        (&json!("image"), &json!("/a.png"), &with_ben["id"])
    );

    let list = list(&chat, &ana).await;

    let ids: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| &item["id"]).collect();
    assert_eq!(ids, [&with_ben["id"], &with_cem["id"]], "where something was said last");
    let first = &list["items"][0];
    assert_eq!((&first["unreadCount"], &first["lastMessage"]), (&json!(2), &own), "one's own are not unread");
    assert_eq!(list["items"][1]["unreadCount"], 0);
}

#[tokio::test]
async fn what_was_read_stays_read() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.known("Ana").await, chat.known("Ben").await);
    let conversation = chat.private(&ana, &ben).await;
    let mut ids = Vec::new();
    for n in 1..=5 {
        let body = json!({"content": n.to_string()});
        let said = chat.post(&ben, &path(&conversation, "/messages"), &body).send().await.unwrap();
        ids.push(said.json::<Value>().await.unwrap()["id"].clone());
    }
    let read = async |body: Value| {
        let answer = chat.post(&ana, &path(&conversation, "/read"), &body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let body: Value = answer.json().await.unwrap();
        (body["lastReadSeq"].as_i64().unwrap(), body["unreadCount"].as_i64().unwrap(), body["lastReadAt"].clone())
    };

    let third = read(json!({"messageId": ids[2]})).await;
    assert_eq!((third.0, third.1), (3, 2));
    assert_eq!(read(json!({"messageId": ids[0]})).await, third, "never backwards");
    let all = read(json!({})).await;
    assert_eq!((all.0, all.1), (5, 0));
    assert_eq!(read(json!({"messageId": ids[3]})).await, all);
    let answer = chat.post(&ana, &path(&conversation, "/read"), &json!({"messageId": 999_999})).send().await.unwrap();
    let body = problem(answer, 422, "invalid-fields").await;
    assert!(body["fields"].get("messageId").is_some(), "{body}");
    let seen: Value = chat.get(&ben, &path(&conversation, "")).send().await.unwrap().json().await.unwrap();
    let of_ana = seen["participants"].as_array().unwrap().iter().find(|one| one["userId"] == json!(ana.id)).unwrap();
    assert_eq!((&of_ana["lastReadSeq"], &of_ana["lastReadAt"]), (&json!(5), &all.2), "others see it");
}

#[tokio::test]
async fn who_comes_later_has_nothing_unread() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let made = chat.made(&ana).await;
    chat.said(&ana, made.id, "before").await;
    chat.post(&ben, "/rooms/join-by-code", &json!({"room_code": made.code})).send().await.unwrap();
    assert_eq!(list(&chat, &ben).await["items"][0]["unreadCount"], 0);
    chat.said(&ana, made.id, "after").await;
    assert_eq!(list(&chat, &ben).await["items"][0]["unreadCount"], 1);
}

#[tokio::test]
async fn history_is_read_in_pages_and_a_message_sent_twice_is_one() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.known("Ana").await, chat.known("Ben").await);
    let conversation = chat.private(&ana, &ben).await;
    let messages = path(&conversation, "/messages");
    for n in [1, 2, 3, 3] {
        let body = json!({"content": n.to_string()});
        let answer =
            chat.post(&ana, &messages, &body).header("Idempotency-Key", format!("m-{n}")).send().await.unwrap();
        assert!(answer.status().is_success());
    }
    let read = async |query: String| {
        let body: Value = chat.get(&ben, &format!("{messages}?{query}")).send().await.unwrap().json().await.unwrap();
        let items = body["items"].as_array().unwrap().clone();
        let contents: Vec<_> = items.iter().map(|item| item["content"].as_str().unwrap().to_owned()).collect();
        (contents.join(" "), items[0]["id"].clone(), body["hasOlder"] == true, body["hasNewer"] == true)
    };
    let (all, first, older, newer) = read(String::new()).await;
    assert_eq!((&*all, older, newer), ("1 2 3", false, false));
    assert_eq!(read(format!("after={first}&limit=1")).await.0, "2");
    assert_eq!(read("page=2&limit=2".to_owned()).await.0, "1");
}

#[tokio::test]
async fn a_conversation_that_cannot_be_is_refused() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.known("Ana").await, chat.known("Ben").await);
    let nobody = chat.user("Nobody");
    let many: Vec<_> = (0..256).map(|_| common::UserId::new()).collect();
    for (field, body) in [
        ("userId", json!({"type": "private"})),
        ("userId", json!({"type": "private", "userId": ana.id})),
        ("userId", json!({"type": "private", "participantIds": [ben.id, nobody.id]})),
        ("participantIds", json!({"type": "group", "participantIds": many})),
        ("name", json!({"type": "group", "name": "a".repeat(256)})),
    ] {
        let body = problem(chat.post(&ana, "/conversations", &body).send().await.unwrap(), 422, "invalid-fields").await;
        assert!(body["fields"].get(field).is_some(), "{field} in {body}");
    }
    for body in [
        json!({"type": "private", "userId": nobody.id}),
        json!({"type": "group", "participantIds": [ben.id, nobody.id]}),
    ] {
        problem(chat.post(&ana, "/conversations", &body).send().await.unwrap(), 404, "no-such-user").await;
    }
    assert_eq!(list(&chat, &ana).await["total"], 0);
}
