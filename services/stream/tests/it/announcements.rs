use std::collections::HashSet;

use serde_json::{Value, json};
use testkit::{Program, eventually};

use crate::support::{PROGRAM, SECRET, TestStream, sql};

const ENDS_AT_ONCE: [(&str, &str); 2] = [("RECONNECT_GRACE", "0s"), ("PUBLISH_HOLD", "0s")];
const NAME: &str = "stream.live.announced.v1";

/// The announcements that were published so far.
fn announced(tail: &Program) -> Vec<Value> {
    let output = tail.output();
    let events = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["name"] == NAME).map(|event| event["data"].clone()).collect()
}

/// Waits until everybody who was to be told has been.
async fn all_told(database: &str) {
    eventually("nobody is left to be told", async || {
        sql(database, "select 1 from stream.notices").await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn followers_are_told_once_when_a_public_stream_goes_live() {
    let stream = TestStream::with(&ENDS_AT_ONCE).await;
    let ana = stream.known("Ana").await;
    let [ben, cleo, dan] = ["Ben", "Cleo", "Dan"].map(|name| stream.user(name));
    stream.follows(&ben, &ana, json!({})).await;
    stream.follows(&cleo, &ana, json!({"byMail": false})).await;
    let other = stream.known("Other").await;
    stream.follows(&dan, &other, json!({})).await;
    let tail = stream.tail().await;
    let made = stream.made(&ana).await;

    stream.callback("publish", &made.key, "1").await;

    let told = eventually("they are told", async || announced(&tail).pop()).await;
    assert_eq!((&told["stream_id"], &told["channel_id"]), (&json!(made.id), &json!(ana.id)));
    assert_eq!((&told["title"], &told["playback_id"]), (&json!("Cooking"), &json!(made.playback_id)));
    assert_eq!((&told["by_mail"], &told["others"]), (&json!([ben.id]), &json!([cleo.id])));

    // Again within the hour: nobody is told. A stream of its own, hidden or unlisted: neither.
    stream.callback("done", &made.key, "1").await;
    stream.callback("publish", &made.key, "2").await;
    let hidden = stream.made(&ana).await;
    stream.sql(&format!("update stream.streams set visibility = 'unlisted' where id = {}", hidden.id)).await;
    stream.callback("publish", &hidden.key, "3").await;
    all_told(&stream.database.url).await;
    // What comes after in the queue was published after.
    stream.callback("done", &made.key, "2").await;
    eventually("the second end is published", async || {
        (tail.output().matches("stream.live.ended.v1").count() == 2).then_some(())
    })
    .await;
    assert_eq!(announced(&tail).len(), 1);
}

#[tokio::test]
async fn a_broadcast_that_is_over_is_announced_to_nobody() {
    let stream = TestStream::with(&ENDS_AT_ONCE).await;
    let (ana, ben) = (stream.known("Ana").await, stream.user("Ben"));
    stream.follows(&ben, &ana, json!({})).await;
    let made = stream.made(&ana).await;
    let tail = stream.tail().await;
    stream.callback("publish", &made.key, "1").await;
    all_told(&stream.database.url).await;
    stream.callback("done", &made.key, "1").await;
    let broadcast = stream.sql("select id from stream.broadcasts where closed_at is not null").await[0][0].clone();

    let late = format!("insert into stream.notices values ({broadcast}, {}, null, now())", made.id);
    stream.sql(&late).await;
    all_told(&stream.database.url).await;

    let outbox = "select 1 from stream.outbox";
    eventually("all is published", async || stream.sql(outbox).await.is_empty().then_some(())).await;
    assert_eq!(announced(&tail).len(), 1, "when it was on");
}

#[tokio::test]
async fn each_of_many_followers_is_told_once_though_the_service_is_killed_between_the_pages() {
    const FOLLOWERS: usize = 20_250;
    let stream = TestStream::start().await;
    let ana = stream.known("Ana").await;
    let follow = format!(
        "insert into stream.follows select '{}', gen_random_uuid(), n % 3 > 0, now() from generate_series(1, {FOLLOWERS}) n",
        ana.id
    );
    stream.sql(&follow).await;
    let made = stream.made(&ana).await;
    let tail = stream.tail().await;

    stream.callback("publish", &made.key, "1").await;
    eventually("some are told", async || {
        let begun = "select 1 from stream.notices where after_user_id is not null";
        (!stream.sql(begun).await.is_empty()).then_some(())
    })
    .await;
    let (database, issuer) = (stream.database.url.clone(), stream.issuer.url.clone());
    let TestStream { program, database: _kept, .. } = stream;
    program.kill();
    let left = sql(&database, "select after_user_id from stream.notices").await;
    assert_eq!(left.len(), 1, "it was killed before the last page");

    let data = tempfile::tempdir().unwrap();
    let settings = [
        ("DATABASE_URL", database.clone()),
        ("AMPHI_DATA_DIR", data.path().display().to_string()),
        ("AUTH_URL", issuer),
        ("STREAM_LISTEN", "127.0.0.1:0".to_owned()),
        ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ("WEBHOOK_SECRET", SECRET.to_owned()),
    ];
    let _instances = [Program::start(PROGRAM, &[], &settings).await, Program::start(PROGRAM, &[], &settings).await];

    let ids = |all: &[Value]| -> Vec<String> {
        let of = |event: &Value, name: &str| event[name].as_array().unwrap().clone();
        let ids = all.iter().flat_map(|event| [of(event, "by_mail"), of(event, "others")].concat());
        ids.map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    eventually("all are told", async || (ids(&announced(&tail)).len() >= FOLLOWERS).then_some(())).await;
    all_told(&database).await;
    let outbox = "select 1 from stream.outbox";
    eventually("all is published", async || sql(&database, outbox).await.is_empty().then_some(())).await;
    let pages = announced(&tail);
    // An event can come twice when its publisher is killed; it is the same event, and takes effect once.
    let mut seen = HashSet::new();
    let once: Vec<_> = pages.into_iter().filter(|page| seen.insert(page.to_string())).collect();
    let all = ids(&once);
    assert_eq!((all.len(), all.iter().collect::<HashSet<_>>().len()), (FOLLOWERS, FOLLOWERS));
    assert!(once.iter().all(|page| page["by_mail"].as_array().unwrap().len() <= 500));
    assert_eq!(once.iter().map(|page| page["by_mail"].as_array().unwrap().len()).sum::<usize>(), FOLLOWERS / 3 * 2);
}
