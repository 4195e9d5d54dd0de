//! What clients of the gateway hear and see of streams while something happens on them.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use testkit::eventually;
use testkit::media::Encoder;

use crate::house::House;

/// Reads events from where `last` was until one is of this kind, and returns its id.
async fn heard(house: &House, last: Option<&str>, kind: &str) -> String {
    let mut request = reqwest::Client::new().get(format!("{}/streams/events", house.gateway));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    let mut pieces = answer.bytes_stream();
    let mut text = String::new();
    let read = async {
        loop {
            let piece = pieces.next().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&piece).unwrap());
            let mut blocks = text.split("\n\n");
            if let Some(block) = blocks.find(|block| block.contains(&format!("event: {kind}\n"))) {
                return block.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), read).await.unwrap()
}

#[tokio::test]
async fn what_happens_and_what_it_looks_like_comes_through_the_gateway() {
    let mut house =
        House::embedded_with(&[("THUMBNAIL_EVERY", "2s".to_owned()), ("RECONNECT_GRACE", "0s".to_owned())]).await;
    let ana = house.register("ana@example.org", "Ana Silva").await;
    let stream = house.create_stream(&ana).await;

    let encoder = Encoder::publish(&stream.ingest);
    let live = heard(&house, Some("0"), "live").await;
    let picture = format!("{}/streams/{}/thumbnail", house.gateway, stream.id);
    let answer = eventually("a picture was taken", async || {
        let answer = house.client.get(&picture).send().await.unwrap();
        (answer.status() == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.headers()["content-type"], "image/jpeg");
    assert!(answer.headers().contains_key("etag"));

    encoder.stop();

    heard(&house, Some(&live), "ended").await;

    // Readers come back by themselves: nobody waits for them.
    let reader = reqwest::Client::new().get(format!("{}/streams/events", house.gateway)).send().await.unwrap();
    let begun = Instant::now();
    let (status, output) = house.programs.pop().unwrap().stop();
    assert!(status.success() && begun.elapsed() < Duration::from_secs(10), "{:?}: {output}", begun.elapsed());
    drop(reader);
}
