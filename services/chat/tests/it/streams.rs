//! The chat of streams, which opens and closes with them.

use common::{BroadcastId, StreamId, UserId};
use events::{Event as _, StreamDeleted, StreamEnded, StreamWentLive};
use serde_json::{Value, json};
use testkit::{Redis, eventually};

use crate::socket_io::Io;
use crate::support::{TestChat, User, problem};

const STREAM: StreamId = StreamId(7);

impl TestChat {
    async fn went_live(&self, owner: UserId, stream_id: StreamId, broadcast: i64, is_public: bool) {
        let event = StreamWentLive {
            stream_id,
            broadcast_id: BroadcastId(broadcast),
            user_id: owner,
            title: format!("Cooking, part {broadcast}"),
            is_public,
            ..StreamWentLive::example()
        };
        self.told(&event).await;
    }

    async fn ended(&self, owner: UserId, broadcast: i64) {
        let event = StreamEnded {
            stream_id: STREAM,
            broadcast_id: BroadcastId(broadcast),
            user_id: owner,
            ..StreamEnded::example()
        };
        self.told(&event).await;
    }

    /// Says something in the stream's chat until that is answered as expected: events take a moment.
    async fn until_answered(&self, user: &User, is_expected: impl Fn(&Value) -> bool) -> Value {
        let mut io = Io::connected(self, user).await;
        eventually("the answer is as expected", async || {
            let answer = io.ask("chat_message", &json!({"streamId": STREAM, "message": "hi"})).await;
            is_expected(&answer).then_some(answer)
        })
        .await
    }
}

fn is_stored(answer: &Value) -> bool {
    answer["seq"].is_i64()
}

fn is_refused(code: &'static str) -> impl Fn(&Value) -> bool {
    move |answer| answer["error"]["code"] == code
}

#[tokio::test]
async fn a_stream_has_a_chat_that_everybody_who_is_signed_in_takes_part_in() {
    let chat = TestChat::start().await;
    let (owner, ana, ben) = (chat.user("Owner"), chat.user("Ana"), chat.user("Ben"));
    chat.went_live(owner.id, STREAM, 1, true).await;
    chat.until_answered(&ana, is_stored).await;
    let mut ben_io = Io::connected(&chat, &ben).await;
    let joined = ben_io.ask("join_stream", &json!({"streamId": STREAM.to_string()})).await;
    assert_eq!((&joined["streamId"], &joined["seq"]), (&json!(STREAM), &json!(1)));

    let mut ana_io = Io::connected(&chat, &ana).await;
    let stored = ana_io.ask("chat_message", &json!({"streamId": STREAM, "message": "Hello"})).await;

    let heard = ben_io.until("chat_message").await;
    assert_eq!((&heard["streamId"], &heard["roomId"]), (&json!(STREAM), &joined["roomId"]));
    assert_eq!((&heard["userId"], &heard["message"]), (&json!(ana.id), &json!("Hello")));
    assert_eq!((&heard["messageId"], &heard["seq"]), (&stored["messageId"], &json!(2)));
    assert_eq!(heard["timestamp"], stored["timestamp"]);
    let rooms: Value = chat.get(&ben, "/rooms").send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&rooms["items"][0]["kind"], &rooms["items"][0]["room_name"]),
        (&json!("stream"), &json!("Cooking, part 1"))
    );
    assert_eq!(rooms["items"][0]["stream_id"], json!(STREAM));
    let members = format!("/rooms/{}/members", joined["roomId"]);
    let members: Value = chat.get(&ben, &members).send().await.unwrap().json().await.unwrap();
    assert_eq!((&members["total"], &members["items"][0]["member_role"]), (&json!(3), &json!("owner")));
}

#[tokio::test]
async fn clients_of_003_take_part_too() {
    let chat = TestChat::start().await;
    let (owner, ana, ben) = (chat.user("Owner"), chat.user("Ana"), chat.user("Ben"));
    chat.went_live(owner.id, STREAM, 1, true).await;
    chat.until_answered(&ana, is_stored).await;
    let mut io = Io::connected(&chat, &ana).await;
    let room = io.ask("join", &json!({"streamId": STREAM})).await["roomId"].as_i64().unwrap();

    let joined = chat.post(&ben, &format!("/rooms/{room}/join"), &json!({})).send().await.unwrap();
    assert_eq!(joined.status(), 200);
    let mut socket = chat.socket_in(&ben, room).await;
    socket.send(room, "from a WebSocket").await;

    assert_eq!(io.until("chat_message").await["message"], "from a WebSocket");
    let left = chat.post(&ben, &format!("/rooms/{room}/leave"), &json!({})).send().await.unwrap();
    assert_eq!(left.status(), 204);
}

#[tokio::test]
async fn a_streams_chat_is_open_under_both_of_its_names() {
    let chat = TestChat::start().await;
    let (owner, ana, ben) = (chat.user("Owner"), chat.user("Ana"), chat.user("Ben"));
    chat.went_live(owner.id, STREAM, 1, true).await;
    chat.until_answered(&ana, is_stored).await;
    let mut ana_io = Io::connected(&chat, &ana).await;
    let room = ana_io.ask("join", &json!({"streamId": STREAM})).await["roomId"].clone();
    let mut ben_io = Io::connected(&chat, &ben).await;
    ben_io.ask("join", &json!({"streamId": STREAM})).await;
    ben_io.ask("leave", &json!({"roomId": room})).await;

    let joined = ben_io.ask("join", &json!({"roomId": room})).await;
    ben_io.say(&format!("428{}", json!(["chat_message", {"streamId": STREAM, "message": "by the stream"}]))).await;
    let stored = loop {
        let heard = ben_io.hear().await.unwrap();
        assert!(!heard.starts_with("42[\"joined\""), "it is open already: {heard}");
        if let Some(answer) = heard.strip_prefix("438") {
            break serde_json::from_str::<Value>(answer).unwrap()[0].clone();
        }
    };
    let again = ben_io.ask("chat_message", &json!({"roomId": room, "message": "by the room"})).await;

    assert_eq!(joined, json!({"roomId": room, "seq": 1, "recovered": null}));
    assert_eq!((&stored["seq"], &again["seq"]), (&json!(2), &json!(3)));
    for expected in ["by the stream", "by the room"] {
        let heard = ana_io.until("chat_message").await;
        assert_eq!((&heard["streamId"], &heard["message"]), (&json!(STREAM), &json!(expected)));
    }
    ben_io.ask("leave", &json!({"streamId": STREAM})).await;
    let refused = ben_io.ask("chat_message", &json!({"roomId": room, "message": "after leaving"})).await;
    assert_eq!(refused["error"]["code"], "not-joined");
}

#[tokio::test]
async fn after_its_end_a_streams_chat_is_read_only_until_the_next_start() {
    let chat = TestChat::start().await;
    let (owner, ana) = (chat.user("Owner"), chat.user("Ana"));
    chat.went_live(owner.id, STREAM, 1, true).await;
    chat.until_answered(&ana, is_stored).await;

    chat.ended(owner.id, 1).await;

    chat.until_answered(&ana, is_refused("room-closed")).await;
    let mut io = Io::connected(&chat, &ana).await;
    let closed = io.ask("join", &json!({"streamId": STREAM, "since": 0})).await;
    assert_eq!(closed["recovered"], true);
    assert_eq!(io.until("chat_message").await["message"], "hi", "it can still be read");
    chat.went_live(owner.id, STREAM, 2, true).await;
    let next = closed["seq"].as_i64().unwrap() + 1;
    assert_eq!(chat.until_answered(&ana, is_stored).await["seq"], next, "the same room, again");
    // What was told of an older broadcast comes too late to count.
    chat.ended(owner.id, 1).await;
    chat.went_live(owner.id, StreamId(8), 3, true).await;
    eventually("the later event was handled", async || {
        (io.ask("join", &json!({"streamId": 8})).await["roomId"].is_i64()).then_some(())
    })
    .await;
    chat.until_answered(&ana, is_stored).await;
}

#[tokio::test]
async fn the_chat_of_a_deleted_stream_is_gone_for_everybody_and_whoever_is_in_it_is_told() {
    let chat = TestChat::start().await;
    let (owner, ana, ben) = (chat.user("Owner"), chat.user("Ana"), chat.user("Ben"));
    chat.went_live(owner.id, STREAM, 1, true).await;
    chat.until_answered(&ana, is_stored).await;
    let mut io = Io::connected(&chat, &ana).await;
    let room = io.ask("join", &json!({"streamId": STREAM})).await["roomId"].as_i64().unwrap();
    chat.post(&ben, &format!("/rooms/{room}/join"), &json!({})).send().await.unwrap();
    let mut socket = chat.socket_in(&ben, room).await;

    chat.told(&StreamDeleted { stream_id: STREAM, user_id: owner.id }).await;

    assert_eq!(socket.until("room_deleted").await["room_id"], room);
    assert_eq!(io.until("room_deleted").await, json!({"streamId": STREAM, "roomId": room}));
    chat.until_answered(&ana, is_refused("no-such-room")).await;
    socket.send(room, "anybody here?").await;
    assert_eq!(socket.until("error").await["code"], "no-such-room");
    let rooms: Value = chat.get(&ben, "/rooms").send().await.unwrap().json().await.unwrap();
    assert_eq!(rooms["total"], 0);
    problem(chat.get(&ben, &format!("/rooms/{room}/messages")).send().await.unwrap(), 404, "no-such-room").await;
    assert_eq!(chat.stored(room).await, []);

    // An event that was parked and comes late.
    chat.went_live(owner.id, STREAM, 1, true).await;
    chat.went_live(owner.id, StreamId(8), 2, true).await;
    eventually("the later event was handled", async || {
        (io.ask("join", &json!({"streamId": 8})).await["roomId"].is_i64()).then_some(())
    })
    .await;
    assert_eq!(io.ask("join", &json!({"streamId": STREAM})).await["error"]["code"], "no-such-room");
}

#[tokio::test]
async fn whoever_is_at_another_instance_is_told_of_the_deletion_also_without_redis() {
    let redis = Redis::private().await;
    let settings = vec![("REDIS_URL", redis.url()), ("REDIS_PREFIX", "test".to_owned())];
    let here = TestChat::with(settings).await;
    let there = here.another().await;
    let (owner, ana) = (here.user("Owner"), here.user("Ana"));
    here.went_live(owner.id, STREAM, 1, true).await;
    here.until_answered(&ana, is_stored).await;
    // One of the two handles the event.
    let (mut one, mut other) = (Io::connected(&here, &ana).await, Io::connected(&there, &ana).await);
    for io in [&mut one, &mut other] {
        io.ask("join", &json!({"streamId": STREAM})).await;
    }

    redis.kill().await;
    here.told(&StreamDeleted { stream_id: STREAM, user_id: owner.id }).await;

    for io in [&mut one, &mut other] {
        assert_eq!(io.until("room_deleted").await["streamId"], json!(STREAM));
    }
}

#[tokio::test]
async fn a_stream_that_is_not_public_has_no_chat() {
    let chat = TestChat::start().await;
    let (owner, ana) = (chat.user("Owner"), chat.user("Ana"));
    chat.went_live(owner.id, STREAM, 1, false).await;
    chat.went_live(owner.id, StreamId(8), 2, true).await;
    let mut io = Io::connected(&chat, &ana).await;
    eventually("the later event was handled", async || {
        (io.ask("join", &json!({"streamId": 8})).await["roomId"].is_i64()).then_some(())
    })
    .await;
    assert_eq!(io.ask("join", &json!({"streamId": STREAM})).await["error"]["code"], "no-such-room");
    assert_eq!(
        io.ask("chat_message", &json!({"streamId": STREAM, "message": "hi"})).await["error"]["code"],
        "no-such-room"
    );
}
