use serde_json::{Value, json};
use testkit::{Program, Redis, eventually};

use crate::support::{Made, PROGRAM, TestStream};

async fn retitle(stream: &TestStream, made: &Made, title: &str) {
    stream.execute(&format!("update stream.streams set title = '{title}' where id = {}", made.id)).await;
}

async fn title_in(url: &str, stream: &TestStream, path: &str) -> Value {
    let seen: Value =
        stream.client.get(format!("{url}/api/v1/streams{path}")).send().await.unwrap().json().await.unwrap();
    if path.starts_with("/") { seen["title"].clone() } else { seen["items"][0]["title"].clone() }
}

#[tokio::test]
async fn many_who_ask_at_once_are_one_query() {
    let stream = TestStream::with(&[("STREAM_LIST_TTL", "1h"), ("STREAM_DETAIL_TTL", "1h")]).await;
    let made = stream.made(&stream.user("Ana")).await;
    for (path, kind, least_names) in [
        ("?limit=7".to_owned(), "list", 0),
        (format!("/{}", made.playback_id), "detail", 1),
        (format!("/{}", made.id), "none", 0),
    ] {
        let ask = async || {
            let answer = stream.look(&path, None).await;
            assert_eq!(answer.status(), 200);
        };
        futures_util::future::join_all((0..300).map(|_| ask())).await;
        let loads = async |kind: &str| {
            stream.measured(&format!("stream_cache_total{{kind=\"{kind}\",outcome=\"miss\"}}")).await
        };
        if kind != "none" {
            assert_eq!(loads(kind).await, 1, "{path}");
        }
        assert!(loads("name").await >= least_names && loads("name").await <= 1, "{path}");
    }
    let detail = "stream_cache_total{kind=\"detail\",outcome=\"miss\"}";
    assert_eq!(stream.measured(detail).await, 1, "by its id it is the same answer");
}

#[tokio::test]
async fn answers_are_kept_for_their_time_and_dropped_with_a_change() {
    let stream = TestStream::with(&[("STREAM_LIST_TTL", "1h"), ("STREAM_DETAIL_TTL", "1h")]).await;
    let ana = stream.user("Ana");
    let (made, other) = (stream.made(&ana).await, stream.made(&ana).await);
    let path = format!("/{}", made.id);
    let url = stream.program.announced("stream");
    assert_eq!(title_in(&url, &stream, &path).await, "Cooking");
    retitle(&stream, &made, "Unseen").await;
    assert_eq!(title_in(&url, &stream, &path).await, "Cooking", "it is kept");

    stream.put(other.id, &ana, &json!({"title": "Chess"})).send().await.unwrap();
    assert_eq!(title_in(&url, &stream, &path).await, "Cooking", "it is another stream that has changed");
    assert_eq!(title_in(&url, &stream, "?sort=oldest").await, "Unseen", "lists have changed");

    stream.put(made.id, &ana, &json!({"description": "With fire"})).send().await.unwrap();
    assert_eq!(title_in(&url, &stream, &path).await, "Unseen");
}

#[tokio::test]
async fn a_change_by_others_is_seen_within_the_time_that_answers_are_kept() {
    let stream = TestStream::with(&[("STREAM_LIST_TTL", "1s"), ("STREAM_DETAIL_TTL", "1s")]).await;
    let made = stream.made(&stream.user("Ana")).await;
    let url = stream.program.announced("stream");
    for path in ["?limit=1".to_owned(), format!("/{}", made.id)] {
        title_in(&url, &stream, &path).await;
    }
    retitle(&stream, &made, "Renamed").await;
    for path in ["?limit=1".to_owned(), format!("/{}", made.id)] {
        eventually("it is seen", async || (title_in(&url, &stream, &path).await == "Renamed").then_some(())).await;
    }
}

#[tokio::test]
async fn a_users_name_is_seen_within_the_time_that_answers_are_kept() {
    let stream = TestStream::with(&[("STREAM_LIST_TTL", "1s"), ("STREAM_DETAIL_TTL", "1s")]).await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    for name in ["Ana Silva", "Ana Nguyễn"] {
        let data = json!({"user_id": ana.id, "full_name": name, "role": "Member"});
        let event = format!(
            "insert into stream.outbox (event_id, name, occurred_at, data)
             values (gen_random_uuid(), 'auth.user.registered.v1', now(), '{data}');
             select pg_notify('stream.outbox', '')"
        );
        stream.execute(&event).await;
        eventually("the name is seen", async || (stream.seen(&made).await["userName"] == name).then_some(())).await;
        let in_list = async || {
            let list: Value = stream.look("", None).await.json().await.unwrap();
            (list["items"][0]["userName"] == name).then_some(())
        };
        eventually("the name is in lists", in_list).await;
    }
}

#[tokio::test]
async fn without_the_cache_every_answer_comes_from_the_database() {
    let stream = TestStream::with(&[("STREAM_CACHE", "false")]).await;
    let made = stream.made(&stream.user("Ana")).await;
    let url = stream.program.announced("stream");
    for title in ["One", "Two"] {
        retitle(&stream, &made, title).await;
        for path in ["?limit=1".to_owned(), format!("/{}", made.id), format!("/{}", made.playback_id)] {
            assert_eq!(title_in(&url, &stream, &path).await, title);
        }
    }
}

/// Another instance on the same database and Redis.
async fn second(stream: &TestStream, redis: &str) -> Program {
    let settings = [
        ("DATABASE_URL", stream.database.url.clone()),
        ("REDIS_URL", redis.to_owned()),
        ("AUTH_URL", stream.issuer.url.clone()),
        ("STREAM_LISTEN", "127.0.0.1:0".to_owned()),
        ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ("WEBHOOK_SECRET", crate::support::SECRET.to_owned()),
        ("STREAM_LIST_TTL", "1h".to_owned()),
        ("STREAM_DETAIL_TTL", "1h".to_owned()),
    ];
    Program::start(PROGRAM, &[], &settings).await
}

#[tokio::test]
async fn ones_own_change_is_seen_at_once_at_another_instance_also_after_redis_was_away() {
    let redis = Redis::private().await;
    let settings = [("REDIS_URL", &*redis.url()), ("STREAM_LIST_TTL", "1h"), ("STREAM_DETAIL_TTL", "1h")];
    let stream = TestStream::with(&settings).await;
    let other = second(&stream, &redis.url()).await;
    let urls = [stream.program.announced("stream"), other.announced("stream")];
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    let paths = ["?limit=1".to_owned(), format!("/{}", made.id), format!("/{}", made.playback_id)];
    let change_and_look = async |title: &str| {
        assert_eq!(stream.put(made.id, &ana, &json!({"title": title})).send().await.unwrap().status(), 200);
        for path in &paths {
            for url in &urls {
                assert_eq!(title_in(url, &stream, path).await, title, "{path}");
            }
        }
    };
    for title in ["One", "Two", "Three"] {
        change_and_look(title).await;
    }

    redis.kill().await;
    for title in ["Four", "Five"] {
        change_and_look(title).await;
    }

    // It has forgotten all that was counted there.
    redis.start().await;
    for title in ["Six", "Seven", "Eight"] {
        change_and_look(title).await;
    }
    let kept = async || {
        change_and_look("Nine").await;
        (stream.measured("stream_cache_total{kind=\"detail\",outcome=\"hit\"}").await > 6).then_some(())
    };
    eventually("answers are kept again", kept).await;
}
