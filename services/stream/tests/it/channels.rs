use reqwest::{Method, Response};
use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{TestStream, User, problem};

impl TestStream {
    pub(crate) async fn asks(&self, method: Method, path: &str, user: &User, body: Option<Value>) -> Response {
        let request = self.get(path).build().unwrap();
        let request = self.client.request(method, request.url().clone()).bearer_auth(&user.token);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        request.send().await.unwrap()
    }

    pub(crate) async fn follows(&self, user: &User, channel: &User, body: Value) -> Response {
        self.asks(Method::PUT, &format!("/api/v1/channels/{}/follow", channel.id), user, Some(body)).await
    }

    async fn unfollows(&self, user: &User, channel: &User) -> Response {
        self.asks(Method::DELETE, &format!("/api/v1/channels/{}/follow", channel.id), user, None).await
    }

    async fn channel(&self, channel: &User, seen_by: Option<&User>) -> Value {
        let request = self.get(&format!("/api/v1/channels/{}", channel.id));
        let request = match seen_by {
            Some(user) => request.bearer_auth(&user.token),
            None => request,
        };
        request.send().await.unwrap().json().await.unwrap()
    }

    async fn followed_by(&self, user: &User, query: &str) -> Value {
        let answer = self.asks(Method::GET, &format!("/api/v1/channels{query}"), user, None).await;
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }
}

#[tokio::test]
async fn a_channel_is_followed_and_left_and_a_repeat_changes_nothing() {
    let stream = TestStream::start().await;
    let (ana, ben) = (stream.known("Ana").await, stream.user("Ben"));

    assert_eq!(stream.follows(&ben, &ana, json!({})).await.status(), 204);
    assert_eq!(stream.follows(&ben, &ana, json!({})).await.status(), 204);

    let live = stream.made(&ana).await;
    stream.callback("publish", &live.key, "1").await;
    let ended = stream.made(&ana).await;
    assert_eq!(
        stream.channel(&ana, Some(&ben)).await,
        json!({
            "userId": ana.id, "userName": "Ana", "followers": 1, "isFollowed": true, "byMail": true, "liveStreams": 1,
        })
    );
    assert_eq!(stream.follows(&ben, &ana, json!({"byMail": false})).await.status(), 204);
    let seen = stream.channel(&ana, Some(&ben)).await;
    assert_eq!((&seen["byMail"], &seen["followers"]), (&json!(false), &json!(1)));
    let hide = format!("update stream.streams set visibility = 'unlisted' where id = {}", live.id);
    stream.sql(&hide).await;
    let seen = stream.channel(&ana, None).await;
    assert_eq!((&seen["isFollowed"], &seen["byMail"], &seen["liveStreams"]), (&Value::Null, &Value::Null, &json!(0)));

    for _ in 0..2 {
        assert_eq!(stream.unfollows(&ben, &ana).await.status(), 204);
    }
    let seen = stream.channel(&ana, Some(&ben)).await;
    assert_eq!((&seen["isFollowed"], &seen["followers"]), (&json!(false), &json!(0)));
    assert_eq!(stream.status(&ended).await, "ended");
}

#[tokio::test]
async fn whom_one_follows_is_listed_the_latest_first() {
    let stream = TestStream::start().await;
    let ben = stream.user("Ben");
    assert_eq!(stream.followed_by(&ben, "").await["total"], 0);
    let mut channels = Vec::new();
    for name in ["Ana", "Cleo", "Dan"] {
        let channel = stream.known(name).await;
        stream.follows(&ben, &channel, json!({"byMail": name == "Cleo"})).await;
        channels.push(channel);
    }
    let made = stream.made(&channels[1]).await;
    stream.callback("publish", &made.key, "1").await;

    let list = stream.followed_by(&ben, "?limit=2").await;

    let items = list["items"].as_array().unwrap();
    let names: Vec<_> = items.iter().map(|item| item["userName"].as_str().unwrap()).collect();
    assert_eq!((names, &list["total"]), (vec!["Dan", "Cleo"], &json!(3)));
    assert_eq!((&items[1]["liveStreams"], &items[1]["byMail"]), (&json!(1), &json!(true)));
    assert_eq!(stream.followed_by(&ben, "?limit=2&page=2").await["items"][0]["userName"], "Ana");
    assert_eq!(stream.followed_by(&channels[0], "").await["total"], 0, "others have lists of their own");
    problem(stream.asks(Method::GET, "/api/v1/channels?limit=0", &ben, None).await, 422, "invalid-fields").await;
}

#[tokio::test]
async fn nobody_follows_themselves_or_somebody_unknown_or_without_a_token() {
    let stream = TestStream::start().await;
    let (ana, ben) = (stream.known("Ana").await, stream.user("Ben"));
    let body = problem(stream.follows(&ana, &ana, json!({})).await, 422, "invalid-fields").await;
    assert!(body["fields"]["userId"].is_string(), "{body}");
    problem(stream.follows(&ana, &ben, json!({})).await, 404, "no-such-channel").await;
    let path = format!("/api/v1/channels/{}", ben.id);
    problem(stream.get(&path).send().await.unwrap(), 404, "no-such-channel").await;
    problem(stream.get("/api/v1/channels").send().await.unwrap(), 401, "token-missing").await;
    problem(stream.get("/api/v1/channels/not-an-id").send().await.unwrap(), 404, "no-such-path").await;
    problem(stream.follows(&ben, &ana, json!({"byMail": 1})).await, 400, "bad-request").await;
}

#[tokio::test]
async fn a_deleted_user_follows_nobody_and_is_followed_by_nobody() {
    let stream = TestStream::start().await;
    let (ana, ben) = (stream.known("Ana").await, stream.known("Ben").await);
    stream.follows(&ana, &ben, json!({})).await;
    stream.follows(&ben, &ana, json!({})).await;

    stream.hears("auth.user.deleted.v1", &json!({"user_id": ana.id})).await;

    eventually("she is no channel any more", async || {
        let answer = stream.get(&format!("/api/v1/channels/{}", ana.id)).send().await.unwrap();
        (answer.status() == 404).then_some(())
    })
    .await;
    assert_eq!(stream.channel(&ben, None).await["followers"], 0);
    assert_eq!(stream.followed_by(&ben, "").await["total"], 0);
}
