//! What happens to a broadcast when a part of the house goes away.

use testkit::eventually;
use testkit::media::Encoder;

use crate::house::{House, events_until};

#[tokio::test]
async fn a_broadcast_outlives_a_crash_of_the_whole_backend() {
    let mut house = House::embedded_with(&[("LOG_LEVEL", "info,stream=debug".to_owned())]).await;
    let ana = house.register("ana@example.org", "Ana Silva").await;
    let stream = house.create_stream(&ana).await;
    let mut encoder = Encoder::publish(&stream.ingest);
    let live = house.until(&stream, "live").await;

    house.programs.remove(0).kill();
    house.start_one_process().await;

    assert!(house.output().contains("adopted the PostgreSQL"), "{}", house.output());
    // Its heartbeats arrive again, and are those of the broadcast that we knew.
    eventually("it is reported again", async || house.output().contains("the encoder is still there").then_some(()))
        .await;
    assert!(encoder.is_publishing());
    assert_eq!(house.seen(&stream).await["startTime"], live["startTime"]);
}

#[tokio::test]
async fn after_a_restart_of_the_media_server_its_encoder_is_let_in_at_once() {
    // Longer than the test lasts: nothing here waits for it.
    let house = House::embedded_with(&[("BROADCAST_STALE_AFTER", "1h".to_owned())]).await;
    let ana = house.register("ana@example.org", "Ana Silva").await;
    let stream = house.create_stream(&ana).await;
    let encoder = Encoder::publish(&stream.ingest);
    let before = house.until(&stream, "live").await;

    house.media.kill();
    drop(encoder);
    house.media.start();
    let mut encoder = Encoder::publish(&stream.ingest);

    let verdict = "as the media server was started anew";
    eventually("the encoder is let in", async || house.output().contains(verdict).then_some(())).await;
    assert!(encoder.is_publishing());
    let after = house.seen(&stream).await;
    assert_eq!(
        (&after["status"], &after["startTime"]),
        (&"live".into(), &before["startTime"]),
        "its broadcast goes on"
    );
}

#[tokio::test]
async fn a_media_server_that_is_killed_ends_its_broadcasts_and_the_encoder_comes_back() {
    let house = House::embedded_with(&[("RECONNECT_GRACE", "1s".to_owned())]).await;
    let ana = house.register("ana@example.org", "Ana Silva").await;
    let stream = house.create_stream(&ana).await;
    let tail = house.tail("stream.live.ended.v1").await;
    let encoder = Encoder::publish(&stream.ingest);
    house.until(&stream, "live").await;

    house.media.kill();

    house.until(&stream, "ended").await;
    let events = events_until(&tail, "stream.live.ended.v1").await;
    assert_eq!(events[0]["data"]["reason"], "stale");
    drop(encoder);
    house.media.start();
    let _encoder = Encoder::publish(&stream.ingest);
    house.until(&stream, "live").await;
}
