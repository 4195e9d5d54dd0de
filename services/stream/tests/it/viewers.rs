use reqwest::Response;
use serde_json::{Value, json};
use testkit::{Program, Redis, eventually};

use crate::support::{Made, PROGRAM, SECRET, TestStream, problem};

/// Counting that a test need not wait for.
const QUICK: [(&str, &str); 2] = [("VIEWER_COUNTS_FOR", "2s"), ("VIEWERS_FLUSH_EVERY", "100ms")];
const OFTEN: (&str, &str) = ("VIEWERS_FLUSH_EVERY", "100ms");

impl TestStream {
    async fn live(&self) -> Made {
        let made = self.made(&self.user("Ana")).await;
        assert_eq!(self.callback("publish", &made.key, "1").await.status(), 302);
        made
    }

    async fn beats(&self, id: impl std::fmt::Display, session: &str, position: f64) -> Response {
        let body = json!({"session": format!("session-of-{session:_>8}"), "position": position});
        self.post(&format!("/api/v1/streams/{id}/view")).json(&body).send().await.unwrap()
    }

    /// How many watch, and whether this one is counted.
    async fn told(&self, stream: &Made, session: &str, position: f64) -> (i64, bool) {
        let answer = self.beats(stream.id, session, position).await;
        assert_eq!(answer.status(), 200);
        let body: Value = answer.json().await.unwrap();
        (body["viewers"].as_i64().unwrap(), body["isCounted"].as_bool().unwrap())
    }

    async fn numbers(&self, stream: &Made) -> Value {
        self.get(&format!("/api/v1/streams/{}/viewers", stream.id)).send().await.unwrap().json().await.unwrap()
    }

    async fn until(&self, what: &str, stream: &Made, expected: &[(&str, i64)]) -> Value {
        eventually(what, async || {
            let numbers = self.numbers(stream).await;
            expected.iter().all(|(name, value)| numbers[*name] == *value).then_some(numbers)
        })
        .await
    }

    /// What lists were told of the number of viewers, in order.
    async fn viewers_told(&self) -> Vec<Value> {
        let rows = self.sql("select data from stream.feed where kind = 'viewers' order by id").await;
        rows.iter().map(|row| serde_json::from_str(&row[0]).unwrap()).collect()
    }
}

#[tokio::test]
async fn whoever_plays_counts_from_the_second_beat_until_silent_and_a_bot_does_not() {
    let stream = TestStream::with(&QUICK).await;
    let made = stream.live().await;

    assert_eq!(stream.told(&made, "ana", 10.0).await, (0, false));
    assert_eq!(stream.told(&made, "bot", 10.0).await, (0, false));
    assert_eq!(stream.told(&made, "ana", 10.5).await, (1, true));
    assert_eq!(stream.told(&made, "bot", 10.0).await, (1, false));
    let answer: Value = stream.beats(&made.playback_id, "ana", 11.0).await.json().await.unwrap();
    assert_eq!(answer, json!({"viewers": 1, "beatSeconds": 1, "isCounted": true}), "its public name is as good");

    stream.until("it is written", &made, &[("current", 1), ("hls", 1), ("rtmp", 0), ("peak", 1), ("unique", 1)]).await;
    stream.until("she is silent", &made, &[("current", 0), ("hls", 0), ("peak", 1), ("unique", 1)]).await;
    eventually("everybody sees it", async || (stream.seen(&made).await["viewerCount"] == 0).then_some(())).await;
    let told = stream.viewers_told().await;
    assert_eq!(told, [json!({"streamId": made.id, "viewers": 1}), json!({"streamId": made.id, "viewers": 0})]);
}

#[tokio::test]
async fn players_over_rtmp_and_hls_are_told_apart_and_added() {
    let stream = TestStream::with(&[OFTEN]).await;
    let made = stream.live().await;
    for session in ["ana", "ben"] {
        stream.told(&made, session, 0.0).await;
        stream.told(&made, session, 1.0).await;
    }
    for client in ["7", "8", "9"] {
        stream.callback("play", &made.playback_id, client).await;
    }
    stream.until("all count", &made, &[("current", 5), ("rtmp", 3), ("hls", 2), ("peak", 5)]).await;
    eventually("viewers are told", async || (stream.told(&made, "ana", 2.0).await == (5, true)).then_some(())).await;

    stream.callback("play_done", &made.playback_id, "8").await;

    let numbers = stream.until("one has left", &made, &[("current", 4), ("rtmp", 2), ("hls", 2)]).await;
    assert_eq!((&numbers["peak"], &numbers["unique"]), (&json!(5), &json!(2)));
    let told: Vec<_> = stream.viewers_told().await.iter().map(|told| told["viewers"].as_i64().unwrap()).collect();
    assert_eq!(told.last(), Some(&4), "{told:?}");
}

#[tokio::test]
async fn watch_time_is_what_was_played_and_no_more_than_has_passed() {
    let stream = TestStream::with(&[OFTEN]).await;
    let made = stream.live().await;
    let began = tokio::time::Instant::now();
    let mut position = 0.0;
    let watched = eventually("two seconds were watched", async || {
        position += 1000.0;
        stream.told(&made, "ana", position).await;
        let watched = stream.numbers(&made).await["watchSeconds"].as_u64().unwrap();
        (watched >= 2).then_some(watched)
    })
    .await;
    assert!(watched <= began.elapsed().as_secs(), "{watched} s in {:?}", began.elapsed());
}

#[tokio::test]
async fn what_is_not_live_or_not_for_everybody_cannot_be_watched() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let [ended, hidden, unlisted] = [stream.made(&ana).await, stream.made(&ana).await, stream.made(&ana).await];
    for live in [&hidden, &unlisted] {
        stream.callback("publish", &live.key, "1").await;
    }
    let hide = |id, visibility| format!("update stream.streams set visibility = '{visibility}' where id = {id}");
    stream.sql(&hide(hidden.id, "private")).await;
    stream.sql(&hide(unlisted.id, "unlisted")).await;

    problem(stream.beats(ended.id, "ben", 1.0).await, 409, "not-live").await;
    problem(stream.beats(&ended.playback_id, "ben", 1.0).await, 409, "not-live").await;
    let nowhere = uuid_like();
    problem(stream.beats("abc", "ben", 1.0).await, 404, "no-such-path").await;
    for id in ["999999", "-1", &hidden.id.to_string(), &hidden.playback_id, &unlisted.id.to_string(), &nowhere] {
        problem(stream.beats(id, "ben", 1.0).await, 404, "no-such-stream").await;
        problem(stream.get(&format!("/api/v1/streams/{id}/viewers")).send().await.unwrap(), 404, "no-such-stream")
            .await;
    }
    assert_eq!(stream.beats(&unlisted.playback_id, "ben", 1.0).await.status(), 200);
    let own = stream.get(&format!("/api/v1/streams/{}/viewers", hidden.id)).bearer_auth(&ana.token);
    assert_eq!(own.send().await.unwrap().status(), 200);

    // It goes live a moment after somebody asked.
    stream.callback("publish", &ended.key, "1").await;
    eventually("it can be watched", async || (stream.beats(ended.id, "ben", 1.0).await.status() == 200).then_some(()))
        .await;
}

fn uuid_like() -> String {
    common::UserId::new().to_string()
}

#[tokio::test]
async fn a_beat_that_is_not_valid_names_the_field() {
    let stream = TestStream::start().await;
    let made = stream.live().await;
    let send =
        async |body: Value| stream.post(&format!("/api/v1/streams/{}/view", made.id)).json(&body).send().await.unwrap();
    let session = "0123456789abcdef";
    for (field, body) in [
        ("session", json!({"session": "short", "position": 1})),
        ("session", json!({"session": "a".repeat(65), "position": 1})),
        ("session", json!({"session": "0123456789abcde\n", "position": 1})),
        ("session", json!({"session": "0123456789abcdé", "position": 1})),
        ("position", json!({"session": session, "position": -0.1})),
        ("position", json!({"session": session, "position": 1e10})),
    ] {
        let body = problem(send(body).await, 422, "invalid-fields").await;
        assert_eq!(body["fields"].as_object().unwrap().keys().collect::<Vec<_>>(), [field]);
    }
    for body in [json!({"session": session}), json!({"session": session, "position": "1"}), json!([session, 1])] {
        problem(send(body).await, 400, "bad-request").await;
    }
    assert_eq!(send(json!({"session": session, "position": 0})).await.status(), 200);
}

#[tokio::test]
async fn without_redis_viewers_are_answered_and_their_number_stays() {
    let redis = Redis::private().await;
    let stream = TestStream::with(&[("REDIS_URL", &redis.url()), OFTEN]).await;
    let made = stream.live().await;
    stream.told(&made, "ana", 0.0).await;
    assert_eq!(stream.told(&made, "ana", 1.0).await, (1, true));
    stream.until("it is written", &made, &[("current", 1)]).await;

    redis.kill().await;

    assert!(!stream.told(&made, "ana", 2.0).await.1);
    eventually("it is known how many there were", async || {
        (stream.told(&made, "ana", 2.0).await == (1, false)).then_some(())
    })
    .await;
    assert_eq!(stream.numbers(&made).await["current"], 1);
    let says = "viewers are not counted";
    eventually("the log says so", async || stream.program.output().contains(says).then_some(())).await;
    assert_eq!(stream.program.output().matches(says).count(), 1, "once");

    redis.start().await;

    let mut position = 2.0;
    eventually("viewers count again", async || {
        position += 1.0;
        (stream.told(&made, "ana", position).await == (1, true)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn instances_count_together_and_one_that_stops_writes_what_it_knows() {
    let redis = Redis::private().await;
    let hour = ("VIEWERS_FLUSH_EVERY", "1h");
    let stream = TestStream::with(&[("REDIS_URL", &redis.url()), hour]).await;
    let data = tempfile::tempdir().unwrap();
    let other = Program::start(
        PROGRAM,
        &[],
        &[
            ("DATABASE_URL", stream.database.url.clone()),
            ("AMPHI_DATA_DIR", data.path().display().to_string()),
            ("AUTH_URL", stream.issuer.url.clone()),
            ("STREAM_LISTEN", "127.0.0.1:0".to_owned()),
            ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("WEBHOOK_SECRET", SECRET.to_owned()),
            ("REDIS_URL", redis.url()),
            ("VIEWERS_FLUSH_EVERY", "1h".to_owned()),
        ],
    )
    .await;
    let made = stream.live().await;
    let elsewhere = format!("{}/api/v1/streams/{}/view", other.announced("stream"), made.id);
    stream.told(&made, "ana", 0.0).await;

    let body = json!({"session": format!("session-of-{:_>8}", "ana"), "position": 1});
    let answer: Value = stream.client.post(elsewhere).json(&body).send().await.unwrap().json().await.unwrap();

    assert_eq!((&answer["viewers"], &answer["isCounted"]), (&json!(1), &json!(true)));
    assert_eq!(stream.told(&made, "ana", 2.0).await, (1, true), "the same one");
    assert_eq!(stream.numbers(&made).await["current"], 0, "nothing was written yet");

    let (status, output) = other.stop();

    assert!(status.success(), "{output}");
    let numbers = stream.numbers(&made).await;
    assert_eq!((&numbers["current"], &numbers["unique"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn an_encoder_that_comes_back_keeps_its_viewers_and_the_next_broadcast_begins_at_none() {
    let stream = TestStream::with(&[OFTEN, ("RECONNECT_GRACE", "30s"), ("PUBLISH_HOLD", "0s")]).await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    stream.callback("publish", &made.key, "1").await;
    stream.told(&made, "ana", 0.0).await;
    stream.told(&made, "ana", 1.0).await;
    let before = stream.until("it is written", &made, &[("current", 1), ("unique", 1)]).await;

    stream.callback("done", &made.key, "1").await;
    assert_eq!(stream.numbers(&made).await["current"], 0);
    stream.callback("publish", &made.key, "2").await;
    eventually("she is counted again", async || {
        stream.told(&made, "ana", 2.0).await;
        (stream.numbers(&made).await["current"] == 1).then_some(())
    })
    .await;
    let after = stream.numbers(&made).await;
    assert_eq!((&after["broadcastId"], &after["unique"]), (&before["broadcastId"], &json!(1)));

    let answer = stream.put(made.id, &ana, &json!({"status": "ended"})).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let last = stream.numbers(&made).await;
    assert_eq!(
        (&last["current"], &last["broadcastId"], &last["unique"]),
        (&json!(0), &after["broadcastId"], &json!(1))
    );
    stream.callback("publish", &made.key, "3").await;
    let next = stream.numbers(&made).await;
    assert_ne!(next["broadcastId"], after["broadcastId"]);
    for name in ["current", "peak", "unique", "watchSeconds"] {
        assert_eq!(next[name], 0, "{name} in {next}");
    }
    eventually("whoever watches on begins anew there", async || {
        stream.told(&made, "ana", 1.0).await;
        stream.told(&made, "ana", 2.0).await;
        (stream.numbers(&made).await["unique"] == 1).then_some(())
    })
    .await;
}

/// Beats, players, encoders and silence, all at once: whatever order they come in, no number is ever below zero, and when
/// all is quiet it is right.
#[tokio::test]
async fn numbers_are_never_negative_and_end_right() {
    let stream = TestStream::with(&[("VIEWER_COUNTS_FOR", "1s"), ("VIEWERS_FLUSH_EVERY", "20ms")]).await;
    let made = stream.live().await;
    let watch = async |n: usize| {
        for step in 0..20_u32 {
            match (n, step % 4) {
                (0, 3) => {
                    stream.callback("done", &made.key, "1").await;
                    stream.callback("publish", &made.key, "1").await;
                }
                (0, _) => {
                    let numbers = stream.numbers(&made).await;
                    for name in ["current", "rtmp", "hls", "peak", "unique", "watchSeconds"] {
                        assert!(numbers[name].as_i64().unwrap() >= 0, "{numbers}");
                    }
                }
                (1..4, _) => {
                    // Callbacks are repeated, and some leave who never came.
                    let call = if (step + 1) % 3 == 0 { "play_done" } else { "play" };
                    stream.callback(call, &made.playback_id, &format!("{n}{}", step % 2)).await;
                }
                _ => drop(stream.beats(made.id, &n.to_string(), f64::from(step * 7 % 13)).await),
            }
        }
    };
    futures_util::future::join_all((0..10).map(watch)).await;
    for n in ["10", "11", "20", "21", "30", "31"] {
        stream.callback("play_done", &made.playback_id, n).await;
    }

    let numbers = stream.until("all have left", &made, &[("current", 0), ("rtmp", 0), ("hls", 0)]).await;

    assert!(numbers["peak"].as_i64().unwrap() > 0, "{numbers}");
    let told = stream.viewers_told().await;
    assert!(told.iter().all(|told| told["viewers"].as_i64().unwrap() >= 0), "{told:?}");
    let negative = "select 1 from stream.streams where viewer_count < 0 or hls_viewers < 0";
    assert!(stream.sql(negative).await.is_empty());
}
