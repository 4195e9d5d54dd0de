//! What administrators see of the calls of media servers.

use serde_json::{Value, json};
use testkit::{Postgres, eventually};

use crate::support::{SECRET, TestStream, WEBHOOK, problem};

const LIST: &str = "/api/v1/admin/webhooks";

async fn replay(stream: &TestStream, id: &Value) -> Value {
    let request = stream.post(&format!("{LIST}/{id}/replay?dry=1"));
    let answer = stream.ask_as(&stream.admin(), request).await;
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

#[tokio::test]
async fn every_call_is_kept_with_what_became_of_it_in_words() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "7").await;
    stream.callback("done", &made.key, "12").await;
    stream.callback("update_publish", &made.key, "7").await;
    stream.callback("publish", "wrong", "8").await;
    stream.callback("connect", "", "9").await;
    stream.call(&json!({"event": "on_publish"})).await;
    stream.hook(&format!("event=read&path={}&reader_id=3&server=mtx", made.playback_id)).await;

    let calls = stream.kept_calls("", 7).await;

    let told: Vec<_> = calls
        .iter()
        .rev()
        .map(|call| {
            (call["call"].as_str().unwrap(), call["status"].as_u64().unwrap(), call["verdict"].as_str().unwrap())
        })
        .collect();
    let expected = [
        ("publish", 302, "the stream is live: client 7 publishes"),
        ("done", 204, "`done` from client 12 ignored: the publisher is client 7"),
        ("update_publish", 204, "the encoder is still there"),
        ("publish", 403, "refused: no stream has this key"),
        ("connect", 204, "nothing follows from it"),
        ("on_publish", 400, "refused: `streamKey` is missing"),
        ("read", 204, "a viewer came"),
    ];
    assert_eq!(told, expected);
    let publish = &calls[6];
    let fields = json!({
        "call": "publish", "app": "live", "name": "‹key›", "clientid": "7", "addr": "127.0.0.1",
        "flashver": "FMLE/3.0", "tcurl": "rtmp://127.0.0.1/live", "swfurl": "", "pageurl": "",
    });
    assert_eq!(publish["fields"], fields);
    for (name, value) in [
        ("dialect", json!("nginx-rtmp")),
        ("mediaServer", json!("m1")),
        ("serverRun", json!("1000")),
        ("clientAddress", json!("127.0.0.1")),
        ("streamId", json!(made.id)),
        ("isReplayable", json!(true)),
    ] {
        assert_eq!(publish[name], value, "{name}");
    }
    let hook = &calls[0];
    assert_eq!((&hook["dialect"], &hook["mediaServer"]), (&json!("mediamtx"), &json!("mtx")));
    assert_eq!(hook["fields"]["path"], made.playback_id);

    assert_eq!(stream.kept_calls(&format!("streamId={}", made.id), 4).await.len(), 4);
    assert_eq!(stream.kept_calls("dialect=documented", 1).await[0]["call"], "on_publish");
    let page = stream.get(&format!("{LIST}?limit=2&before={}", calls[3]["id"]));
    let page: Value = stream.ask_as(&stream.admin(), page).await.json().await.unwrap();
    assert_eq!(page["items"], json!(calls[4..6]));
    assert_eq!(page["nextBefore"], calls[5]["id"]);
}

#[tokio::test]
async fn only_administrators_see_calls_and_try_them_again() {
    let stream = TestStream::start().await;
    let member = stream.user("Ana");
    let (list, again) = (|| stream.get(LIST), || stream.post(&format!("{LIST}/1/replay?dry=1")));
    problem(list().send().await.unwrap(), 401, "token-missing").await;
    problem(again().send().await.unwrap(), 401, "token-missing").await;
    problem(stream.ask_as(&member, list()).await, 403, "forbidden").await;
    problem(stream.ask_as(&member, again()).await, 403, "forbidden").await;
    let administrator = stream.admin();
    assert_eq!(stream.ask_as(&administrator, list()).await.status(), 200);
    problem(stream.ask_as(&administrator, again()).await, 404, "no-such-call").await;
    for wrong in ["limit=0", "limit=101"] {
        problem(stream.ask_as(&administrator, stream.get(&format!("{LIST}?{wrong}"))).await, 422, "invalid-fields")
            .await;
    }
    for wrong in ["dialect=morse", "streamId=x", "before=x"] {
        problem(stream.ask_as(&administrator, stream.get(&format!("{LIST}?{wrong}"))).await, 400, "bad-request").await;
    }
}

#[tokio::test]
async fn a_call_is_tried_again_and_nothing_changes() {
    let stream = TestStream::with(&[("RECONNECT_GRACE", "0s"), ("PUBLISH_HOLD", "0s")]).await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "7").await;
    stream.callback("publish", &made.key, "8").await;
    stream.callback("connect", "", "9").await;
    let calls = stream.kept_calls("", 3).await;
    let [connect, second, first] = [&calls[0]["id"], &calls[1]["id"], &calls[2]["id"]];
    let administrator = stream.admin();
    let refused = async |path: String| stream.ask_as(&administrator, stream.post(&path)).await;

    problem(refused(format!("{LIST}/{first}/replay")).await, 422, "invalid-fields").await;
    problem(refused(format!("{LIST}/{first}/replay?dry=0")).await, 422, "invalid-fields").await;
    problem(refused(format!("{LIST}/{connect}/replay?dry=1")).await, 409, "nothing-to-replay").await;

    assert_eq!(
        replay(&stream, second).await,
        json!({"status": 409, "verdict": "refused: client 7 is on air, and still there"})
    );
    assert_eq!(replay(&stream, first).await, json!({"status": 302, "verdict": "client 7 is on air already"}));
    stream.callback("done", &made.key, "7").await;
    let before = stream.seen(&made).await;
    let done = stream.kept_calls("", 4).await[0]["id"].clone();

    assert_eq!(
        replay(&stream, second).await,
        json!({"status": 302, "verdict": "the stream is live: client 8 publishes"})
    );
    let late = replay(&stream, &done).await;
    assert_eq!(
        late,
        json!({"status": 204, "verdict": "`done` from client 7 ignored: its broadcast has ended already"})
    );

    assert_eq!(stream.seen(&made).await, before);
    assert_eq!(stream.found("select count(*)::text from stream.broadcasts").await, ["1"]);
    assert_eq!(stream.kept_calls("", 4).await.len(), 4, "trying again is no call");
    stream.found("delete from stream.stream_keys returning name").await;
    assert_eq!(replay(&stream, first).await, json!({"status": 403, "verdict": "refused: no stream has this key"}));
}

#[tokio::test]
async fn a_key_is_in_no_call_that_is_kept_and_in_no_line_that_is_logged_wherever_it_was_written() {
    let stream = TestStream::with(&[("LOG_LEVEL", "debug")]).await;
    let made = stream.made(&stream.user("Ana")).await;
    let (key, public) = (&made.key, &made.playback_id);
    let forms = [
        format!("app=live/{key}&tcurl=rtmp://h/live/{key}?key={key}&pageurl=http://h/?{key}&clientid=1&call=connect"),
        format!("app=live&clientid={key}&call=publish&name={key}"),
        format!("app=live&clientid=1&call=publish&name={public}&key={key}&{key}&note={key}"),
        format!("app=live&clientid=1&call=record_done&recorder=&name={key}&path=/rec/{key}-1.flv"),
        format!("app=live&clientid=1&call=record_done&recorder=&name={public}&path=/rec/{key}-1.flv"),
        format!("app=live&clientid=1&call={key}&name=x"),
        format!("app=live&clientid=1&call=done&name={key}"),
    ];
    for form in &forms {
        stream.post(WEBHOOK).header("x-webhook-secret", SECRET).body(form.clone()).send().await.unwrap();
    }
    let bodies = [
        json!({"action": "on_publish", "client_id": "1", "stream": key, "stream_url": format!("/live/{key}"), "param": ""}),
        json!({"action": "on_publish", "client_id": "1", "stream": public, "param": format!("?key={key}")}),
        json!({"action": "publish", "path": public, "protocol": "rtmp", "user": key, "password": key, "token": key, "query": format!("key={key}"), "userAgent": key}),
        json!({"action": "publish", "path": key, "protocol": "rtmp", "password": key}),
        json!({"event": "on_publish", "streamKey": key, "clientId": key}),
        json!({"event": "on_done", "name": key, "playbackId": key}),
        json!({"event": key}),
    ];
    for body in &bodies {
        stream.call(body).await;
    }
    stream.hook(&format!("event=available&path={public}&source_id=1&stream_key={key}")).await;
    stream.kept_calls("", forms.len() + bodies.len() + 1).await;

    // What was understood is kept to be tried again, and shown to nobody: there the name of a connection may be anything.
    let kept = stream.found("select (to_jsonb(c) - 'understood')::text from stream.webhook_calls c").await.join("\n");
    assert!(kept.contains(public.as_str()) && !kept.contains(key.as_str()), "{kept}");
    let understood = stream
        .found("select (understood - 'client_id')::text from stream.webhook_calls where understood is not null")
        .await
        .join("\n");
    assert!(!understood.contains(key.as_str()), "{understood}");
    let (_, log) = stream.program.stop();
    assert!(log.contains("a media server called"), "calls are logged: {log}");
    assert!(!log.contains(key.as_str()), "{log}");
}

#[tokio::test]
async fn the_last_calls_are_kept_and_heartbeats_push_out_only_heartbeats() {
    let stream = TestStream::with(&[("WEBHOOK_LOG", "10")]).await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "7").await;
    for _ in 0..40 {
        stream.callback("update_publish", &made.key, "7").await;
    }

    let count = async |what: &str| {
        let of = format!("select count(*)::text from stream.webhook_calls where call = '{what}'");
        stream.found(&of).await[0].parse::<usize>().unwrap()
    };
    // They are counted every now and then: of ten, after two new ones.
    let is_full = |count| (10..=11).contains(&count);
    eventually("the oldest heartbeats are gone", async || is_full(count("update_publish").await).then_some(())).await;
    assert_eq!(count("publish").await, 1);
    for _ in 0..30 {
        stream.callback("done", &made.key, "9").await;
    }
    eventually("the oldest calls are gone", async || is_full(count("done").await).then_some(())).await;
    assert!(count("publish").await == 0 && is_full(count("update_publish").await));
}

#[tokio::test]
async fn of_strangers_one_call_a_second_is_kept_and_nothing_of_what_it_says() {
    let stream = TestStream::start().await;
    for _ in 0..20 {
        let request =
            stream.post(WEBHOOK).header("x-forwarded-for", "192.0.2.9").body("call=publish&name=x&clientid=1");
        problem(request.send().await.unwrap(), 401, "webhook-secret-wrong").await;
    }
    stream.callback("connect", "", "1").await;

    let calls = eventually("the calls are kept", async || {
        let request = stream.get(LIST);
        let list: Value = stream.ask_as(&stream.admin(), request).await.json().await.unwrap();
        let items = list["items"].as_array().unwrap().clone();
        items.iter().any(|call| call["call"] == "connect").then_some(items)
    })
    .await;

    let strangers: Vec<_> = calls.iter().filter(|call| call["dialect"].is_null()).collect();
    assert!((1..10).contains(&strangers.len()), "{calls:?}");
    let stranger = strangers[0];
    assert_eq!((&stranger["status"], &stranger["fields"]), (&json!(401), &json!({})));
    assert_eq!(stranger["clientAddress"], "192.0.2.9");
    let why = "refused: the callback shows no secret that is known here, and no signature";
    assert_eq!((&stranger["verdict"], &stranger["isReplayable"]), (&json!(why), &json!(false)));
}

#[tokio::test]
async fn what_was_called_while_the_database_was_away_is_kept_once_it_is_back() {
    let postgres = Postgres::private().await;
    let stream = TestStream::on(testkit::database_on(&postgres.url()).await, &[]).await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "1").await;

    postgres.kill().await;
    problem(stream.callback("done", &made.key, "1").await, 503, "unavailable").await;
    postgres.start().await;

    let kept = eventually("the call is kept", async || {
        let answer = stream.ask_as(&stream.admin(), stream.get(LIST)).await;
        let list: Value = answer.json().await.unwrap();
        list["items"].as_array()?.iter().find(|call| call["call"] == "done").cloned()
    })
    .await;
    assert_eq!(kept["status"], 503);
    let verdict = kept["verdict"].as_str().unwrap();
    assert!(verdict.starts_with("not decided: "), "{verdict}");
}
