use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Made, TestStream, User, problem};

async fn keys(stream: &TestStream, made: &Made, user: &User) -> Vec<Value> {
    let answer = stream.look(&format!("/{}/keys", made.id), Some(user)).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["cache-control"].to_str().unwrap()), (200, &"no-store"));
    answer.json().await.unwrap()
}

/// Another key of the stream: its id, and itself.
async fn another(stream: &TestStream, made: &Made, user: &User, name: &str) -> (i64, String) {
    let body = json!({"name": name});
    let answer = stream.asked(Method::POST, &format!("/{}/keys", made.id), Some(user), Some(&body)).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["cache-control"].to_str().unwrap()), (201, &"no-store"));
    let body: Value = answer.json().await.unwrap();
    assert_eq!((&body["name"], &body["lastUsedAt"], &body["isLive"]), (&json!(name), &Value::Null, &json!(false)));
    assert_eq!(body["ingestUrl"], "rtmp://127.0.0.1:1935/live");
    (body["id"].as_i64().unwrap(), body["streamKey"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_stream_has_several_named_keys_that_are_shown_once() {
    let stream = TestStream::start().await;
    let (ana, ben, admin) = (stream.user("Ana"), stream.user("Ben"), stream.admin());
    let made = stream.made(&ana).await;
    let (studio_id, studio) = another(&stream, &made, &ana, "Studio").await;
    assert_eq!(stream.callback("publish", &studio, "1").await.status(), 302);

    let listed = keys(&stream, &made, &ana).await;

    let names: Vec<_> =
        listed.iter().map(|key| (key["name"].as_str().unwrap(), key["isLive"].as_bool().unwrap())).collect();
    assert_eq!(names, [("default", false), ("Studio", true)]);
    assert_eq!(listed[1]["id"], studio_id);
    assert!(listed[0]["lastUsedAt"].is_null() && listed[1]["lastUsedAt"].is_string(), "{listed:?}");
    let text = json!(listed).to_string();
    assert!(!text.contains(&studio) && !text.contains(&made.key) && !text.contains("streamKey"), "{text}");
    assert!(!stream.program.output().contains(&studio), "no key is logged");
    for user in [&ben, &admin] {
        problem(stream.look(&format!("/{}/keys", made.id), Some(user)).await, 403, "not-your-stream").await;
    }
    problem(stream.look(&format!("/{}/keys", made.id), None).await, 401, "token-missing").await;
    // One stream is on air once, whatever the key.
    problem(stream.callback("publish", &made.key, "2").await, 409, "already-live").await;
}

#[tokio::test]
async fn a_stream_has_ten_keys_at_most_also_if_they_are_made_at_once() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    let path = format!("/{}/keys", made.id);
    let body = json!({"name": "One of many"});
    let answers =
        futures_util::future::join_all((0..12).map(|_| stream.asked(Method::POST, &path, Some(&ana), Some(&body))))
            .await;
    assert_eq!(answers.iter().filter(|answer| answer.status() == 201).count(), 9);
    for answer in answers.into_iter().filter(|answer| answer.status() != 201) {
        problem(answer, 409, "too-many-keys").await;
    }
    assert_eq!(keys(&stream, &made, &ana).await.len(), 10);
}

#[tokio::test]
async fn a_key_has_a_name_that_people_can_read() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let path = format!("/{}/keys", stream.made(&ana).await.id);
    for name in ["", "  ", "a\u{7}", &"a".repeat(101)] {
        let answer = stream.asked(Method::POST, &path, Some(&ana), Some(&json!({"name": name}))).await;
        problem(answer, 422, "invalid-fields").await;
    }
    let answer = stream.asked(Method::POST, &path, Some(&ana), Some(&json!({}))).await;
    problem(answer, 400, "bad-request").await;
}

#[tokio::test]
async fn a_key_that_is_rotated_or_revoked_ends_what_is_on_air_with_it_and_publishes_no_more() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    for method in [Method::POST, Method::DELETE] {
        let made = stream.made(&ana).await;
        let (id, value) = another(&stream, &made, &ana, "Studio").await;
        let tail = stream.tail().await;
        stream.callback("publish", &value, "7").await;
        let path = format!("/{}/keys/{id}{}", made.id, if method == Method::POST { "/rotate" } else { "" });

        let answer = stream.asked(method.clone(), &path, Some(&ana), None).await;

        assert_eq!(stream.status(&made).await, "ended", "at once");
        for call in ["update_publish", "publish"] {
            problem(stream.callback(call, &value, "7").await, 403, "wrong-stream-key").await;
        }
        assert_eq!(stream.events(&tail, 2).await[1]["data"]["reason"], "key_revoked");
        let history: Value = stream.look(&format!("/{}/broadcasts", made.id), None).await.json().await.unwrap();
        assert_eq!(history["items"][0]["endReason"], "key_revoked");
        let left = keys(&stream, &made, &ana).await;
        if method == Method::POST {
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["cache-control"].to_str().unwrap()),
                (200, &"no-store")
            );
            let body: Value = answer.json().await.unwrap();
            assert_eq!((&body["id"], &body["name"]), (&json!(id), &json!("Studio")));
            assert_eq!(left.len(), 2);
            assert!(left[1]["lastUsedAt"].is_null(), "the new one was never used: {left:?}");
            assert_eq!(stream.callback("publish", body["streamKey"].as_str().unwrap(), "8").await.status(), 302);
        } else {
            assert_eq!(answer.status(), 204);
            assert_eq!(left.len(), 1);
            problem(stream.asked(method, &path, Some(&ana), None).await, 404, "no-such-key").await;
            assert_eq!(
                stream.callback("publish", &made.key, "8").await.status(),
                302,
                "the other key is as good as before"
            );
        }
    }
}

#[tokio::test]
async fn what_is_on_air_with_another_key_goes_on() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    let (id, _) = another(&stream, &made, &ana, "Studio").await;
    stream.callback("publish", &made.key, "7").await;

    let rotated = stream.asked(Method::POST, &format!("/{}/keys/{id}/rotate", made.id), Some(&ana), None).await;
    assert_eq!(rotated.status(), 200);
    let revoked = stream.asked(Method::DELETE, &format!("/{}/keys/{id}", made.id), Some(&ana), None).await;
    assert_eq!(revoked.status(), 204);

    assert_eq!(stream.status(&made).await, "live");
    assert_eq!(stream.callback("update_publish", &made.key, "7").await.status(), 204);
}

#[tokio::test]
async fn a_key_of_another_stream_is_none_of_this_one() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let (made, other) = (stream.made(&ana).await, stream.made(&ana).await);
    stream.callback("publish", &made.key, "7").await;
    let others = keys(&stream, &other, &ana).await[0]["id"].as_i64().unwrap();

    for (method, path) in [(Method::DELETE, ""), (Method::POST, "/rotate")] {
        let answer = stream.asked(method, &format!("/{}/keys/{others}{path}", made.id), Some(&ana), None).await;
        problem(answer, 404, "no-such-key").await;
    }

    assert_eq!(stream.callback("publish", &other.key, "8").await.status(), 302);
    assert_eq!(stream.status(&made).await, "live");
}
