use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{Made, TestStream, problem};

/// Tells the service that the owner of `stream` is no more, as auth does.
async fn delete_owner(service: &TestStream, stream: &Made) {
    let owner = service.seen(stream).await["userId"].as_str().unwrap().to_owned();
    let event = format!(
        "insert into stream.outbox (event_id, name, occurred_at, data)
         values (gen_random_uuid(), 'auth.user.deleted.v1', now(), '{{\"user_id\": \"{owner}\"}}');
         select pg_notify('stream.outbox', '')"
    );
    service.execute(&event).await;
}

async fn is_gone(service: &TestStream, stream: &Made) {
    eventually("the stream is gone", async || {
        let answer = service.get(&format!("/api/v1/streams/{}", stream.id)).send().await.unwrap();
        (answer.status() == 404).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_streams_of_a_deleted_user_end_and_are_deleted_and_those_of_others_stay() {
    let service = TestStream::start().await;
    let tail = service.tail().await;
    let (ana, ben) = (service.user("Ana"), service.user("Ben"));
    let (live, ended, other) = (service.made(&ana).await, service.made(&ana).await, service.made(&ben).await);
    for stream in [&live, &other] {
        assert_eq!(service.callback("publish", &stream.key, "7").await.status(), 302);
    }

    delete_owner(&service, &live).await;

    is_gone(&service, &live).await;
    is_gone(&service, &ended).await;
    assert_eq!(service.status(&other).await, "live");
    let events = service.events(&tail, 3).await;
    let end = events.iter().find(|event| event["name"] == "stream.live.ended.v1").unwrap();
    assert_eq!((&end["data"]["stream_id"], &end["data"]["reason"]), (&json!(live.id), &json!("deleted")));
    let list: Value = service.get("/api/v1/streams").send().await.unwrap().json().await.unwrap();
    assert_eq!((&list["total"], &list["items"][0]["id"]), (&json!(1), &json!(other.id)));
}

#[tokio::test]
async fn the_encoder_of_a_deleted_user_is_cut_off_and_does_not_come_back() {
    let service = TestStream::start().await;
    let ana = service.user("Ana");
    let stream = service.made(&ana).await;
    service.callback("publish", &stream.key, "7").await;
    assert_eq!(service.callback("update_publish", &stream.key, "7").await.status(), 204);

    delete_owner(&service, &stream).await;
    is_gone(&service, &stream).await;

    for call in ["update_publish", "publish"] {
        problem(service.callback(call, &stream.key, "7").await, 403, "wrong-stream-key").await;
    }
}
