//! Takes a picture of each live stream every now and then, from its HLS playlist, with ffmpeg: one at a time.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use chrono::{DateTime, Utc};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::App;
use crate::store::thumbnails::{self, Due};

/// How often it looks for a picture that is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long one picture may take.
const TAKES_AT_MOST: Duration = Duration::from_secs(10);
/// A playlist is there some seconds after the encoder: until then it is tried again soon.
const SOON: Duration = Duration::from_secs(3);
const BEGINS_WITHIN: Duration = Duration::from_secs(30);
/// The longest picture, in bytes; one of 640 pixels width has some 50,000.
const LONGEST: u64 = 1024 * 1024;
/// What a JPEG file begins with.
const JPEG: &[u8] = &[0xff, 0xd8, 0xff];

/// Takes pictures until `shutdown`, if there is an ffmpeg.
pub(crate) async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let ffmpeg = &app.config.ffmpeg;
    let mut version = Command::new(ffmpeg);
    version.arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    if let Err(error) = version.status().await {
        tracing::warn!(ffmpeg, %error, "no pictures are taken of live streams: ffmpeg (`FFMPEG`) does not run");
        return;
    }
    let forever = async {
        loop {
            match take_next(&app).await {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(LOOK_EVERY).await,
                Err(error) => {
                    tracing::debug!("no picture could be taken: {error:#}");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
    };
    // What is dropped here is killed: whoever shuts down does not wait for a picture.
    tokio::select! {
        () = forever => {}
        () = shutdown.cancelled() => {}
    }
}

/// Takes the picture that is due for longest. Returns whether there was one.
async fn take_next(app: &App) -> anyhow::Result<bool> {
    let now = app.clock.now();
    let due = thumbnails::claim(&mut *app.pool.get().await?, now, now + app.config.thumbnail_every).await?;
    let Some(due) = due else { return Ok(false) };
    match take(app, due.playback_id).await {
        Ok(jpeg) => {
            thumbnails::keep(&mut *app.pool.get().await?, due.stream_id, &jpeg, app.clock.now()).await?;
            metrics::counter!("stream_thumbnails_total", "outcome" => "taken").increment(1);
        }
        Err(error) => {
            metrics::counter!("stream_thumbnails_total", "outcome" => "failed").increment(1);
            tracing::debug!(stream_id = due.stream_id, "no picture: {error:#}");
            try_again_soon(app, &due, now).await?;
        }
    }
    Ok(true)
}

async fn try_again_soon(app: &App, due: &Due, now: DateTime<Utc>) -> anyhow::Result<()> {
    if due.live_since + BEGINS_WITHIN > now {
        thumbnails::put_off(&mut *app.pool.get().await?, due.stream_id, app.clock.now() + SOON).await?;
    }
    Ok(())
}

async fn take(app: &App, playback_id: Uuid) -> anyhow::Result<Vec<u8>> {
    let mut failure = None;
    for origin in app.config.hls_origins.iter() {
        match from_playlist(&app.config.ffmpeg, &format!("{origin}/hls/{playback_id}/index.m3u8")).await {
            Ok(jpeg) => return Ok(jpeg),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.context("there is no HLS origin")?)
}

/// The newest picture of a playlist, 640 pixels wide.
async fn from_playlist(ffmpeg: &str, url: &str) -> anyhow::Result<Vec<u8>> {
    // It decodes what strangers send: it gets none of our settings, little of the machine, and no other protocol.
    let mut command = Command::new("nice");
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .args(["-n", "10", ffmpeg, "-nostdin", "-v", "error", "-protocol_whitelist", "http,https,tcp,tls"])
        .args(["-rw_timeout", "5000000", "-live_start_index", "-1", "-threads", "1", "-i", url])
        .args(["-an", "-sn", "-dn", "-frames:v", "1", "-vf", "scale=640:-2", "-threads", "1"])
        .args(["-f", "image2pipe", "-c:v", "mjpeg", "-q:v", "5", "pipe:1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn().context("it does not start")?;
    let output = child.stdout.take().context("it has no output")?;
    let mut jpeg = Vec::new();
    let taken = async {
        output.take(LONGEST).read_to_end(&mut jpeg).await?;
        child.wait().await
    };
    let status = timeout(TAKES_AT_MOST, taken).await.context("it takes too long")??;
    ensure!(status.success(), "ffmpeg has failed: {status}");
    ensure!(jpeg.starts_with(JPEG), "it is no picture");
    Ok(jpeg)
}
