use crate::support::{SECRET, TestStream, problem};

const PATH: &str = "/api/v1/webhook/stream-event";
const FORM: &str = "app=live&clientid=1&call=connect";

#[tokio::test]
async fn a_callback_shows_the_secret_in_a_header_the_query_or_the_path() {
    let stream = TestStream::with(&[("LOG_LEVEL", "debug")]).await;
    let encoded: String = SECRET.replace(' ', "%20");
    let by_header = stream.post(PATH).header("x-webhook-secret", SECRET);
    let by_query = stream.post(&format!("{PATH}?secret={encoded}"));
    let by_path = stream.post(&format!("{PATH}/{encoded}"));
    for request in [by_header, by_query, by_path] {
        assert_eq!(request.body(FORM).send().await.unwrap().status(), 204);
    }

    let none = stream.post(PATH);
    let wrong = stream.post(PATH).header("x-webhook-secret", "wrong");
    let wrong_query = stream.post(&format!("{PATH}?secret=wrong"));
    let wrong_path = stream.post(&format!("{PATH}/wrong"));
    for request in [none, wrong, wrong_query, wrong_path] {
        problem(request.body(FORM).send().await.unwrap(), 401, "webhook-secret-wrong").await;
    }
    let (_, log) = stream.program.stop();
    assert!(log.contains("/api/v1/webhook/stream-event"), "requests are logged: {log}");
    for secret in [SECRET, &encoded] {
        assert!(!log.contains(secret), "the secret is not logged: {log}");
    }
}

#[tokio::test]
async fn what_is_no_callback_is_refused_and_breaks_nothing() {
    let stream = TestStream::start().await;
    let send =
        async |body: Vec<u8>| stream.post(PATH).header("x-webhook-secret", SECRET).body(body).send().await.unwrap();

    for body in
        [&b""[..], b"call=publish", b"call=publish&name=x", b"call=record_done&name=x", b"\xff\xfe%%%=&&&", b"{}"]
    {
        problem(send(body.to_vec()).await, 400, "bad-request").await;
    }
    problem(send(vec![b'a'; 20_000]).await, 413, "body-too-large").await;
    assert_eq!(send(b"call=something_new&name=x".to_vec()).await.status(), 204, "a call we do not know is fine");
}

#[tokio::test]
async fn keys_and_names_that_nobody_has_are_refused_whatever_is_in_them() {
    let stream = TestStream::start().await;
    for key in ["x", "a%2526b", "'--", "%F0%9F%A6%80", &"k".repeat(256)] {
        problem(stream.callback("publish", key, "1").await, 403, "wrong-stream-key").await;
        problem(stream.callback("update_publish", key, "1").await, 403, "wrong-stream-key").await;
        problem(stream.callback("play", key, "1").await, 404, "no-such-stream").await;
        assert_eq!(stream.callback("done", key, "1").await.status(), 204);
    }
    let nobodys = format!("call=record_done&name={}&path=/rec/x.flv", uuid::Uuid::new_v4());
    assert_eq!(stream.callback_of("1000", &nobodys, "1").await.status(), 204);
}

#[tokio::test]
async fn a_name_with_a_null_character_is_no_server_error() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    stream.callback("publish", &made.key, "1").await;
    let form = format!("call=record_done&name={}&path=/rec/%00.flv", made.playback_id);
    problem(stream.callback_of("1000", &form, "1").await, 400, "bad-request").await;
    problem(stream.callback("update_publish", &made.key, "%00").await, 400, "bad-request").await;
}

#[tokio::test]
async fn the_public_name_is_no_key() {
    let stream = TestStream::start().await;
    let made = stream.made(&stream.user("Ana")).await;
    problem(stream.callback("publish", &made.playback_id, "1").await, 403, "wrong-stream-key").await;
    assert_eq!(stream.status(&made).await, "ended");
}

#[tokio::test]
async fn a_publisher_cannot_end_another_stream_with_fields_of_its_own() {
    let stream = TestStream::start().await;
    let ana = stream.user("Ana");
    let (victim, attacker) = (stream.made(&ana).await, stream.made(&ana).await);
    stream.callback("publish", &victim.key, "1").await;

    let smuggled = format!("call=publish&name={}&type=live&name={}&call=done&clientid=1", attacker.key, victim.key);
    assert_eq!(stream.callback_of("1000", &smuggled, "2").await.status(), 302);

    assert_eq!(stream.status(&victim).await, "live");
    assert_eq!(stream.status(&attacker).await, "live");
}
