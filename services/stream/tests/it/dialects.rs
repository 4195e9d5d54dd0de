//! What each media server sends in the course of a broadcast, and what it makes of our answers.

use reqwest::Response;
use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{Made, TestStream, problem};

/// An SRS that is configured to call us (`http_hooks`), as far as `SrsHttpHooks` and `SrsRtmpConn` show.
struct Srs<'a> {
    stream: &'a TestStream,
    /// Anew with each start.
    service_id: &'static str,
}

impl Srs<'_> {
    /// Whether a client may go on: what `SrsHttpHooks::do_post` makes of the answer.
    async fn lets(&self, action: &str, client_id: &str, name: &str, param: &str) -> bool {
        let answer = self.call(action, client_id, name, param).await;
        let status = answer.status().as_u16();
        is_let(status, &answer.text().await.unwrap())
    }

    async fn call(&self, action: &str, client_id: &str, name: &str, param: &str) -> Response {
        let body = json!({
            "server_id": "vid-0xk989d", "service_id": self.service_id, "action": action, "client_id": client_id,
            "ip": "192.168.1.10", "vhost": "__defaultVhost__", "app": "live", "stream": name, "param": param,
            "tcUrl": "rtmp://192.168.1.2/live", "pageUrl": "", "stream_url": format!("/live/{name}"),
            "stream_id": "vid-124q9y3", "cwd": "/usr/local/srs", "file": format!("./objs/nginx/html/live/{name}.1420254068776.flv"),
        });
        self.stream.call(&body).await
    }
}

/// `SrsHttpHooks::do_post`: the status is 200 or 201; the body is `0` and nothing else, or a JSON object whose `code` is
/// the number 0.
fn is_let(status: u16, body: &str) -> bool {
    let code = || serde_json::from_str::<Value>(body).ok()?.as_object()?.get("code")?.as_i64();
    matches!(status, 200 | 201) && (body == "0" || code() == Some(0))
}

#[test]
fn the_srs_of_these_tests_refuses_what_srs_refuses() {
    assert!(is_let(200, "0") && is_let(201, r#"{"code":0,"data":{}}"#));
    for (status, body) in [
        (204, ""),
        (200, ""),
        (200, "0\n"),
        (200, r#"{"code":1}"#),
        (200, r#"{"code":"0"}"#),
        (200, "{}"),
        (200, "[0]"),
        (202, "0"),
        (302, "0"),
        (403, r#"{"code":0}"#),
        (500, "0"),
    ] {
        assert!(!is_let(status, body), "{status} {body}");
    }
}

fn with_key(stream: &Made) -> String {
    format!("?key={}", stream.key)
}

async fn viewers(stream: &TestStream, made: &Made, count: u32) {
    eventually(&format!("{count} viewers"), async || (stream.seen(made).await["viewerCount"] == count).then_some(()))
        .await;
}

#[tokio::test]
async fn a_broadcast_through_srs_from_its_beginning_to_its_end() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    let srs = Srs { stream: &stream, service_id: "y19xw4g7" };
    let (name, key) = (made.playback_id.clone(), with_key(&made));

    assert!(srs.lets("on_connect", "9308h583", "", "").await);
    assert!(srs.lets("on_publish", "9308h583", &name, &key).await);
    assert_eq!(stream.status(&made).await, "live");

    // SRS sends `on_unpublish` only for who was let publish; here a stranger forges one.
    assert!(!srs.lets("on_publish", "second", &name, &key).await);
    assert!(srs.lets("on_unpublish", "second", &name, &key).await);
    assert_eq!(stream.status(&made).await, "live");

    assert!(srs.lets("on_play", "viewer", &name, "").await);
    viewers(&stream, &made, 1).await;
    assert!(srs.lets("on_stop", "viewer", &name, "").await);
    viewers(&stream, &made, 0).await;
    assert_eq!(stream.status(&made).await, "live");
    assert!(srs.lets("on_hls", "9308h583", &name, &key).await);

    assert!(srs.lets("on_unpublish", "9308h583", &name, &key).await);
    assert!(srs.lets("on_close", "9308h583", "", "").await);
    assert_eq!(stream.status(&made).await, "ended");
}

#[tokio::test]
async fn srs_lets_nobody_publish_without_a_key_or_under_another_name() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let (made, other) = (stream.made(&ana).await, stream.made(&ana).await);
    let srs = Srs { stream: &stream, service_id: "y19xw4g7" };
    let name = made.playback_id.as_str();

    problem(srs.call("on_publish", "1", name, "").await, 401, "stream-key-missing").await;
    problem(srs.call("on_publish", "1", name, "?key=wrong").await, 403, "wrong-stream-key").await;
    problem(srs.call("on_publish", "1", &made.key, "").await, 403, "not-its-name").await;
    problem(srs.call("on_publish", "1", name, &with_key(&other)).await, 403, "not-its-name").await;
    problem(srs.call("on_play", "1", "nothing", "").await, 404, "no-such-stream").await;

    assert_eq!(stream.status(&made).await, "ended");
    assert_eq!(stream.status(&other).await, "ended");
}

#[tokio::test]
async fn the_encoder_of_an_srs_that_was_started_anew_is_taken_at_once() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    let (before, after) =
        (Srs { stream: &stream, service_id: "y19xw4g7" }, Srs { stream: &stream, service_id: "x02ab8k1" });
    let (name, key) = (made.playback_id.as_str(), with_key(&made));
    assert!(before.lets("on_publish", "9308h583", name, &key).await);

    assert!(after.lets("on_publish", "k2m8x0q1", name, &key).await);

    assert_eq!(stream.status(&made).await, "live");
    assert!(before.lets("on_unpublish", "9308h583", name, &key).await, "late");
    assert_eq!(stream.status(&made).await, "live");
}

#[tokio::test]
async fn a_recording_of_srs_is_told_once_with_its_whole_path() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    let srs = Srs { stream: &stream, service_id: "y19xw4g7" };
    let (name, key) = (made.playback_id.as_str(), with_key(&made));
    srs.lets("on_publish", "9308h583", name, &key).await;

    for _ in 0..2 {
        assert!(srs.lets("on_dvr", "9308h583", name, &key).await);
    }

    let paths = stream.found("select path from stream.recordings").await;
    assert_eq!(paths, [format!("/usr/local/srs/objs/nginx/html/live/{name}.1420254068776.flv")]);
}

/// What MediaMTX asks of whoever wants to do something.
async fn ask_for(stream: &TestStream, action: &str, protocol: &str, path: &str, id: &str, password: &str) -> Response {
    let body = json!({
        "ip": "192.0.2.7", "user": "", "password": password, "token": "", "action": action, "path": path,
        "protocol": protocol, "id": id, "query": "", "userAgent": "",
    });
    stream.call(&body).await
}

#[tokio::test]
async fn a_broadcast_through_mediamtx_from_its_beginning_to_its_end() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    let path = made.playback_id.as_str();
    let (first, second) = ("5c1ddf3a-8c52-4b7e-a8d4-0e6b0c7f1a01", "5c1ddf3a-8c52-4b7e-a8d4-0e6b0c7f1a02");

    // RTSP encoders come without a password at first, and are asked for it.
    problem(ask_for(&stream, "publish", "rtsp", path, first, "").await, 401, "stream-key-missing").await;
    assert_eq!(ask_for(&stream, "publish", "rtsp", path, first, &made.key).await.status(), 204);
    assert_eq!(stream.status(&made).await, "live");
    // Without this answer the second would replace the first (`overridePublisher`).
    problem(ask_for(&stream, "publish", "rtmp", path, second, &made.key).await, 409, "already-live").await;

    // It has arrived, under another name than it asked with.
    assert_eq!(stream.hook(&format!("event=available&path={path}&source_id=source-1")).await.status(), 204);
    assert_eq!(stream.hook(&format!("event=unavailable&path={path}&source_id=source-2")).await.status(), 204);
    assert_eq!(stream.status(&made).await, "live");

    assert_eq!(ask_for(&stream, "read", "webrtc", path, second, "").await.status(), 204);
    assert_eq!(stream.hook(&format!("event=read&path={path}&reader_id=reader-1")).await.status(), 204);
    viewers(&stream, &made, 1).await;
    assert_eq!(stream.hook(&format!("event=unread&path={path}&reader_id=reader-1")).await.status(), 204);
    viewers(&stream, &made, 0).await;

    let segment = format!("/rec/{path}/2026-11-21_10-00-00-000000.mp4");
    assert_eq!(stream.hook(&format!("event=segment&path={path}&segment_path={segment}")).await.status(), 204);
    assert_eq!(stream.found("select path from stream.recordings").await, [segment]);

    assert_eq!(stream.hook(&format!("event=unavailable&path={path}&source_id=source-1")).await.status(), 204);
    assert_eq!(stream.status(&made).await, "ended");
}

#[tokio::test]
async fn what_hooks_of_mediamtx_tell_late_is_not_about_who_came_next() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    let path = made.playback_id.as_str();
    let tell = async |event: &str, source: &str| {
        assert_eq!(stream.hook(&format!("event={event}&path={path}&source_id={source}")).await.status(), 204);
    };
    for id in ["5c1ddf3a-8c52-4b7e-a8d4-0e6b0c7f1a01", "5c1ddf3a-8c52-4b7e-a8d4-0e6b0c7f1a02"] {
        assert_eq!(ask_for(&stream, "publish", "rtmp", path, id, &made.key).await.status(), 204);
        let source = format!("source-of-{id}");
        tell("available", &source).await;
        if id.ends_with('1') {
            tell("unavailable", &source).await;
        }
    }

    // Each hook is a process of its own: they may overtake each other.
    tell("available", "source-of-5c1ddf3a-8c52-4b7e-a8d4-0e6b0c7f1a01").await;
    tell("unavailable", "source-of-5c1ddf3a-8c52-4b7e-a8d4-0e6b0c7f1a01").await;

    assert_eq!(stream.status(&made).await, "live");
    tell("unavailable", "source-of-5c1ddf3a-8c52-4b7e-a8d4-0e6b0c7f1a02").await;
    assert_eq!(stream.status(&made).await, "ended");
}

#[tokio::test]
async fn mediamtx_lets_nobody_do_what_is_not_theirs() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let (made, other) = (stream.made(&ana).await, stream.made(&ana).await);
    let id = "5c1ddf3a-8c52-4b7e-a8d4-0e6b0c7f1a01";
    let ask = async |action, path, password| ask_for(&stream, action, "rtmp", path, id, password).await;

    for action in ["api", "metrics", "pprof"] {
        problem(ask(action, "", "").await, 403, "forbidden").await;
    }
    problem(ask("publish", &made.playback_id, "wrong").await, 403, "wrong-stream-key").await;
    problem(ask("publish", &made.playback_id, &other.key).await, 403, "not-its-name").await;
    problem(ask("publish", &made.key, &made.key).await, 403, "not-its-name").await;
    problem(ask("read", "cam", "").await, 404, "no-such-stream").await;
    stream
        .found(&format!("update stream.streams set visibility = 'private' where id = {} returning title", made.id))
        .await;
    problem(ask("read", &made.playback_id, "").await, 404, "no-such-stream").await;
}

#[tokio::test]
async fn a_broadcast_in_our_own_words_says_what_was_decided() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    let say = async |body: Value| {
        let answer = stream.call(&body).await;
        assert_eq!(answer.status(), 200, "{body}");
        answer.json::<Value>().await.unwrap()
    };

    let published = say(json!({"event": "on_publish", "streamKey": made.key, "clientId": "7"})).await;

    assert_eq!(published, json!({"code": 0, "verdict": "the stream is live: client 7 publishes"}));
    assert_eq!(stream.status(&made).await, "live");
    say(json!({"event": "on_update", "stream_key": made.key, "client_id": "7"})).await;
    say(json!({"event": "on_play", "playbackId": made.playback_id, "clientId": "12"})).await;
    viewers(&stream, &made, 1).await;
    say(json!({"event": "on_done", "playbackId": made.playback_id, "clientId": "12"})).await;
    viewers(&stream, &made, 0).await;
    let ignored = say(json!({"event": "on_done", "name": made.key, "clientId": "12"})).await;
    assert_eq!(ignored["verdict"], "`done` from client 12 ignored: the publisher is client 7");
    say(json!({"event": "on_tea"})).await;
    problem(
        stream.call(&json!({"event": "on_publish", "streamKey": made.key, "clientId": "8"})).await,
        409,
        "already-live",
    )
    .await;

    say(json!({"event": "on_done", "streamKey": made.key, "clientId": "7"})).await;

    assert_eq!(stream.status(&made).await, "ended");
}

#[tokio::test]
async fn what_is_no_json_of_a_media_server_is_refused() {
    let stream = TestStream::start().await;
    for body in [
        json!({}),
        json!({"event": "on_publish"}),
        json!({"event": "on_publish", "streamKey": "a\0"}),
        json!({"event": "on_publish", "streamKey": {}}),
        json!({"event": "on_done", "streamKey": "a", "clientId": "1".repeat(256)}),
        json!({"action": "on_publish", "client_id": "1"}),
        json!({"action": "publish", "protocol": "rtmp"}),
    ] {
        problem(stream.call(&body).await, 400, "bad-request").await;
    }
    for body in [json!([]), json!("on_publish"), Value::Null] {
        problem(stream.call(&body).await, 400, "bad-request").await;
    }
}

#[tokio::test]
async fn an_encoder_of_nginx_rtmp_may_publish_under_the_public_name_with_the_key_beside_it() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    let (name, key) = (&made.playback_id, &made.key);

    let answer = stream.callback_of("1000", &format!("call=publish&name={name}&type=live&key={key}"), "7").await;

    assert_eq!(answer.status(), 302);
    assert_eq!(stream.callback("update_publish", name, "7").await.status(), 204);
    stream.callback_of("1000", &format!("call=done&name={name}&key={key}"), "8").await;
    assert_eq!(stream.status(&made).await, "live", "another connection ends nothing");
    stream.callback_of("1000", &format!("call=done&name={name}&key={key}"), "7").await;
    assert_eq!(stream.status(&made).await, "ended");
}

#[tokio::test]
async fn nginx_rtmp_may_hand_a_broadcast_on_to_itself_and_nobody_else_may() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    let publish = async |addr: &str, name: &str| {
        let form = format!(
            "app=watch&flashver=&swfurl=&tcurl=rtmp://127.0.0.1/watch&pageurl=&addr={addr}&clientid=2&call=publish&name={name}&type=live"
        );
        let request = stream.post(crate::support::WEBHOOK).header("x-webhook-secret", crate::support::SECRET);
        request.header("x-media-server", "m1").header("x-media-server-started", "1000").body(form).send().await.unwrap()
    };
    problem(publish("127.0.0.1", &made.playback_id).await, 404, "no-such-stream").await;
    stream.callback("publish", &made.key, "1").await;

    assert_eq!(publish("127.0.0.1", &made.playback_id).await.status(), 204);
    problem(publish("192.0.2.1", &made.playback_id).await, 403, "wrong-stream-key").await;
    problem(publish("192.0.2.1&addr=127.0.0.1", &made.playback_id).await, 403, "wrong-stream-key").await;

    // When it stops, the broadcast goes on: its encoder is another connection.
    stream.callback("done", &made.playback_id, "2").await;
    assert_eq!(stream.status(&made).await, "live");
}

#[tokio::test]
async fn a_recording_is_called_as_it_is_on_the_disk_and_never_by_the_key() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "1").await;
    let recorded = async |path: &str| {
        stream.callback_of("1000", &format!("call=record_done&recorder=&name={}&path={path}", made.key), "1").await
    };

    // nginx-rtmp reports under the name that was published with, even of a file that has the public name. What is left
    // encoded when the form is decoded belongs to the file's name.
    assert_eq!(recorded(&format!("/rec/{}%2520x-1.flv", made.playback_id)).await.status(), 204);
    problem(recorded(&format!("/rec/{}-1.flv", made.key)).await, 400, "bad-request").await;
    // What a publisher adds to its leaving is no recording.
    let smuggled = format!("call=done&name={}&call=record_done&path=/etc/passwd", made.key);
    assert_eq!(stream.callback_of("1000", &smuggled, "2").await.status(), 204);

    let paths = stream.found("select path from stream.recordings").await;
    assert_eq!(paths, [format!("/rec/{}%20x-1.flv", made.playback_id)]);
}
