use chrono::{DateTime, SubsecRound as _, Utc};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{TestStream, in_minutes, problem};

#[tokio::test]
async fn a_stream_is_announced_with_everything_that_is_said_of_it() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let begins = in_minutes(180);
    for name in ["scheduledAt", "scheduled_at"] {
        let body = json!({
            "title": "Cooking", (name): begins, "visibility": "unlisted", "thumbnail": "https://example.org/a.jpg",
        });
        let made = stream.made_of(&ana, &body).await;

        let seen: Value = stream.look(&format!("/{}", made.id), Some(&ana)).await.json().await.unwrap();

        assert_eq!((&seen["visibility"], &seen["featured"]), (&json!("unlisted"), &json!(false)));
        assert_eq!(seen["thumbnail"], "https://example.org/a.jpg");
        let seen_at: DateTime<Utc> = seen["scheduledAt"].as_str().unwrap().parse().unwrap();
        assert_eq!(seen_at, begins.trunc_subsecs(6));
    }
    let plain = stream.made_of(&ana, &json!({"title": null, "description": null, "scheduledAt": null})).await;
    let seen = stream.seen(&plain).await;
    assert_eq!((&seen["title"], &seen["visibility"], &seen["thumbnail"]), (&json!(""), &json!("public"), &Value::Null));
}

#[tokio::test]
async fn null_clears_a_field_and_one_left_out_stays() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let full = json!({
        "title": "Cooking", "description": "With fire", "thumbnail": "https://example.org/a.jpg",
        "scheduledAt": in_minutes(180),
    });
    let made = stream.made_of(&ana, &full).await;
    let fields = ["title", "description", "thumbnail", "scheduledAt"];
    let before = stream.seen(&made).await;

    stream.put(made.id, &ana, &json!({})).send().await.unwrap();
    let after = stream.seen(&made).await;
    assert!(fields.iter().all(|field| after[field] == before[field]), "{after}");

    // What one has read can be sent back as it is.
    let same =
        stream.put(made.id, &ana, &json!({"scheduledAt": before["scheduledAt"], "featured": false})).send().await;
    assert_eq!(same.unwrap().status(), 200);

    let nothing = json!({"title": null, "description": null, "thumbnail": null, "scheduledAt": null});
    let answer: Value = stream.put(made.id, &ana, &nothing).send().await.unwrap().json().await.unwrap();
    assert_eq!(fields.map(|field| &answer[field]), [&json!(""), &Value::Null, &Value::Null, &Value::Null]);
    assert_eq!(stream.seen(&made).await, answer);
}

#[tokio::test]
async fn a_schedule_is_in_the_future_and_not_too_far() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    for at in ["2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"] {
        let body = json!({"scheduledAt": at});
        for answer in [stream.put(made.id, &ana, &body).send().await, stream.create(&ana, &body).send().await] {
            let body = problem(answer.unwrap(), 422, "invalid-fields").await;
            assert!(body["fields"]["scheduledAt"].is_string(), "{body}");
        }
    }
    for at in ["tomorrow", "2026-13-01T00:00:00Z", ""] {
        let answer = stream.put(made.id, &ana, &json!({"scheduledAt": at})).send().await.unwrap();
        problem(answer, 400, "bad-request").await;
    }
}

#[tokio::test]
async fn only_administrators_say_what_is_featured_and_they_may_change_any_stream() {
    let stream = TestStream::start().await;
    let (ana, admin) = (stream.user("Ana"), stream.admin());
    let made = stream.made(&ana).await;
    let featured = json!({"featured": true});

    problem(stream.put(made.id, &ana, &featured).send().await.unwrap(), 403, "forbidden").await;
    problem(stream.create(&ana, &featured).send().await.unwrap(), 403, "forbidden").await;
    assert_eq!(stream.put(made.id, &admin, &featured).send().await.unwrap().status(), 200);

    let seen = stream.seen(&made).await;
    assert_eq!((&seen["featured"], &seen["title"]), (&json!(true), &json!("Cooking")));
    problem(stream.put(made.id, &ana, &json!({"featured": false})).send().await.unwrap(), 403, "forbidden").await;
    assert_eq!(
        stream.put(made.id, &ana, &json!({"featured": true, "title": "Baking"})).send().await.unwrap().status(),
        200
    );
}

#[tokio::test]
async fn a_deleted_stream_is_gone_its_broadcast_has_ended_and_others_are_told() {
    let stream = TestStream::start().await;
    let (ana, ben) = (stream.user("Ana"), stream.user("Ben"));
    let made = stream.made(&ana).await;
    let tail = stream.tail().await;
    stream.callback("publish", &made.key, "7").await;
    let path = format!("/{}", made.id);
    problem(stream.asked(Method::DELETE, &path, Some(&ben), None).await, 403, "not-your-stream").await;
    problem(stream.asked(Method::DELETE, &path, None, None).await, 401, "token-missing").await;

    assert_eq!(stream.asked(Method::DELETE, &path, Some(&ana), None).await.status(), 204);

    problem(stream.look(&path, Some(&ana)).await, 404, "no-such-stream").await;
    problem(stream.look(&format!("/{}", made.playback_id), None).await, 404, "no-such-stream").await;
    problem(stream.asked(Method::DELETE, &path, Some(&ana), None).await, 404, "no-such-stream").await;
    assert_eq!(stream.listed("", None).await, [0_i64; 0]);
    problem(stream.callback("update_publish", &made.key, "7").await, 403, "wrong-stream-key").await;
    let events = stream.events(&tail, 3).await;
    let names: Vec<_> = events.iter().map(|event| event["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["stream.live.started.v1", "stream.live.ended.v1", "stream.stream.deleted.v1"]);
    assert_eq!(events[1]["data"]["reason"], "deleted");
    assert_eq!(events[2]["data"], json!({"stream_id": made.id, "user_id": ana.id}));
}

#[tokio::test]
async fn an_administrator_deletes_a_stream_of_somebody_else() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    let answer = stream.asked(Method::DELETE, &format!("/{}", made.id), Some(&stream.admin()), None).await;
    assert_eq!(answer.status(), 204);
}

#[tokio::test]
async fn who_publishes_is_kicked_by_the_owner_or_an_administrator() {
    let stream = TestStream::with(&[("PUBLISH_HOLD", "1h")]).await;
    let (ana, ben, admin) = (stream.user("Ana"), stream.user("Ben"), stream.admin());
    for (user, reason) in [(&ana, "stopped_by_owner"), (&admin, "stopped_by_administrator")] {
        let made = stream.made(&ana).await;
        let path = format!("/{}/kick", made.id);
        problem(stream.asked(Method::POST, &path, Some(user), None).await, 409, "not-live").await;
        stream.callback("publish", &made.key, "7").await;
        problem(stream.asked(Method::POST, &path, Some(&ben), None).await, 403, "not-your-stream").await;

        assert_eq!(stream.asked(Method::POST, &path, Some(user), None).await.status(), 204);

        assert_eq!(stream.status(&made).await, "ended");
        problem(stream.callback("update_publish", &made.key, "7").await, 403, "broadcast-ended").await;
        // Encoders come back by themselves.
        problem(stream.callback("publish", &made.key, "8").await, 403, "sent-away").await;
        let history: Value = stream.look(&format!("/{}/broadcasts", made.id), None).await.json().await.unwrap();
        assert_eq!(history["items"][0]["endReason"], reason);
    }
}

#[tokio::test]
async fn an_owner_ends_also_a_broadcast_that_waits_for_its_encoder() {
    let stream = TestStream::with(&[("RECONNECT_GRACE", "1h")]).await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    let tail = stream.tail().await;
    stream.callback("publish", &made.key, "7").await;
    stream.callback("done", &made.key, "7").await;

    assert_eq!(stream.put(made.id, &ana, &json!({"status": "ended"})).send().await.unwrap().status(), 200);

    let events = stream.events(&tail, 2).await;
    assert_eq!((&events[1]["name"], &events[1]["data"]["reason"]), (&json!("stream.live.ended.v1"), &json!("left")));
}
