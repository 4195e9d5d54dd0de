//! The main job: a real encoder goes live through the house, and viewers see it.

use serde_json::Value;
use testkit::eventually;
use testkit::media::{self, Encoder};

use crate::house::{House, events_until};

/// Runs each test in one process on embedded defaults, and with a process for each service over RabbitMQ and Redis.
macro_rules! in_both_houses {
    ($($name:ident;)*) => {
        mod one_process {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(&super::House::embedded().await).await;
                }
            )*
        }

        mod a_process_for_each_service {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(&super::House::full().await).await;
                }
            )*
        }
    };
}

in_both_houses! {
    a_stream_goes_live_and_ends;
    a_wrong_key_is_refused_by_the_media_server_because_of_our_answer;
    a_viewer_who_leaves_and_a_refused_second_publisher_do_not_end_the_broadcast;
    the_owner_ends_the_broadcast_and_the_encoder_is_disconnected;
}

async fn a_stream_goes_live_and_ends(house: &House) {
    let ana = house.register("ana@example.org", "Ana Silva").await;
    let stream = house.create_stream(&ana).await;
    let tail = house.tail("stream.#").await;

    let encoder = Encoder::publish(&stream.ingest);

    let live = house.until(&stream, "live").await;
    assert!(live["startTime"].is_string() && live["endTime"].is_null(), "{live}");
    eventually("the list names the owner, whom auth has told of", async || {
        (house.seen(&stream).await["userName"] == "Ana Silva").then_some(())
    })
    .await;
    eventually("the playlist plays", async || (media::codecs(&stream.playback_url) == ["aac", "h264"]).then_some(()))
        .await;

    encoder.stop();

    let ended = house.until(&stream, "ended").await;
    assert!(ended["endTime"].as_str() > ended["startTime"].as_str(), "{ended}");
    let events = events_until(&tail, "stream.recording.ready.v1").await;
    let recording = events.iter().find(|event| event["name"] == "stream.recording.ready.v1").unwrap();
    let path = recording["data"]["path"].as_str().unwrap();
    assert_eq!(media::codecs(path), ["aac", "h264"], "the recording at {path} plays");
    assert_eq!(recording["data"]["stream_id"], stream.id);

    // Whoever knows the key can publish, so it is nowhere but with its owner.
    let playlist = house.client.get(&stream.playback_url).send().await.unwrap().text().await.unwrap();
    let public = [house.list("").await, playlist, events.iter().map(Value::to_string).collect(), house.output()];
    for text in public {
        assert!(!text.contains(&stream.key), "{text}");
    }
    for folder in [house.media.home(), house.data.path().to_owned()] {
        assert_eq!(media::files_with(&folder, &stream.key), Vec::<std::path::PathBuf>::new());
    }
}

async fn a_wrong_key_is_refused_by_the_media_server_because_of_our_answer(house: &House) {
    let ana = house.register("ana@example.org", "Ana Silva").await;
    let stream = house.create_stream(&ana).await;
    let wrong = stream.ingest.replace(&stream.key, "not-the-key");

    assert!(!Encoder::is_let(&wrong));

    assert_eq!(house.seen(&stream).await["status"], "ended");
    eventually("it is by our answer", async || house.output().contains("status=403").then_some(())).await;
    assert_eq!(media::files_with(&house.media.home(), "not-the-key"), Vec::<std::path::PathBuf>::new());
}

async fn a_viewer_who_leaves_and_a_refused_second_publisher_do_not_end_the_broadcast(house: &House) {
    let ana = house.register("ana@example.org", "Ana Silva").await;
    let stream = house.create_stream(&ana).await;
    let mut encoder = Encoder::publish(&stream.ingest);
    let live = house.until(&stream, "live").await;
    let watch = format!("rtmp://127.0.0.1:{}/watch/{}", house.media.rtmp_port, stream.playback_id);

    assert!(!Encoder::is_let(&stream.ingest), "the second publisher is refused");
    eventually("it is by our answer", async || house.output().contains("status=409").then_some(())).await;
    assert!(media::play_a_second(&watch), "a viewer plays over RTMP, and leaves");
    eventually("the viewer's leaving was noticed", async || house.output().contains("a viewer left").then_some(()))
        .await;

    assert!(encoder.is_publishing());
    let seen = house.seen(&stream).await;
    assert_eq!((&seen["status"], &seen["startTime"]), (&live["status"], &live["startTime"]));
}

async fn the_owner_ends_the_broadcast_and_the_encoder_is_disconnected(house: &House) {
    let ana = house.register("ana@example.org", "Ana Silva").await;
    let stream = house.create_stream(&ana).await;
    let mut encoder = Encoder::publish(&stream.ingest);
    house.until(&stream, "live").await;

    let url = format!("{}/streams/{}", house.gateway, stream.id);
    let body = serde_json::json!({"status": "ended"});
    let answer = house.client.put(url).bearer_auth(&ana.token).json(&body).send().await.unwrap();

    assert_eq!(answer.status(), 200);
    eventually("the encoder is disconnected", async || (!encoder.is_publishing()).then_some(())).await;
    assert_eq!(house.seen(&stream).await["status"], "ended");
}
