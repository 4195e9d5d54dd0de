use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Made, TestStream, User, problem};

async fn statuses(stream: &TestStream, made: &Made, user: Option<&User>) -> [u16; 2] {
    let by_id = stream.look(&format!("/{}", made.id), user).await;
    let by_name = stream.look(&format!("/{}", made.playback_id), user).await;
    [by_id.status().as_u16(), by_name.status().as_u16()]
}

#[tokio::test]
async fn who_sees_a_stream_depends_on_its_visibility() {
    let stream = TestStream::start().await;
    let (ana, ben, admin) = (stream.user("Ana"), stream.user("Ben"), stream.admin());
    let who = [None, Some(&ben), Some(&ana), Some(&admin)];
    for (visibility, expected) in [
        ("public", [[200, 200]; 4]),
        ("unlisted", [[404, 200], [404, 200], [200, 200], [200, 200]]),
        ("private", [[404, 404], [404, 404], [200, 200], [200, 200]]),
    ] {
        let made = stream.made_of(&ana, &json!({"visibility": visibility})).await;
        // Twice and in both orders: what is kept for one is not given to another.
        for (user, expected) in who.iter().zip(expected).chain(who.iter().zip(expected).rev()) {
            let found = statuses(&stream, &made, *user).await;
            assert_eq!(found, expected, "{visibility} for {:?}", user.map(|user| user.id));
            let history = stream.look(&format!("/{}/broadcasts", made.id), *user).await;
            assert_eq!(history.status(), expected[0]);
        }
        let shown = stream.look(&format!("/{}", made.id), Some(&ana)).await;
        let is_to_be_kept = shown.headers().get("cache-control").is_none();
        assert_eq!(is_to_be_kept, visibility == "public");
    }
    problem(stream.look(&format!("/{}", uuid::Uuid::new_v4()), None).await, 404, "no-such-stream").await;
}

#[tokio::test]
async fn a_token_that_is_not_valid_is_none_where_none_is_needed() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    for path in [String::new(), format!("/{}", made.id), format!("/{}/broadcasts", made.id)] {
        let request = stream.get(&format!("/api/v1/streams{path}"));
        assert_eq!(request.bearer_auth("garbage").send().await.unwrap().status(), 200, "{path}");
    }
}

#[tokio::test]
async fn lists_have_public_streams_and_all_of_ones_own() {
    let stream = TestStream::start().await;
    let (ana, ben) = (stream.user("Ana"), stream.user("Ben"));
    let mut made = Vec::new();
    for visibility in ["private", "unlisted", "public"] {
        made.push(stream.made_of(&ana, &json!({"visibility": visibility, "title": "Cooking"})).await.id);
    }
    let all: Vec<_> = made.iter().rev().copied().collect();
    let own = format!("owner={}", ana.id);
    for user in [Some(&ana), None, Some(&ben), Some(&ana)] {
        let is_ana = user.is_some_and(|user| user.id == ana.id);
        let expected = if is_ana { &all[..] } else { &all[..1] };
        assert_eq!(stream.listed(&own, user).await, expected);
        assert_eq!(stream.listed(&format!("{own}&search=cook&status=ended"), user).await, expected);
        assert_eq!(stream.listed("", user).await, &all[..1], "others are not asked for");
    }
    let answer = stream.look(&format!("?{own}"), Some(&ana)).await;
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(stream.listed(&format!("owner={}", ben.id), None).await, [0_i64; 0]);
}

#[tokio::test]
async fn a_stream_that_becomes_private_gets_another_public_name_and_not_while_it_is_live() {
    let stream = TestStream::with(&[("RECONNECT_GRACE", "1h")]).await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    let private = json!({"visibility": "private"});
    assert_eq!(statuses(&stream, &made, None).await, [200, 200]);
    stream.callback("publish", &made.key, "7").await;
    problem(stream.put(made.id, &ana, &private).send().await.unwrap(), 409, "stream-live").await;
    stream.callback("done", &made.key, "7").await;
    problem(stream.put(made.id, &ana, &private).send().await.unwrap(), 409, "stream-live").await;

    let both = json!({"visibility": "private", "status": "ended"});
    let answer: Value = stream.put(made.id, &ana, &both).send().await.unwrap().json().await.unwrap();

    assert_eq!(answer["visibility"], "private");
    assert_ne!(answer["playbackId"], made.playback_id);
    assert_eq!(statuses(&stream, &made, None).await, [404, 404], "at once");
    assert_eq!(statuses(&stream, &made, Some(&ana)).await, [200, 404]);
    assert_eq!(stream.listed("", None).await, [0_i64; 0]);
    let again: Value = stream.put(made.id, &ana, &private).send().await.unwrap().json().await.unwrap();
    assert_eq!(again["playbackId"], answer["playbackId"], "once is enough");
    // Whoever knows only the old name never finds it again.
    stream.put(made.id, &ana, &json!({"visibility": "public"})).send().await.unwrap();
    assert_eq!(statuses(&stream, &made, None).await, [200, 404]);
    assert_eq!(stream.listed("", None).await, [made.id]);
}

#[tokio::test]
async fn who_may_not_know_of_a_stream_is_not_told_that_it_is_there() {
    let stream = TestStream::start().await;
    let (ana, ben) = (stream.user("Ana"), stream.user("Ben"));
    let made = stream.made_of(&ana, &json!({"visibility": "private"})).await;
    for (method, path, body) in [
        (Method::PUT, "", Some(json!({}))),
        (Method::DELETE, "", None),
        (Method::POST, "/kick", None),
        (Method::GET, "/keys", None),
        (Method::POST, "/keys", Some(json!({"name": "Mine"}))),
        (Method::DELETE, "/keys/1", None),
        (Method::POST, "/keys/1/rotate", None),
    ] {
        let answer = stream.asked(method, &format!("/{}{path}", made.id), Some(&ben), body.as_ref()).await;
        problem(answer, 404, "no-such-stream").await;
    }
}
