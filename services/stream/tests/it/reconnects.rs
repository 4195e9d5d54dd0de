use serde_json::json;
use testkit::eventually;

use crate::support::{TestStream, problem};

#[tokio::test]
async fn an_encoder_that_comes_back_in_time_goes_on_with_the_same_broadcast() {
    let stream = TestStream::with(&[("RECONNECT_GRACE", "1h")]).await;
    let tail = stream.tail().await;
    let (ana, other) = (stream.user("Ana"), stream.user("Ben"));
    let (made, other) = (stream.made(&ana).await, stream.made(&other).await);
    stream.callback("publish", &made.key, "7").await;
    let before = stream.seen(&made).await;

    stream.callback("done", &made.key, "7").await;

    assert_eq!(stream.status(&made).await, "ended", "as 002 says, at once");
    assert_eq!(stream.callback("publish", &made.key, "8").await.status(), 302);
    let after = stream.seen(&made).await;
    assert_eq!((&after["status"], &after["startTime"]), (&json!("live"), &before["startTime"]), "it is the same one");
    assert!(after["endTime"].is_null(), "{after}");
    // Another event after all of that: whatever was told before it has arrived.
    stream.callback("publish", &other.key, "9").await;
    let events = stream.events(&tail, 2).await;
    let told: Vec<_> = events.iter().map(|event| (&event["name"], &event["data"]["stream_id"])).collect();
    let started = json!("stream.live.started.v1");
    assert_eq!(told, [(&started, &json!(made.id)), (&started, &json!(other.id))], "nobody was told of an end");
}

#[tokio::test]
async fn a_broadcast_that_nobody_comes_back_to_ends_when_its_encoder_left() {
    let stream = TestStream::with(&[("RECONNECT_GRACE", "1s")]).await;
    let tail = stream.tail().await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "7").await;
    stream.callback("done", &made.key, "7").await;
    let ended = stream.seen(&made).await;

    let events = stream.events(&tail, 2).await;

    assert_eq!(events[1]["name"], "stream.live.ended.v1");
    let (told, seen) = (events[1]["data"]["ended_at"].as_str().unwrap(), ended["endTime"].as_str().unwrap());
    assert_eq!(told, seen);
    stream.callback("publish", &made.key, "8").await;
    let events = stream.events(&tail, 3).await;
    assert_ne!(events[2]["data"]["broadcast_id"], events[0]["data"]["broadcast_id"], "the next one is another");
}

#[tokio::test]
async fn an_encoder_whose_broadcast_was_ended_by_order_stays_away_for_a_moment() {
    let stream = TestStream::with(&[("PUBLISH_HOLD", "2s")]).await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    stream.callback("publish", &made.key, "7").await;

    stream.put(made.id, &ana, &json!({"status": "ended"})).send().await.unwrap();

    problem(stream.callback("publish", &made.key, "8").await, 403, "sent-away").await;
    eventually("it may publish again", async || {
        (stream.callback("publish", &made.key, "8").await.status() == 302).then_some(())
    })
    .await;
}

#[tokio::test]
async fn calls_that_come_at_once_are_settled_each_by_its_own_merits() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let mut made = Vec::new();
    for _ in 0..20 {
        made.push(stream.made(&ana).await);
    }
    let publish = |index: usize| {
        let (stream, made) = (&stream, &made);
        // Every fourth has a key that is wrong.
        let key = if index % 4 == 3 { "wrong" } else { made[index].key.as_str() };
        async move { stream.callback("publish", key, "7").await.status().as_u16() }
    };

    let answers = futures_util::future::join_all((0..made.len()).map(publish)).await;

    for (index, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, if index % 4 == 3 { 403 } else { 302 }, "{index}");
        let expected = if index % 4 == 3 { "ended" } else { "live" };
        assert_eq!(stream.status(&made[index]).await, expected);
    }
}
