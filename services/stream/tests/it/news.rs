//! What readers of `/streams/events` are told.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use serde_json::{Value, json};
use testkit::{Postgres, Program, eventually};
use tokio::time::timeout;

use crate::support::{PROGRAM, SECRET, TestStream, problem};

const PATIENCE: Duration = Duration::from_secs(30);

/// Ends are told at once, and encoders may be back at once.
const AT_ONCE: [(&str, &str); 2] = [("RECONNECT_GRACE", "0s"), ("PUBLISH_HOLD", "0s")];

/// An open answer of events.
struct News {
    pieces: Pin<Box<dyn Stream<Item = reqwest::Result<actix_web::web::Bytes>> + Send>>,
    text: String,
    /// Everything that came.
    all: String,
}

#[derive(Debug)]
struct Event {
    id: String,
    kind: String,
    data: Value,
}

impl News {
    async fn of(url: &str, last: Option<&str>) -> Self {
        let mut request = reqwest::Client::new().get(url);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { pieces: Box::pin(answer.bytes_stream()), text: String::new(), all: String::new() }
    }

    /// The next event; `None` when the answer has ended.
    async fn try_next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| Some(block.lines().find_map(|line| line.strip_prefix(name))?.to_owned());
                if let (Some(kind), Some(data)) = (field("event: "), field("data: ")) {
                    let data = serde_json::from_str(&data).unwrap();
                    return Some(Event { id: field("id: ").unwrap(), kind, data });
                }
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// The next block with a line that begins like this.
    async fn block_with(&mut self, begin: &str) -> String {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                if block.lines().any(|line| line.starts_with(begin)) {
                    return block;
                }
            }
            assert!(self.read().await, "the answer goes on");
        }
    }

    /// Reads on; `false` when the answer has ended.
    async fn read(&mut self) -> bool {
        let piece = timeout(PATIENCE, self.pieces.next()).await.expect("something is told in time");
        let Some(Ok(piece)) = piece else { return false };
        let piece = std::str::from_utf8(&piece).unwrap();
        self.text.push_str(piece);
        self.all.push_str(piece);
        true
    }

    async fn next(&mut self) -> Event {
        self.try_next().await.expect("the answer goes on")
    }
}

impl TestStream {
    async fn news(&self, query: &str, last: Option<&str>) -> News {
        News::of(&self.url(&format!("/api/v1/streams/events{query}")), last).await
    }

    /// Another instance on the same database.
    async fn another(&self) -> (Program, String, tempfile::TempDir) {
        let data = tempfile::tempdir().unwrap();
        let settings = [
            ("DATABASE_URL", self.database.url.clone()),
            ("AMPHI_DATA_DIR", data.path().display().to_string()),
            ("AUTH_URL", self.issuer.url.clone()),
            ("STREAM_LISTEN", "127.0.0.1:0".to_owned()),
            ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("WEBHOOK_SECRET", SECRET.to_owned()),
        ];
        let program = Program::start(PROGRAM, &[], &settings).await;
        let url = program.announced("stream");
        (program, url, data)
    }
}

#[tokio::test]
async fn what_happens_is_told_in_order_and_without_keys() {
    let stream = TestStream::with(&AT_ONCE).await;
    let made = stream.made(&stream.user("Ana")).await;
    let mut news = stream.news("", None).await;

    stream.callback("publish", &made.key, "7").await;
    stream.callback("done", &made.key, "7").await;
    stream.callback("publish", &made.key, "8").await;

    let events = [news.next().await, news.next().await, news.next().await];
    assert_eq!(events.each_ref().map(|event| event.kind.as_str()), ["live", "ended", "live"]);
    let ids = events.each_ref().map(|event| event.id.parse::<i64>().unwrap());
    assert!(ids.is_sorted() && ids[0] < ids[1] && ids[1] < ids[2], "{ids:?}");
    for event in &events {
        assert_eq!(event.data["streamId"], made.id);
    }
    assert_eq!(
        (&events[0].data["title"], &events[0].data["playbackId"]),
        (&json!("Cooking"), &json!(made.playback_id))
    );
    assert_eq!(events[1].data["reason"], "left");
    assert!(news.all.starts_with("retry: 2000\n") && !news.all.contains(&made.key), "{}", news.all);
}

#[tokio::test]
async fn a_reader_that_comes_back_goes_on_exactly_where_it_was_on_any_instance() {
    let stream = TestStream::with(&AT_ONCE).await;
    let made = stream.made(&stream.user("Ana")).await;
    let mut news = stream.news("", None).await;
    stream.callback("publish", &made.key, "1").await;
    let first = news.next().await;
    drop(news);
    for client in ["1", "2", "3"] {
        stream.callback("done", &made.key, client).await;
        stream.callback("publish", &made.key, &(client.parse::<u8>().unwrap() + 1).to_string()).await;
    }
    // It was started after all that, so it has it from the database.
    let (_other, url, _data) = stream.another().await;
    let other = format!("{url}/api/v1/streams/events");

    let mut ids = Vec::new();
    let readers = [
        stream.news("", Some(&first.id)).await,
        stream.news(&format!("?lastEventId={}", first.id), None).await,
        News::of(&other, Some(&first.id)).await,
    ];
    let mut readers = readers.map(|reader| (reader, Vec::new()));
    for (reader, heard) in &mut readers {
        for expected in ["ended", "live", "ended", "live", "ended", "live"] {
            let event = reader.next().await;
            assert_eq!(event.kind, expected);
            heard.push(event.id);
        }
        ids.push(heard.clone());
    }
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[0], ids[2]);
    // And from there on together.
    stream.callback("done", &made.key, "4").await;
    for (reader, _) in &mut readers {
        assert_eq!(reader.next().await.kind, "ended");
    }
}

#[tokio::test]
async fn who_cannot_go_on_is_told_to_begin_again_and_then_hears_what_comes() {
    let stream = TestStream::with(&AT_ONCE).await;
    let made = stream.made(&stream.user("Ana")).await;
    let mut news = stream.news("", None).await;
    stream.callback("publish", &made.key, "1").await;
    let first = news.next().await;
    stream.callback("done", &made.key, "1").await;
    stream.sql("delete from stream.feed where id < (select max(id) from stream.feed)").await;
    let (_other, url, _data) = stream.another().await;
    let other = format!("{url}/api/v1/streams/events");

    for last in [first.id.as_str(), "987654321", "-1", "not an id"] {
        let mut reader = News::of(&other, Some(last)).await;
        let reset = reader.next().await;
        assert_eq!(reset.kind, "reset", "{last}");
        assert!(reset.data["whatToDo"].as_str().unwrap().contains("/api/v1/streams"));
    }
    let mut reader = News::of(&other, Some(&first.id)).await;
    let reset = reader.next().await;
    stream.callback("publish", &made.key, "2").await;
    let live = reader.next().await;
    assert_eq!(live.kind, "live");
    assert_eq!(News::of(&other, Some(&reset.id)).await.next().await.id, live.id, "`reset` can be gone on from");
}

#[tokio::test]
async fn who_hears_something_on_one_instance_goes_on_at_another_at_once() {
    let stream = TestStream::with(&AT_ONCE).await;
    let (_other, url, _data) = stream.another().await;
    let other = format!("{url}/api/v1/streams/events");
    let made = stream.made(&stream.user("Ana")).await;
    let mut news = stream.news("", None).await;
    for client in 0..10 {
        stream.callback("publish", &made.key, &client.to_string()).await;
        let live = news.next().await;
        let mut there = News::of(&other, Some(&live.id)).await;
        stream.callback("done", &made.key, &client.to_string()).await;
        let ended = news.next().await;
        assert_eq!(there.next().await.id, ended.id);
    }
}

#[tokio::test]
async fn streams_that_are_not_public_are_not_told_of() {
    let stream = TestStream::with(&AT_ONCE).await;
    let ana = stream.user("Ana");
    let (private, unlisted, public) = (stream.made(&ana).await, stream.made(&ana).await, stream.made(&ana).await);
    for (made, visibility) in [(&private, "private"), (&unlisted, "unlisted")] {
        stream.sql(&format!("update stream.streams set visibility = '{visibility}' where id = {}", made.id)).await;
    }
    let mut news = stream.news("", None).await;

    for made in [&private, &unlisted, &public] {
        assert_eq!(stream.callback("publish", &made.key, "1").await.status(), 302);
    }

    assert_eq!(news.next().await.data["streamId"], public.id);
    assert!(!news.all.contains(&private.playback_id) && !news.all.contains(&unlisted.playback_id), "{}", news.all);
}

#[tokio::test]
async fn a_reader_picks_streams_out() {
    let stream = TestStream::with(&AT_ONCE).await;
    let ana = stream.user("Ana");
    let (one, other) = (stream.made(&ana).await, stream.made(&ana).await);
    let mut news = stream.news(&format!("?stream={}", other.id), None).await;

    stream.callback("publish", &one.key, "1").await;
    stream.callback("publish", &other.key, "2").await;

    assert_eq!(news.next().await.data["streamId"], other.id);
    for wrong in ["?stream=x", "?stream=1,", "?stream="] {
        problem(stream.get(&format!("/api/v1/streams/events{wrong}")).send().await.unwrap(), 422, "invalid-fields")
            .await;
    }
    let many = (1..=101).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    let answer = stream.get(&format!("/api/v1/streams/events?stream={many}")).send().await.unwrap();
    problem(answer, 422, "invalid-fields").await;
}

#[tokio::test]
async fn a_reader_to_whom_nothing_happens_hears_that_and_where_to_go_on() {
    let stream = TestStream::with(&AT_ONCE).await;
    let ana = stream.user("Ana");
    let (one, other) = (stream.made(&ana).await, stream.made(&ana).await);
    let mut all = stream.news("", None).await;
    let mut quiet = stream.news(&format!("?stream={}", other.id), None).await;
    stream.callback("publish", &one.key, "1").await;
    let live = all.next().await;

    let beat = quiet.block_with(": ").await;

    assert!(beat.starts_with(&format!("id: {}\n", live.id)), "{beat}");
}

#[tokio::test]
async fn an_outage_of_postgresql_ends_no_answer_and_loses_nothing() {
    let postgres = Postgres::private().await;
    let database = testkit::database_on(&postgres.url()).await;
    let stream = TestStream::on(database, &AT_ONCE).await;
    let made = stream.made(&stream.user("Ana")).await;
    let mut news = stream.news("", None).await;
    stream.callback("publish", &made.key, "1").await;
    let first = news.next().await;

    postgres.kill().await;
    let mut late = stream.news("", Some("987654321")).await;
    postgres.start().await;

    eventually("callbacks are taken again", async || {
        (stream.callback("done", &made.key, "1").await.status() == 204).then_some(())
    })
    .await;
    let ended = news.next().await;
    assert_eq!(ended.kind, "ended");
    assert_eq!(late.next().await.kind, "reset", "it was answered when PostgreSQL was back");
    assert_eq!(stream.news("", Some(&first.id)).await.next().await.id, ended.id);
}

#[tokio::test]
async fn answers_end_when_the_instance_stops() {
    let stream = TestStream::start().await;
    let mut news = stream.news("", None).await;

    stream.program.ask_to_stop();

    assert!(news.try_next().await.is_none());
}
