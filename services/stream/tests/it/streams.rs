use serde_json::{Value, json};
use tokio_postgres::NoTls;

use crate::support::{TestStream, problem};

#[tokio::test]
async fn a_new_stream_shows_its_key_once_and_to_its_owner_only() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana Silva");

    let answer = stream.create(&ana, &json!({"title": "Cooking", "description": "With fire"})).send().await.unwrap();

    assert_eq!(answer.status(), 201);
    let body: Value = answer.json().await.unwrap();
    let key = body["streamKey"].as_str().unwrap();
    assert_eq!(body["status"], "ended");
    assert_eq!(body["userName"], "Ana Silva");
    let id = body["id"].as_i64().unwrap();
    assert!(
        body["playbackUrl"]
            .as_str()
            .unwrap()
            .ends_with(&format!("/hls/{}/index.m3u8", body["playbackId"].as_str().unwrap()))
    );
    for path in ["/api/v1/streams".to_owned(), format!("/api/v1/streams/{id}")] {
        let text = stream.get(&path).send().await.unwrap().text().await.unwrap();
        assert!(text.contains("Cooking") && !text.contains(key) && !text.contains("streamKey"), "{text}");
    }
    let (client, connection) = tokio_postgres::connect(&stream.database.url, NoTls).await.unwrap();
    let dump = tokio::select! {
        row = client.query_one("select string_agg(t::text, '') from stream.streams t", &[]) => row.unwrap().get::<_, String>(0),
        ended = connection => panic!("the connection ended: {ended:?}"),
    };
    assert!(dump.contains("Cooking") && !dump.contains(key), "a dump publishes nothing");
    assert!(!stream.program.output().contains(key), "and neither does the log");
}

#[tokio::test]
async fn only_its_owner_changes_a_stream() {
    let stream = TestStream::start().await;
    let (ana, ben) = (stream.user("Ana"), stream.user("Ben"));
    let made = stream.made(&ana).await;

    let changed = stream.put(made.id, &ana, &json!({"title": "Baking"})).send().await.unwrap();

    assert_eq!(changed.status(), 200);
    assert_eq!(changed.json::<Value>().await.unwrap()["title"], "Baking");
    assert_eq!(stream.seen(&made).await["title"], "Baking", "one's own change is seen at once");
    problem(stream.put(made.id, &ben, &json!({"title": "Mine"})).send().await.unwrap(), 403, "not-your-stream").await;
    problem(stream.put(9999, &ana, &json!({})).send().await.unwrap(), 404, "no-such-stream").await;
    assert_eq!(stream.seen(&made).await["title"], "Baking");
}

#[tokio::test]
async fn a_field_left_out_stays_as_it_is() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;

    stream.put(made.id, &ana, &json!({"description": "With fire"})).send().await.unwrap();

    let seen = stream.seen(&made).await;
    assert_eq!((seen["title"].as_str(), seen["description"].as_str()), (Some("Cooking"), Some("With fire")));
}

#[tokio::test]
async fn bad_input_is_refused_with_the_field_that_is_wrong() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    for (field, body) in [
        ("title", json!({"title": "a".repeat(256)})),
        ("title", json!({"title": "a\u{0}b"})),
        ("description", json!({"description": "\u{0}"})),
        ("thumbnail", json!({"thumbnail": "javascript:alert(1)"})),
        ("status", json!({"status": "live"})),
    ] {
        let body = problem(stream.put(made.id, &ana, &body).send().await.unwrap(), 422, "invalid-fields").await;
        assert!(body["fields"].get(field).is_some(), "{field} in {body}");
    }
    for query in ["page=0", "limit=0", "limit=101", "page=10001"] {
        problem(stream.get(&format!("/api/v1/streams?{query}")).send().await.unwrap(), 422, "invalid-fields").await;
    }
    for query in ["page=x", "status=upside-down", "limit=-1", "page=99999999999"] {
        problem(stream.get(&format!("/api/v1/streams?{query}")).send().await.unwrap(), 400, "bad-request").await;
    }
    for id in ["0", "-1", "9223372036854775807"] {
        problem(stream.get(&format!("/api/v1/streams/{id}")).send().await.unwrap(), 404, "no-such-stream").await;
    }
    for id in ["abc", "9223372036854775808", "%00"] {
        problem(stream.get(&format!("/api/v1/streams/{id}")).send().await.unwrap(), 404, "no-such-path").await;
    }
}

#[tokio::test]
async fn making_a_stream_needs_a_token_and_looking_does_not() {
    let stream = TestStream::start().await;
    let answer = stream.post("/api/v1/streams").json(&json!({})).send().await.unwrap();
    problem(answer, 401, "token-missing").await;
    let answer = stream.post("/api/v1/streams").bearer_auth("garbage").json(&json!({})).send().await.unwrap();
    problem(answer, 401, "token-invalid").await;
    assert_eq!(stream.get("/api/v1/streams").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_list_has_live_streams_first_then_the_newest_in_pages() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(stream.made(&ana).await);
    }
    assert_eq!(stream.callback("publish", &made[1].key, "1").await.status(), 302);
    let ids = async |query: &str| {
        let page: Value = stream.get(&format!("/api/v1/streams?{query}")).send().await.unwrap().json().await.unwrap();
        let ids: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| item["id"].as_i64().unwrap()).collect();
        (ids, page["total"].as_i64().unwrap())
    };
    let id = |index: usize| made[index].id;

    assert_eq!(ids("limit=3").await, (vec![id(1), id(4), id(3)], 5));
    assert_eq!(ids("limit=3&page=2").await, (vec![id(2), id(0)], 5));
    assert_eq!(ids("limit=3&page=3").await, (vec![], 5));
    assert_eq!(ids("status=live").await, (vec![id(1)], 1));
    assert_eq!(ids("status=ended&limit=1").await, (vec![id(4)], 4));
}
