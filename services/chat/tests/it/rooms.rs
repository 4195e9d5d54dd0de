use serde_json::{Value, json};

use crate::support::{TestChat, problem};

#[tokio::test]
async fn a_room_is_made_joined_by_its_code_and_left() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let made = chat.made(&ana).await;
    assert_eq!(made.code.len(), 6);

    let code = json!({"room_code": made.code.to_lowercase()});
    for _ in 0..2 {
        let answer = chat.post(&ben, "/rooms/join-by-code", &code).send().await.unwrap();
        assert_eq!(answer.status(), 200, "joining twice is fine");
    }

    let members: Value =
        chat.get(&ben, &format!("/rooms/{}/members", made.id)).send().await.unwrap().json().await.unwrap();
    let of = |index: usize| (&members["items"][index]["user_uuid"], &members["items"][index]["member_role"]);
    assert_eq!(of(0), (&json!(ana.id), &json!("owner")));
    assert_eq!(of(1), (&json!(ben.id), &json!("member")));
    let list: Value = chat.get(&ben, "/rooms").send().await.unwrap().json().await.unwrap();
    assert_eq!((&list["total"], &list["items"][0]["room_id"]), (&json!(1), &json!(made.id)));

    let leave = format!("/rooms/{}/leave", made.id);
    assert_eq!(chat.post(&ben, &leave, &json!({})).send().await.unwrap().status(), 204);
    problem(chat.post(&ben, &leave, &json!({})).send().await.unwrap(), 404, "no-such-room").await;
    problem(chat.get(&ben, &format!("/rooms/{}/members", made.id)).send().await.unwrap(), 404, "no-such-room").await;
    let join = format!("/rooms/{}/join", made.id);
    assert_eq!(chat.post(&ben, &join, &json!({})).send().await.unwrap().status(), 200, "who has left may come back");
}

#[tokio::test]
async fn a_group_is_joined_by_its_id_only_if_it_is_public() {
    let chat = TestChat::start().await;
    let (ana, ben, eve) = (chat.known("Ana").await, chat.known("Ben").await, chat.user("Eve"));
    let private = chat.made(&ana).await.id;
    let direct = chat.private(&ana, &ben).await["roomId"].as_i64().unwrap();
    let public = json!({"room_name": "Everybody", "room_is_public": true});
    let public: Value = chat.post(&ana, "/rooms", &public).send().await.unwrap().json().await.unwrap();
    let join = async |room: i64| chat.post(&eve, &format!("/rooms/{room}/join"), &json!({})).send().await.unwrap();

    for room in [private, direct, 999_999] {
        let refused = problem(join(room).await, 404, "no-such-room").await;
        let detail = refused["detail"].as_str().unwrap().replace(&room.to_string(), "…");
        assert_eq!(detail, "there is no room … that you may join by its id: a group is joined with its code");
    }

    let joined = join(public["room_id"].as_i64().unwrap()).await;
    assert_eq!(joined.status(), 200);
    assert_eq!(joined.json::<Value>().await.unwrap()["room_is_public"], true);
    let rooms: Value = chat.get(&eve, "/rooms").send().await.unwrap().json().await.unwrap();
    assert_eq!((&rooms["total"], &rooms["items"][0]["room_id"]), (&json!(1), &public["room_id"]));
}

#[tokio::test]
async fn only_members_read_and_write() {
    let chat = TestChat::start().await;
    let (ana, eve) = (chat.user("Ana"), chat.user("Eve"));
    let room = chat.room_of(&[&ana]).await;
    let path = format!("/rooms/{room}/messages");

    problem(chat.get(&eve, &path).send().await.unwrap(), 404, "no-such-room").await;
    problem(chat.post(&eve, &path, &json!({"content": "hi"})).send().await.unwrap(), 404, "no-such-room").await;
    let status = format!("/chat/rooms/{room}/status");
    problem(chat.get(&eve, &status).send().await.unwrap(), 404, "no-such-room").await;
    assert!(chat.stored(room).await.is_empty());
}

#[tokio::test]
async fn a_message_sent_twice_under_one_name_is_one() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let room = chat.room_of(&[&ana, &ben]).await;
    let path = format!("/rooms/{room}/messages");
    let body = json!({"content": "once", "client_message_id": "a1"});

    let (one, two) = tokio::join!(chat.post(&ana, &path, &body).send(), chat.post(&ana, &path, &body).send());
    let third = chat.post(&ana, &path, &json!({"content": "other"})).header("Idempotency-Key", "a1").send().await;

    let (one, two, third) = (one.unwrap(), two.unwrap(), third.unwrap());
    let mut statuses = [one.status().as_u16(), two.status().as_u16()];
    statuses.sort_unstable();
    assert_eq!((statuses, third.status().as_u16()), ([200, 201], 200));
    let ids = [one.json::<Value>().await, two.json().await, third.json().await]
        .map(|body| body.unwrap()["message_id"].clone());
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    // Another's name for another message.
    assert_eq!(chat.post(&ben, &path, &body).send().await.unwrap().status(), 201);
    assert_eq!(chat.stored(room).await.len(), 2);
}

#[tokio::test]
async fn history_is_read_in_pages_and_around_a_message() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let room = chat.room_of(&[&ana]).await;
    let mut ids = Vec::new();
    for n in 1..=10 {
        ids.push(chat.said(&ana, room, &format!("{n}")).await["message_id"].as_i64().unwrap());
    }
    let read = async |query: String| {
        let path = format!("/rooms/{room}/messages?{query}");
        let body: Value = chat.get(&ana, &path).send().await.unwrap().json().await.unwrap();
        let contents: Vec<_> =
            body["items"].as_array().unwrap().iter().map(|item| item["content"].as_str().unwrap().to_owned()).collect();
        (contents.join(" "), body["has_older"].as_bool().unwrap(), body["has_newer"].as_bool().unwrap())
    };
    let expect = |text: &str, older, newer| (text.to_owned(), older, newer);

    assert_eq!(read("limit=3".into()).await, expect("8 9 10", true, false));
    assert_eq!(read("limit=3&page=2".into()).await, expect("5 6 7", true, true));
    assert_eq!(read("limit=3&page=4".into()).await, expect("1", false, true));
    assert_eq!(read(format!("limit=3&before={}", ids[4])).await, expect("2 3 4", true, true));
    assert_eq!(read(format!("limit=3&before={}", ids[1])).await, expect("1", false, true));
    assert_eq!(read(format!("limit=3&after={}", ids[8])).await, expect("10", true, false));
    assert_eq!(read(format!("limit=4&around={}", ids[4])).await, expect("3 4 5 6", true, true));
    let path = format!("/rooms/{room}/messages?before={}&after=1", ids[0]);
    problem(chat.get(&ana, &path).send().await.unwrap(), 422, "invalid-fields").await;
    let path = format!("/rooms/{room}/messages?before=999999");
    problem(chat.get(&ana, &path).send().await.unwrap(), 422, "invalid-fields").await;
}

#[tokio::test]
async fn guessing_codes_becomes_slow() {
    let chat = TestChat::start().await;
    let (ana, eve) = (chat.user("Ana"), chat.user("Eve"));
    let made = chat.made(&ana).await;
    let mut statuses = Vec::new();
    for n in 0..12 {
        let code = format!("ZZZZ{}{}", n % 8 + 2, n / 8 + 2);
        let answer = chat.post(&eve, "/rooms/join-by-code", &json!({"room_code": code})).send().await.unwrap();
        statuses.push(answer.status().as_u16());
        if answer.status() == 429 {
            assert!(answer.headers().contains_key("retry-after"));
        }
    }
    assert_eq!(statuses[..10], [404; 10]);
    assert_eq!(statuses[11], 429);
    let own = chat.post(&ana, "/rooms/join-by-code", &json!({"room_code": made.code})).send().await.unwrap();
    assert_eq!(own.status(), 200, "others are not slowed");
}

#[tokio::test]
async fn bad_input_is_refused_with_the_field_that_is_wrong() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let room = chat.room_of(&[&ana]).await;
    let messages = format!("/rooms/{room}/messages");
    for (path, field, body) in [
        ("/rooms", "room_name", json!({"room_name": "a".repeat(256)})),
        ("/rooms", "room_name", json!({"room_name": "a\u{0}b"})),
        ("/rooms/join-by-code", "room_code", json!({"room_code": "ABC"})),
        (&*messages, "content", json!({"content": " "})),
        (&*messages, "content", json!({"content": "a\u{0}"})),
        (&*messages, "content", json!({"content": "a".repeat(8001)})),
        (&*messages, "file_url", json!({"content": "a", "file_url": "javascript:alert(1)"})),
        (&*messages, "client_message_id", json!({"content": "a", "client_message_id": ""})),
    ] {
        let body = problem(chat.post(&ana, path, &body).send().await.unwrap(), 422, "invalid-fields").await;
        assert!(body["fields"].get(field).is_some(), "{field} in {body}");
    }
    let named = json!({"content": "a", "client_message_id": "a1"});
    let answer = chat.post(&ana, &messages, &named).header("Idempotency-Key", "a b").send().await.unwrap();
    let body = problem(answer, 422, "invalid-fields").await;
    assert!(body["fields"].get("idempotency-key").is_some(), "also beside a name that is valid: {body}");
    assert!(chat.stored(room).await.is_empty());
}
