//! Media servers that are asked and ordered: nginx-rtmp with real encoders, and a server that speaks as SRS does.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use testkit::media::{self, Encoder, MediaServer};
use testkit::{Program, eventually, free_port};
use tokio_postgres::NoTls;

use crate::support::{Made, PROGRAM, TestStream, User, problem};

/// nginx takes it into its configuration.
const SECRET: &str = "a-secret-of-the-media-server";

/// A service, and a media server that it asks and orders.
struct Studio {
    stream: TestStream,
    media: MediaServer,
    settings: Vec<(&'static str, String)>,
    ana: User,
    made: Made,
}

impl Studio {
    async fn open(more: &[(&'static str, &str)]) -> Self {
        Self::open_with("1s", more).await
    }

    async fn open_with(heartbeat: &'static str, more: &[(&'static str, &str)]) -> Self {
        let listen = format!("127.0.0.1:{}", free_port());
        let mut media = MediaServer::new(&format!("http://{listen}/api/v1/webhook/stream-event"), SECRET);
        media.heartbeat = heartbeat;
        media.start();
        let mut settings = vec![
            ("STREAM_LISTEN", listen),
            ("WEBHOOK_SECRET", SECRET.to_owned()),
            ("RTMP_INGEST_URL", format!("rtmp://127.0.0.1:{}/live", media.rtmp_port)),
            ("RTMP_RELAY_URL", format!("rtmp://127.0.0.1:{}/watch", media.rtmp_port)),
            ("HLS_ORIGIN_URL", format!("http://127.0.0.1:{}", media.hls_port)),
            ("MEDIA_SERVERS", media.control()),
            ("MEDIA_POLL_EVERY", "500ms".to_owned()),
            ("RECONNECT_GRACE", "30s".to_owned()),
        ];
        settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let borrowed: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let stream = TestStream::with(&borrowed).await;
        let ana = stream.user("Ana");
        let made = stream.made(&ana).await;
        Self { stream, media, settings, ana, made }
    }

    fn ingest(&self) -> String {
        format!("rtmp://127.0.0.1:{}/live/{}", self.media.rtmp_port, self.made.key)
    }

    async fn until(&self, status: &str) -> Value {
        eventually(&format!("the stream is {status}"), async || {
            let seen = self.stream.seen(&self.made).await;
            (seen["status"] == status).then_some(seen)
        })
        .await
    }

    async fn live(&self) -> (Encoder, Value) {
        let encoder = Encoder::publish(&self.ingest());
        (encoder, self.until("live").await)
    }

    /// Ends the service as a crash would, does `meanwhile`, and starts it again.
    async fn crash(&mut self, meanwhile: impl AsyncFnOnce()) {
        let data = self.stream.data();
        let mut settings = vec![
            ("DATABASE_URL", self.stream.database.url.clone()),
            ("AMPHI_DATA_DIR", data),
            ("AUTH_URL", self.stream.issuer.url.clone()),
            ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ];
        settings.extend(self.settings.iter().cloned());
        // Something has to stand in its place until it is back.
        let nothing = Program::spawn("true", &[], &[]);
        std::mem::replace(&mut self.stream.program, nothing).kill();
        meanwhile().await;
        self.stream.program = Program::start(PROGRAM, &[], &settings).await;
    }

    async fn sql(&self, statements: &str) {
        sql(&self.stream.database.url, statements).await;
    }
}

async fn sql(url: &str, statements: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::select! {
        done = client.batch_execute(statements) => done.unwrap(),
        ended = connection => panic!("the connection ended: {ended:?}"),
    }
}

#[tokio::test]
async fn an_encoder_that_is_back_after_its_media_server_was_killed_goes_on_with_the_broadcast() {
    let studio = Studio::open(&[("BROADCAST_STALE_AFTER", "3s")]).await;
    let (_encoder, live) = studio.live().await;

    // Nobody answers any more, so it is by silence that the end is known.
    studio.media.kill();
    studio.until("ended").await;
    studio.media.start();
    let (mut encoder, again) = studio.live().await;

    assert_eq!(again["startTime"], live["startTime"], "it is the same broadcast");
    assert!(encoder.is_publishing());
}

#[tokio::test]
async fn a_media_server_that_was_started_anew_shows_that_its_encoders_are_gone() {
    let studio = Studio::open(&[("BROADCAST_STALE_AFTER", "10m")]).await;
    let (_encoder, _) = studio.live().await;

    studio.media.kill();
    studio.media.start();

    studio.until("ended").await;
    let vanished = "select count(*) from stream.publications where end_reason = 'vanished'";
    assert_eq!(studio.count(vanished).await, 1);
}

#[tokio::test]
async fn a_broadcast_outlives_the_service() {
    let mut studio = Studio::open(&[("BROADCAST_STALE_AFTER", "3s")]).await;
    let (mut encoder, live) = studio.live().await;

    studio.crash(async || {}).await;

    let seen = studio.stream.seen(&studio.made).await;
    assert_eq!((&seen["status"], &seen["startTime"]), (&json!("live"), &live["startTime"]));
    assert!(encoder.is_publishing());
    encoder.stop();
    studio.until("ended").await;
}

#[tokio::test]
async fn what_was_not_reported_while_the_service_was_away_is_found() {
    let mut studio = Studio::open(&[("BROADCAST_STALE_AFTER", "10m"), ("RECONNECT_GRACE", "0s")]).await;
    let tail = studio.stream.tail().await;
    let (encoder, _) = studio.live().await;
    eventually("it is recorded", async || (!recordings(&studio.media).is_empty()).then_some(())).await;

    // Neither that it left nor that the recording is complete is heard.
    studio.crash(async || encoder.stop()).await;

    studio.until("ended").await;
    let events = studio.stream.events(&tail, 3).await;
    assert_eq!(events[1]["name"], "stream.live.ended.v1");
    assert_eq!(events[1]["data"]["reason"], "vanished");
    assert_eq!(events[2]["name"], "stream.recording.ready.v1");
    let path = events[2]["data"]["path"].as_str().unwrap();
    assert_eq!(recordings(&studio.media), [path], "it is called what `record_done` calls it");
    assert_eq!(media::codecs(path), ["aac", "h264"]);
    // The media server says it after all, late.
    let late = format!("call=record_done&recorder=&name={}&path={path}", studio.made.playback_id);
    assert_eq!(studio.callback(&late).await, 204);
    assert_eq!(studio.stream.events(&tail, 3).await.len(), 3, "a recording is told of once");
}

#[tokio::test]
async fn a_complete_recording_is_told_of_once_though_it_is_listed_as_well() {
    let studio = Studio::open(&[("RECONNECT_GRACE", "0s")]).await;
    let tail = studio.stream.tail().await;
    let (encoder, _) = studio.live().await;
    eventually("it is recorded", async || (!recordings(&studio.media).is_empty()).then_some(())).await;
    encoder.stop();
    let events = studio.stream.events(&tail, 3).await;
    let ready = events.iter().find(|event| event["name"] == "stream.recording.ready.v1").unwrap();
    assert_eq!(recordings(&studio.media), [ready["data"]["path"].as_str().unwrap()]);
}

#[tokio::test]
async fn an_encoder_whose_key_was_revoked_is_gone_within_seconds_and_the_new_key_works() {
    let studio = Studio::open(&[]).await;
    let (mut encoder, live) = studio.live().await;

    let new = "0123456789abcdef0123456789abcdef01234567";
    studio
        .sql(&format!(
            "update stream.stream_keys set key_hash = sha256('{new}'::bytea) where stream_id = {}",
            studio.made.id
        ))
        .await;

    eventually("the encoder is disconnected", async || (!encoder.is_publishing()).then_some(())).await;
    studio.until("ended").await;
    let with_new_key = studio.ingest().replace(&studio.made.key, new);
    assert!(!Encoder::is_let(&studio.ingest()), "the old key is refused");
    let _encoder = Encoder::publish(&with_new_key);
    assert_eq!(studio.until("live").await["startTime"], live["startTime"], "in time, so it is the same broadcast");
}

#[tokio::test]
async fn an_encoder_whose_broadcast_was_ended_is_disconnected_by_order_and_nobody_else_is() {
    // It is not by the answer to a heartbeat.
    let studio = Studio::open_with("10m", &[]).await;
    let other = studio.stream.made(&studio.ana).await;
    let mut other = Encoder::publish(&studio.ingest().replace(&studio.made.key, &other.key));
    let (mut encoder, _) = studio.live().await;

    let body = json!({"status": "ended"});
    assert_eq!(studio.stream.put(studio.made.id, &studio.ana, &body).send().await.unwrap().status(), 200);

    eventually("the encoder is disconnected", async || (!encoder.is_publishing()).then_some(())).await;
    assert!(other.is_publishing());
    assert!(!studio.stream.program.output().contains(&studio.made.key), "and no key is logged");
}

#[tokio::test]
async fn a_second_publisher_is_refused_and_viewers_are_counted_and_end_nothing() {
    let studio = Studio::open(&[]).await;
    let (mut encoder, live) = studio.live().await;
    let watch = format!("rtmp://127.0.0.1:{}/watch/{}", studio.media.rtmp_port, studio.made.playback_id);
    let viewers = async |count: i64| {
        eventually(&format!("{count} viewers"), async || {
            (studio.stream.seen(&studio.made).await["viewerCount"] == count).then_some(())
        })
        .await;
    };

    assert!(!Encoder::is_let(&studio.ingest()));
    let player = media::Player::play(&watch);
    viewers(1).await;
    drop(player);
    viewers(0).await;
    // One whose leaving was never told: the media server does not show it.
    studio.sql(&format!("insert into stream.players values ({}, 'test', '1', '77')", studio.made.id)).await;
    assert!(media::play_a_second(&watch));
    viewers(0).await;
    eventually("the lost player is forgotten", async || {
        (studio.count("select count(*) from stream.players").await == 0).then_some(())
    })
    .await;

    assert!(encoder.is_publishing());
    assert_eq!(studio.stream.seen(&studio.made).await["startTime"], live["startTime"]);
}

#[tokio::test]
async fn a_picture_is_taken_of_what_is_live() {
    let studio = Studio::open(&[("THUMBNAIL_EVERY", "2s")]).await;
    let path = format!("/api/v1/streams/{}/thumbnail", studio.made.id);
    let get = async |path: &str| studio.stream.get(path).send().await.unwrap();
    problem(get(&path).await, 404, "no-thumbnail").await;
    let (_encoder, _) = studio.live().await;

    let answer = eventually("a picture was taken", async || {
        let answer = get(&path).await;
        (answer.status() == 200).then_some(answer)
    })
    .await;

    assert_eq!(answer.headers()["content-type"], "image/jpeg");
    assert_eq!(answer.headers()["cache-control"], "public, max-age=30");
    let tag = answer.headers()["etag"].to_str().unwrap().to_owned();
    let jpeg = answer.bytes().await.unwrap();
    assert!(jpeg.starts_with(&[0xff, 0xd8, 0xff]) && jpeg.len() > 1000, "{} bytes", jpeg.len());
    let again = studio.stream.get(&path).header("if-none-match", &tag).send().await.unwrap();
    assert!([200, 304].contains(&again.status().as_u16()));
    eventually("another one is taken", async || {
        let answer = studio.stream.get(&path).header("if-none-match", &tag).send().await.unwrap();
        (answer.status() == 200).then_some(())
    })
    .await;
    let by_playback_id = format!("/api/v1/streams/{}/thumbnail", studio.made.playback_id);
    studio.sql(&format!("update stream.streams set visibility = 'unlisted' where id = {}", studio.made.id)).await;
    problem(get(&path).await, 404, "no-such-stream").await;
    assert_eq!(get(&by_playback_id).await.status(), 200);
    assert_eq!(studio.stream.get(&path).bearer_auth(studio.ana.token()).send().await.unwrap().status(), 200);
    for (wrong, code) in
        [("0", "no-such-stream"), (&*uuid::Uuid::new_v4().to_string(), "no-such-stream"), ("x", "no-such-path")]
    {
        problem(get(&format!("/api/v1/streams/{wrong}/thumbnail")).await, 404, code).await;
    }
}

#[tokio::test]
async fn without_ffmpeg_everything_else_works() {
    let studio = Studio::open(&[("FFMPEG", "/nowhere/ffmpeg")]).await;
    let (_encoder, _) = studio.live().await;
    assert!(studio.stream.program.output().contains("no pictures are taken of live streams"));
}

#[tokio::test]
async fn callbacks_that_are_repeated_three_hours_late_change_nothing() {
    let stream = TestStream::with(&[("RECONNECT_GRACE", "0s"), ("PUBLISH_HOLD", "0s")]).await;
    let made = stream.made(&stream.user("Ana")).await;
    let tail = stream.tail().await;
    let key = &made.key;
    let recorded = format!("call=record_done&recorder=&name={0}&path=/rec/{0}-4102444800.flv", made.playback_id);
    let calls = [
        (format!("call=publish&name={key}&type=live"), 409),
        (format!("call=update_publish&time=5&timestamp=4990&name={key}"), 403),
        (format!("call=play&name={}&start=4294965296&duration=0&reset=0", made.playback_id), 204),
        (format!("call=done&name={}", made.playback_id), 204),
        (format!("call=done&name={key}"), 204),
        (recorded, 204),
    ];
    for (call, _) in &calls {
        assert!(stream.callback_of("1000", call, "7").await.status().as_u16() < 400);
    }
    sql(
        &stream.database.url,
        "update stream.streams set start_time = start_time - interval '3 hours', end_time = end_time - interval '3 hours';
         update stream.broadcasts set started_at = started_at - interval '3 hours', ended_at = ended_at - interval '3 hours',
             closed_at = closed_at - interval '3 hours';
         update stream.publications set began_at = began_at - interval '3 hours', ended_at = ended_at - interval '3 hours',
             last_seen_at = last_seen_at - interval '3 hours'",
    )
    .await;
    stream.callback("publish", key, "9").await;
    let before = stream.seen(&made).await;
    let told = stream.events(&tail, 4).await.len();

    for (call, status) in &calls {
        assert_eq!(stream.callback_of("1000", call, "7").await.status().as_u16(), *status, "{call}");
    }

    let after = stream.seen(&made).await;
    assert_eq!((&after["status"], &after["startTime"]), (&before["status"], &before["startTime"]));
    assert_eq!(stream.events(&tail, told).await.len(), told);
}

#[tokio::test]
async fn an_srs_that_shows_an_encoder_keeps_it_on_air_and_is_told_to_disconnect_one_that_was_ended() {
    let srs = Fake::start(srs_answer);
    let settings = [
        ("MEDIA_SERVERS", srs.setting("srs")),
        ("MEDIA_POLL_EVERY", "300ms".to_owned()),
        ("BROADCAST_STALE_AFTER", "2s".to_owned()),
        ("PUBLISH_HOLD", "0s".to_owned()),
    ];
    let stream = TestStream::with(&settings.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    srs.show(&["9308h583"]);
    stream.callback("publish", &made.key, "9308h583").await;
    let until = async |status: &str| {
        eventually(&format!("it is {status}"), async || (stream.status(&made).await == status).then_some(())).await;
    };

    // It sends no heartbeats: being shown is one.
    srs.until_asked(20).await;
    assert_eq!(stream.status(&made).await, "live");
    // Missing by mistake, it is back on air when it is shown again.
    srs.show(&[]);
    until("ended").await;
    srs.show(&["9308h583"]);
    until("live").await;
    assert!(srs.deleted().is_empty());

    stream.put(made.id, &ana, &json!({"status": "ended"})).send().await.unwrap();

    eventually("SRS was told", async || srs.deleted().contains(&"9308h583".to_owned()).then_some(())).await;
    assert_eq!(stream.status(&made).await, "ended");
    let log = stream.program.output();
    assert!(!log.contains("s3cret") && !log.contains(&made.key), "{log}");
}

#[tokio::test]
async fn a_mediamtx_that_shows_an_encoder_keeps_it_on_air_and_is_told_to_disconnect_one_that_was_ended() {
    let mediamtx = Fake::start(mediamtx_answer);
    let settings = [
        ("MEDIA_SERVERS", mediamtx.setting("mediamtx")),
        ("MEDIA_POLL_EVERY", "300ms".to_owned()),
        ("BROADCAST_STALE_AFTER", "2s".to_owned()),
        ("PUBLISH_HOLD", "0s".to_owned()),
    ];
    let stream = TestStream::with(&settings.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
    let ana = stream.user("Ana");
    let made = stream.made(&ana).await;
    let id = uuid::Uuid::new_v4().to_string();
    mediamtx.show(&[&id]);
    stream.callback("publish", &made.key, &id).await;

    mediamtx.until_asked(20).await;
    assert_eq!(stream.status(&made).await, "live");
    stream.put(made.id, &ana, &json!({"status": "ended"})).send().await.unwrap();

    eventually("MediaMTX was told", async || mediamtx.deleted().contains(&id).then_some(())).await;
}

impl Studio {
    async fn callback(&self, form: &str) -> u16 {
        let request = self.stream.post("/api/v1/webhook/stream-event");
        let request = request.header("x-webhook-secret", SECRET).header("x-media-server", "test");
        request.body(format!("app=watch&clientid=3&{form}")).send().await.unwrap().status().as_u16()
    }

    async fn count(&self, query: &str) -> i64 {
        let (client, connection) = tokio_postgres::connect(&self.stream.database.url, NoTls).await.unwrap();
        tokio::select! {
            row = client.query_one(query, &[]) => row.unwrap().get(0),
            ended = connection => panic!("the connection ended: {ended:?}"),
        }
    }
}

/// The files that the media server has recorded.
fn recordings(media: &MediaServer) -> Vec<String> {
    let files = std::fs::read_dir(media.home().join("rec")).unwrap();
    files.map(|file| file.unwrap().path().display().to_string()).collect()
}

/// A server that answers as the HTTP API of a media server does, to who has its password.
struct Fake {
    port: u16,
    state: Arc<Mutex<State>>,
}

/// What it answers to a request of this first line.
type Answer = fn(&mut State, &str) -> String;

#[derive(Default)]
struct State {
    clients: Vec<String>,
    deleted: Vec<String>,
    asked: usize,
}

impl Fake {
    fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let mut lines = BufReader::new(socket.try_clone().unwrap()).lines().map_while(Result::ok);
                let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
                // ops:s3cret
                let (status, body) = match head.iter().any(|line| line.contains("Basic b3BzOnMzY3JldA==")) {
                    true => ("200 OK", answer(&mut shared.lock().unwrap(), &head[0])),
                    false => ("401 Unauthorized", String::new()),
                };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = socket.write_all(format!("{head}{body}").as_bytes()); // It may have left.
            }
        });
        Self { port, state }
    }

    fn setting(&self, kind: &str) -> String {
        format!("m1={kind}+http://ops:s3cret@127.0.0.1:{}", self.port)
    }

    fn show(&self, clients: &[&str]) {
        self.state.lock().unwrap().clients = clients.iter().map(|&id| id.to_owned()).collect();
    }

    fn deleted(&self) -> Vec<String> {
        self.state.lock().unwrap().deleted.clone()
    }

    /// Waits until it was asked so many times more.
    async fn until_asked(&self, times: usize) {
        let before = self.state.lock().unwrap().asked;
        eventually("it is asked", async || (self.state.lock().unwrap().asked >= before + times).then_some(())).await;
    }
}

fn srs_answer(state: &mut State, line: &str) -> String {
    if let Some(id) = line.strip_prefix("DELETE /api/v1/clients/").and_then(|rest| rest.split(' ').next()) {
        state.deleted.push(id.to_owned());
        return r#"{"code":0,"server":"vid-1"}"#.to_owned();
    }
    assert!(line.starts_with("GET /api/v1/clients/?start=0&count="), "{line}");
    state.asked += 1;
    let clients: Vec<Value> =
        state.clients.iter().map(|id| json!({"id": id, "type": "fmle-publish", "publish": true})).collect();
    json!({"code": 0, "server": "vid-1", "pid": "9", "clients": clients}).to_string()
}

/// A page for each path.
fn mediamtx_answer(state: &mut State, line: &str) -> String {
    if let Some(id) = line.strip_prefix("POST /v3/rtmpconns/kick/").and_then(|rest| rest.split(' ').next()) {
        state.deleted.push(id.to_owned());
        return r#"{"status":"ok"}"#.to_owned();
    }
    let rest = line.strip_prefix("GET /v3/paths/list?itemsPerPage=1000&page=").unwrap();
    let page: usize = rest.split(' ').next().unwrap().parse().unwrap();
    state.asked += 1;
    let mut pages = vec![json!({"name": "camera", "source": {"type": "rtspSource", "id": ""}, "readers": []})];
    pages.extend(state.clients.iter().map(|id| {
        json!({"name": "x", "ready": true, "source": {"type": "rtmpConn", "id": id}, "readers": [{"type": "hidden", "id": ""}]})
    }));
    json!({"itemCount": pages.len(), "pageCount": pages.len(), "items": [pages[page]]}).to_string()
}
