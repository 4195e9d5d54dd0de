use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{TestStream, problem};

#[tokio::test]
async fn publishing_makes_a_stream_live_under_its_public_name_and_leaving_ends_it() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;

    let answer = stream.callback("publish", &made.key, "7").await;

    assert_eq!(answer.status(), 302);
    let address = answer.headers()["location"].to_str().unwrap();
    assert_eq!(address, format!("rtmp://127.0.0.1:1935/watch/{}", made.playback_id));
    let live = stream.seen(&made).await;
    assert_eq!(live["status"], "live");
    assert!(live["startTime"].is_string() && live["endTime"].is_null(), "{live}");

    assert_eq!(stream.callback("done", &made.key, "7").await.status(), 204);

    let ended = stream.seen(&made).await;
    assert_eq!(ended["status"], "ended");
    assert_eq!(ended["startTime"], live["startTime"]);
    assert!(ended["endTime"].as_str() > ended["startTime"].as_str(), "{ended}");
    assert_eq!(stream.callback("done", &made.key, "7").await.status(), 204, "a repeat changes nothing");
    assert_eq!(stream.seen(&made).await, ended);
}

#[tokio::test]
async fn neither_a_viewer_nor_a_refused_publisher_ends_the_broadcast() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "7").await;

    problem(stream.callback("publish", &made.key, "8").await, 409, "already-live").await;
    for call in ["publish_done", "done"] {
        assert_eq!(stream.callback(call, &made.key, "8").await.status(), 204);
    }
    assert_eq!(stream.callback("play", &made.playback_id, "9").await.status(), 204);
    for call in ["play_done", "done"] {
        assert_eq!(stream.callback(call, &made.playback_id, "9").await.status(), 204);
    }
    // The relay that hands the broadcast on ends with the same names, from connections of its own.
    stream.callback("done", &made.key, "10").await;
    stream.callback("done", &made.playback_id, "11").await;

    assert_eq!(stream.status(&made).await, "live");
}

#[tokio::test]
async fn viewers_are_counted_and_never_negative() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "1").await;
    // The number may be as old as a cached answer.
    let until = async |expected: i64| {
        eventually(&format!("{expected} viewers"), async || {
            (stream.seen(&made).await["viewerCount"] == expected).then_some(())
        })
        .await;
    };

    for client in ["2", "3", "3"] {
        stream.callback("play", &made.playback_id, client).await;
    }
    until(2).await;
    for client in ["2", "2", "99"] {
        stream.callback("done", &made.playback_id, client).await;
    }
    until(1).await;
    stream.callback("done", &made.key, "1").await;
    until(0).await;
}

#[tokio::test]
async fn the_owner_ends_a_broadcast_and_the_encoder_is_disconnected_at_its_next_heartbeat() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    stream.callback("publish", &made.key, "7").await;
    assert_eq!(stream.callback("update_publish", &made.key, "7").await.status(), 204);

    let answer = stream.put(made.id, &ana, &json!({"status": "ended"})).send().await.unwrap();

    assert_eq!(answer.json::<Value>().await.unwrap()["status"], "ended");
    problem(stream.callback("update_publish", &made.key, "7").await, 403, "broadcast-ended").await;
}

#[tokio::test]
async fn an_encoder_that_is_not_reported_any_more_is_gone_until_it_is_reported_again() {
    let stream = TestStream::with(&[("BROADCAST_STALE_AFTER", "1s")]).await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "7").await;

    eventually("the broadcast is ended", async || (stream.status(&made).await == "ended").then_some(())).await;

    // It had been there all the time: nobody could report it.
    assert_eq!(stream.callback("update_publish", &made.key, "7").await.status(), 204);
    assert_eq!(stream.status(&made).await, "live");
}

#[tokio::test]
async fn an_encoder_takes_over_from_one_that_is_not_reported_any_more() {
    let stream = TestStream::with(&[("BROADCAST_STALE_AFTER", "1s")]).await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "7").await;

    eventually("the second is let", async || {
        (stream.callback("publish", &made.key, "8").await.status() == 302).then_some(())
    })
    .await;

    problem(stream.callback("update_publish", &made.key, "7").await, 403, "broadcast-ended").await;
    assert_eq!(stream.callback("done", &made.key, "7").await.status(), 204);
    assert_eq!(stream.status(&made).await, "live");
}

#[tokio::test]
async fn whoever_was_reported_just_now_is_not_taken_over_from() {
    let stream = TestStream::with(&[("BROADCAST_STALE_AFTER", "10m")]).await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "7").await;
    stream.execute("update stream.publications set last_seen_at = now() - interval '1 hour'").await;

    assert_eq!(stream.callback("update_publish", &made.key, "7").await.status(), 204);

    // At once, as a heartbeat is written down a moment after it is answered.
    problem(stream.callback("publish", &made.key, "8").await, 409, "already-live").await;
}

#[tokio::test]
async fn after_a_restart_of_the_media_server_the_encoder_comes_back_at_once() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "7").await;
    // It was killed, so it said nothing; connections are numbered anew, and this number is another encoder's.
    let again = format!("call=publish&name={}", made.key);
    assert_eq!(stream.callback_of("2000", &again, "7").await.status(), 302);

    stream.callback("done", &made.key, "7").await;
    assert_eq!(stream.status(&made).await, "live", "that was the connection of the former run");
    stream.callback_of("2000", &format!("call=done&name={}", made.key), "7").await;
    assert_eq!(stream.status(&made).await, "ended");
}

#[tokio::test]
async fn events_tell_of_the_broadcast_in_order_and_of_its_recording_once() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    let tail = stream.tail().await;
    let recorded =
        format!("call=record_done&recorder=&name={}&path=/rec/{}-4102444800.flv", made.playback_id, made.playback_id);

    stream.callback("publish", &made.key, "7").await;
    stream.callback("done", &made.key, "7").await;
    for _ in 0..2 {
        assert_eq!(stream.callback_of("1000", &recorded, "11").await.status(), 204);
    }
    stream.callback("publish", &made.key, "8").await;

    let events = stream.events(&tail, 4).await;
    let names: Vec<_> = events.iter().map(|event| event["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["stream.live.started.v1", "stream.live.ended.v1", "stream.recording.ready.v1", "stream.live.started.v1"]
    );
    assert_eq!(events[1]["data"]["reason"], "left");
    let recording = &events[2]["data"];
    assert_eq!(recording["path"], format!("/rec/{}-4102444800.flv", made.playback_id));
    assert_eq!(recording["media_server"], "m1");
    assert_eq!(recording["broadcast_id"], events[0]["data"]["broadcast_id"]);
    assert!(!events.iter().any(|event| event.to_string().contains(&made.key)), "no event has the key");
}

#[tokio::test]
async fn many_encoders_at_once_with_one_key_are_one_broadcast() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;

    let clients = ["1", "2", "3", "4", "5", "6"];
    let answers =
        futures_util::future::join_all(clients.map(|client| stream.callback("publish", &made.key, client))).await;

    let let_in = answers.iter().filter(|answer| answer.status() == 302).count();
    let refused = answers.iter().filter(|answer| answer.status() == 409).count();
    assert_eq!((let_in, refused), (1, 5));
}
