use serde_json::Value;
use testkit::{Postgres, Redis, eventually};

use crate::support::{TestStream, problem};

async fn readiness(stream: &TestStream) -> Value {
    let url = format!("{}/readyz", stream.program.private_port());
    stream.client.get(url).send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn without_redis_answers_stay_right_and_readiness_says_so() {
    let redis = Redis::private().await;
    let stream = TestStream::with(&[("REDIS_URL", &redis.url())]).await;
    let made = stream.made(&stream.user("Ana")).await;
    assert_eq!(stream.status(&made).await, "ended");
    assert_eq!(readiness(&stream).await["status"], "ready");

    redis.kill().await;

    stream.callback("publish", &made.key, "1").await;
    assert_eq!(stream.status(&made).await, "live");
    let report = readiness(&stream).await;
    assert_eq!(report["status"], "degraded", "{report}");
    assert_ne!(report["checks"]["redis"], "ok");

    redis.start().await;

    eventually("it is ready again", async || (readiness(&stream).await["status"] == "ready").then_some(())).await;
    stream.callback("done", &made.key, "1").await;
    assert_eq!(stream.status(&made).await, "ended", "what was cached before is not shown");
}

#[tokio::test]
async fn without_postgresql_callbacks_fail_clearly_and_a_broadcast_outlives_it() {
    let postgres = Postgres::private().await;
    let stream = TestStream::on(testkit::database_on(&postgres.url()).await, &[("BROADCAST_STALE_AFTER", "3s")]).await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "1").await;
    let before = stream.seen(&made).await;

    postgres.kill().await;

    // 503, which the media server's hook turns into "go on" for a heartbeat (`deploy/nginx-rtmp`).
    problem(stream.callback("update_publish", &made.key, "1").await, 503, "unavailable").await;
    assert_eq!(readiness(&stream).await["status"], "unavailable");

    postgres.start().await;

    eventually("heartbeats are taken again", async || {
        (stream.callback("update_publish", &made.key, "1").await.status() == 204).then_some(())
    })
    .await;
    let after = stream.seen(&made).await;
    assert_eq!(
        (&after["status"], &after["startTime"]),
        (&before["status"], &before["startTime"]),
        "it is the same one"
    );
}
