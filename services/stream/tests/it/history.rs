use serde_json::{Value, json};

use crate::support::{TestStream, problem};

#[tokio::test]
async fn the_history_tells_when_a_stream_was_on_air_and_why_each_time_ended() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    stream.callback("publish", &made.key, "1").await;
    for client in ["2", "3"] {
        stream.callback("play", &made.playback_id, client).await;
    }
    stream.callback("done", &made.key, "1").await;
    for name in ["a", "b"] {
        let file = format!("call=record_done&recorder=&name={}&path=/rec/{name}.flv", made.playback_id);
        assert_eq!(stream.callback_of("1000", &file, "9").await.status(), 204);
    }
    stream.callback("publish", &made.key, "4").await;
    stream.put(made.id, &ana, &json!({"status": "ended"})).send().await.unwrap();
    stream.callback("publish", &made.key, "5").await;

    for name in [made.id.to_string(), made.playback_id.clone()] {
        let page: Value = stream.look(&format!("/{name}/broadcasts"), None).await.json().await.unwrap();

        assert_eq!((&page["total"], &page["page"], &page["limit"]), (&json!(3), &json!(1), &json!(20)));
        let items = page["items"].as_array().unwrap();
        let reasons: Vec<_> = items.iter().map(|item| (&item["endReason"], &item["ended"])).collect();
        assert_eq!(
            reasons,
            [
                (&Value::Null, &Value::Null),
                (&json!("stopped_by_owner"), &json!("Its owner ended it.")),
                (&json!("left"), &json!("The encoder stopped publishing.")),
            ]
        );
        assert!(items[0]["endedAt"].is_null() && items[1]["endedAt"].as_str() >= items[1]["startedAt"].as_str());
        let recordings: Vec<_> = items.iter().map(|item| item["recordings"].as_i64().unwrap()).collect();
        assert_eq!(recordings, [0, 0, 2]);
        for field in ["id", "peakViewers", "uniqueViewers", "watchSeconds"] {
            assert!(items[2][field].is_i64(), "{field} in {page}");
        }
    }
    let second: Value =
        stream.look(&format!("/{}/broadcasts?limit=1&page=3", made.id), None).await.json().await.unwrap();
    assert_eq!((&second["items"][0]["endReason"], &second["total"]), (&json!("left"), &json!(3)));
    problem(stream.look(&format!("/{}/broadcasts?limit=0", made.id), None).await, 422, "invalid-fields").await;
    problem(stream.look("/9999/broadcasts", None).await, 404, "no-such-stream").await;
    problem(stream.look("/abc/broadcasts", None).await, 404, "no-such-path").await;
}
