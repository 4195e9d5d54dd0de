use serde_json::{Value, json};
use testkit::eventually;

use crate::support::TestStream;

#[tokio::test]
async fn a_public_stream_that_begins_soon_is_told_of_once_for_each_schedule() {
    let stream = TestStream::with(&[("SCHEDULED_SOON", "15s")]).await;
    let tail = stream.tail().await;
    let ana = stream.user("Ana");
    let [soon, later, hidden, live, past] = [
        stream.made(&ana).await,
        stream.made(&ana).await,
        stream.made(&ana).await,
        stream.made(&ana).await,
        stream.made(&ana).await,
    ];
    stream.callback("publish", &live.key, "1").await;
    let schedule = async |id: i64, at: &str, visibility: &str| {
        let update = format!(
            "update stream.streams
             set scheduled_at = now() + interval '{at}', soon_told_at = null, visibility = '{visibility}' where id = {id}"
        );
        stream.sql(&update).await;
    };
    schedule(later.id, "1 hour", "public").await;
    schedule(hidden.id, "12 s", "unlisted").await;
    schedule(live.id, "12 s", "public").await;
    schedule(past.id, "-1 s", "public").await;
    schedule(soon.id, "12 s", "public").await;

    let told = async || -> Vec<Value> {
        let rows = stream.sql("select data from stream.feed where kind = 'scheduled' order by id").await;
        rows.iter().map(|row| serde_json::from_str(&row[0]).unwrap()).collect()
    };
    let first = eventually("it is told", async || told().await.pop()).await;
    assert_eq!(
        (&first["streamId"], &first["userId"], &first["title"]),
        (&json!(soon.id), &json!(ana.id), &json!("Cooking"))
    );
    let events = stream.events(&tail, 2).await;
    let event = events.iter().find(|event| event["name"] == "stream.schedule.came_near.v1").unwrap();
    assert_eq!((&event["data"]["stream_id"], &event["data"]["scheduled_at"]), (&json!(soon.id), &first["scheduledAt"]));

    schedule(later.id, "12 s", "public").await;
    eventually("another is told", async || (told().await.len() == 2).then_some(())).await;
    schedule(soon.id, "13 s", "public").await;
    eventually("the new schedule is told", async || (told().await.len() == 3).then_some(())).await;
    let ids: Vec<_> = told().await.iter().map(|told| told["streamId"].as_i64().unwrap()).collect();
    assert_eq!(ids, [soon.id, later.id, soon.id]);
}
