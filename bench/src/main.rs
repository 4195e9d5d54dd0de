//! The main job, measured on the all-in-one program with embedded defaults: how long it takes to be ready, what it
//! needs when idle, and how soon a broadcast is seen in the list of streams.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::media::{Encoder, MediaServer};
use testkit::{Program, free_port};

const BROADCASTS: usize = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);
/// How long a broadcast may take to be seen. Far more than it takes.
const LIVE_WITHIN: Duration = Duration::from_secs(30);
const SECRET: &str = "a-secret-of-the-media-server";

#[tokio::main]
async fn main() {
    let amphi = std::env::args().nth(1).expect("usage: bench PATH_OF_AMPHI");
    let open = std::fs::Permissions::from_mode(0o755);
    let data = tempfile::Builder::new().prefix("amphi-bench-").permissions(open).tempdir().expect("a folder");
    let gateway = format!("http://127.0.0.1:{}", free_port());
    let media = MediaServer::new(&format!("{gateway}/webhook/stream-event"), SECRET);
    media.start();
    let settings = [
        ("AMPHI_DATA_DIR", data.path().display().to_string()),
        ("GATEWAY_LISTEN", gateway.replace("http://", "")),
        ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ("WEBHOOK_SECRET", SECRET.to_owned()),
        ("RTMP_INGEST_URL", format!("rtmp://127.0.0.1:{}/live", media.rtmp_port)),
        ("RTMP_RELAY_URL", format!("rtmp://127.0.0.1:{}/watch", media.rtmp_port)),
        ("HLS_ORIGIN_URL", format!("http://127.0.0.1:{}", media.hls_port)),
    ];

    let (program, first) = start(&amphi, &settings).await;
    program.stop();
    let (program, later) = start(&amphi, &settings).await;
    println!("start to ready            {first:>6} ms the first time, {later} ms later");
    let (own, database) = memory(program.id(), &data.path().display().to_string());
    println!("resident memory, idle     {own:>6.1} MiB amphi, {database:.1} MiB (PSS) its PostgreSQL");

    let (mut from_encoder, mut from_publish) = (Vec::new(), Vec::new());
    let client = testkit::client();
    let token = register(&client, &gateway).await;
    for _ in 0..BROADCASTS {
        let (id, url) = create(&client, &gateway, &token).await;
        let begun = Instant::now();
        let encoder = Encoder::publish(&url);
        let start_time = until_live(&client, &gateway, id).await;
        from_encoder.push(begun.elapsed());
        from_publish.push(since(&start_time));
        encoder.stop();
    }
    report("ffmpeg started to live", from_encoder);
    report("publish let in to live", from_publish);
    println!(
        "over {BROADCASTS} broadcasts, as seen in GET /streams asked every 2 ms; ffmpeg's own start is in the first"
    );
}

async fn start(amphi: &str, settings: &[(&str, String)]) -> (Program, u128) {
    let begun = Instant::now();
    let program = Program::start(amphi, &[], settings).await;
    (program, begun.elapsed().as_millis())
}

/// Resident memory of the process, and the proportional share of every process that works on `folder`, in MiB.
fn memory(pid: u32, folder: &str) -> (f64, f64) {
    let kib = |path: String, field: &str| -> f64 {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
    };
    let own = kib(format!("/proc/{pid}/status"), "VmRSS:") / 1024.0;
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids: Vec<u32> = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let command = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let Some(postmaster) = pids.iter().find(|pid| command(pid).contains("postgres") && command(pid).contains(folder))
    else {
        return (own, 0.0);
    };
    let is_child = |pid: &&u32| kib(format!("/proc/{pid}/status"), "PPid:") == f64::from(*postmaster);
    let all = pids.iter().filter(is_child).chain([postmaster]);
    (own, all.map(|pid| kib(format!("/proc/{pid}/smaps_rollup"), "Pss:")).sum::<f64>() / 1024.0)
}

async fn register(client: &reqwest::Client, gateway: &str) -> String {
    let body = json!({"email": "bench@example.org", "password": "correct horse", "fullname": "Bench"});
    let answer = client.post(format!("{gateway}/api/v1/auth/register")).json(&body).send().await.expect("an answer");
    let body: Value = answer.json().await.expect("JSON");
    body["token"].as_str().expect("a token").to_owned()
}

async fn create(client: &reqwest::Client, gateway: &str, token: &str) -> (i64, String) {
    let request = client.post(format!("{gateway}/streams")).bearer_auth(token).json(&json!({"title": "bench"}));
    let body: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    let text = |name: &str| body[name].as_str().expect("text").to_owned();
    (body["id"].as_i64().expect("an id"), format!("{}/{}", text("ingestUrl"), text("streamKey")))
}

/// Asks for the list until the stream is live in it, and returns its `startTime`. Panics after 30 s.
async fn until_live(client: &reqwest::Client, gateway: &str, id: i64) -> String {
    let deadline = Instant::now() + LIVE_WITHIN;
    while Instant::now() < deadline {
        let answer = client.get(format!("{gateway}/streams?status=live")).send().await.expect("an answer");
        let page: Value = answer.json().await.expect("JSON");
        let live = page["items"].as_array().and_then(|items| items.iter().find(|item| item["id"] == id).cloned());
        if let Some(start_time) = live.and_then(|stream| stream["startTime"].as_str().map(str::to_owned)) {
            return start_time;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    panic!(
        "stream {id} was not live within {} s of ffmpeg's start: either ffmpeg failed (see above), or the media server \
         does not reach {gateway}",
        LIVE_WITHIN.as_secs()
    );
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the machine's clock")]
fn since(time: &str) -> Duration {
    let time: chrono::DateTime<chrono::Utc> = time.parse().expect("RFC 3339");
    (chrono::Utc::now() - time).to_std().unwrap_or_default()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| {
        times[((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1].as_secs_f64() * 1000.0
    };
    println!("{what:<25} {:>6.1} ms p50, {:.1} ms p99", at(0.5), at(0.99));
}
