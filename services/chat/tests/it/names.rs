//! Names and addresses of users, as auth tells of them.

use common::{Role, StreamId};
use events::{Event as _, StreamWentLive, UserDeleted, UserEmailChanged, UserRegistered};
use serde_json::{Value, json};
use testkit::eventually;

use crate::socket_io::Io;
use crate::support::{TestChat, User};

impl TestChat {
    async fn registered(&self, user: &User, name: &str, email: Option<&str>) {
        let (full_name, email) = (name.to_owned(), email.map(str::to_owned));
        self.told(&UserRegistered { user_id: user.id, full_name, role: Role::Member, email }).await;
    }

    /// The name and the address that the room's only message is shown with, once they are these.
    async fn until_shown(&self, reader: &User, room: i64, name: &Value, email: &Value) {
        eventually(&format!("the message is of {name}, {email}"), async || {
            let path = format!("/rooms/{room}/messages");
            let history: Value = self.get(reader, &path).send().await.unwrap().json().await.unwrap();
            let message = &history["items"][0];
            ((&message["user_fullname"], &message["user_email"]) == (name, email)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn messages_show_the_name_and_the_address_of_who_wrote_them_until_the_account_is_deleted() {
    let chat = TestChat::start().await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let room = chat.room_of(&[&ana, &ben]).await;
    chat.said(&ana, room, "hi").await;

    chat.registered(&ana, "Ana Silva", Some("ana@example.org")).await;
    chat.until_shown(&ben, room, &json!("Ana Silva"), &json!("ana@example.org")).await;
    chat.told(&UserEmailChanged { user_id: ana.id, email: "ana@example.net".to_owned() }).await;
    chat.until_shown(&ben, room, &json!("Ana Silva"), &json!("ana@example.net")).await;

    let mut socket = chat.socket_in(&ben, room).await;
    let sent = chat.said(&ana, room, "again").await;
    let data = socket.until("new_message").await["data"].clone();
    assert_eq!(
        (&data["user_fullname"], &data["user_email"], &sent["user_email"]),
        (&json!("Ana Silva"), &json!("ana@example.net"), &json!("ana@example.net"))
    );
    socket.say(&json!({"type": "join_room", "room_id": room, "since": 0})).await;
    assert_eq!(socket.until("new_message").await["data"]["user_email"], "ana@example.net", "also what was missed");

    chat.told(&UserDeleted { user_id: ana.id }).await;
    chat.until_shown(&ben, room, &Value::Null, &Value::Null).await;
}

#[tokio::test]
async fn a_user_of_whom_auth_told_before_it_told_addresses_has_none() {
    let chat = TestChat::start().await;
    let ana = chat.user("Ana");
    let room = chat.room_of(&[&ana]).await;
    chat.said(&ana, room, "hi").await;

    chat.registered(&ana, "Ana Silva", None).await;

    chat.until_shown(&ana, room, &json!("Ana Silva"), &Value::Null).await;
}

#[tokio::test]
async fn addresses_can_be_hidden() {
    let chat = TestChat::with(vec![("CHAT_SHOW_EMAILS", "false".to_owned())]).await;
    let (ana, ben) = (chat.user("Ana"), chat.user("Ben"));
    let room = chat.room_of(&[&ana, &ben]).await;
    let mut socket = chat.socket_in(&ben, room).await;
    chat.said(&ana, room, "hi").await;
    socket.until("new_message").await;

    chat.registered(&ana, "Ana Silva", Some("ana@example.org")).await;

    chat.until_shown(&ben, room, &json!("Ana Silva"), &Value::Null).await;
    chat.said(&ana, room, "again").await;
    let data = socket.until("new_message").await["data"].clone();
    assert_eq!((&data["user_fullname"], &data["user_email"]), (&json!("Ana Silva"), &Value::Null));
}

#[tokio::test]
async fn in_the_chat_of_a_stream_nobody_sees_addresses() {
    let chat = TestChat::start().await;
    let (owner, ana) = (chat.user("Owner"), chat.user("Ana"));
    chat.registered(&ana, "Ana Silva", Some("ana@example.org")).await;
    let live = StreamWentLive { user_id: owner.id, is_public: true, ..StreamWentLive::example() };
    let StreamId(stream) = live.stream_id;
    chat.told(&live).await;
    let mut io = Io::connected(&chat, &ana).await;
    let room =
        eventually("the chat is open", async || io.ask("join", &json!({"streamId": stream})).await["roomId"].as_i64())
            .await;

    let mut socket = chat.socket_in(&ana, room).await;
    chat.said(&ana, room, "hi").await;

    chat.until_shown(&ana, room, &json!("Ana Silva"), &Value::Null).await;
    let heard = socket.until("new_message").await;
    assert_eq!(heard["data"]["user_email"], Value::Null, "{heard}");
}
