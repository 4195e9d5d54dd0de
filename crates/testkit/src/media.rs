//! Media: a media server of the test's own, and the encoders and players that use it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::ports::free_port;
use crate::services::workspace;

/// nginx-rtmp, configured as everywhere else (`deploy/nginx-rtmp`), on ports and in a folder of its own.
pub struct MediaServer {
    folder: tempfile::TempDir,
    pub rtmp_port: u16,
    pub hls_port: u16,
    hook_port: u16,
    control_port: u16,
    /// How often it reports an encoder that publishes: `1s`. To be changed before it is started.
    pub heartbeat: &'static str,
    webhook_url: String,
    secret: String,
}

impl MediaServer {
    /// Names its ports; it does not run before [`MediaServer::start`], as what it calls must be known first.
    #[must_use]
    pub fn new(webhook_url: &str, secret: &str) -> Self {
        Self {
            folder: tempfile::Builder::new().prefix("amphi-media-").tempdir().expect("a temporary folder"),
            rtmp_port: free_port(),
            hls_port: free_port(),
            hook_port: free_port(),
            control_port: free_port(),
            heartbeat: "1s",
            webhook_url: webhook_url.to_owned(),
            secret: secret.to_owned(),
        }
    }

    /// Starts it. Returns when it takes connections.
    pub fn start(&self) {
        self.run("start");
    }

    /// Ends it in good order.
    pub fn stop(&self) {
        self.run("stop");
    }

    /// Ends it as a crash would: it tells nobody.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.home().join("nginx.pid")).expect("nginx has written its pid");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
        // The master and its workers are a process group of their own.
        kill_process_group(pid, Signal::KILL).expect("nginx runs");
    }

    /// How it is asked and ordered: a value of `MEDIA_SERVERS`.
    #[must_use]
    pub fn control(&self) -> String {
        format!("test=nginx-rtmp+http://127.0.0.1:{}", self.control_port)
    }

    /// Everything it has written.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("media")
    }

    fn run(&self, verb: &str) {
        let output = Command::new(workspace().join("deploy/nginx-rtmp/media"))
            .arg(verb)
            .arg(self.home())
            .env("RTMP_LISTEN", format!("127.0.0.1:{}", self.rtmp_port))
            .env("HLS_LISTEN", format!("127.0.0.1:{}", self.hls_port))
            .env("HOOK_LISTEN", format!("127.0.0.1:{}", self.hook_port))
            .env("CONTROL_LISTEN", format!("127.0.0.1:{}", self.control_port))
            .env("WEBHOOK_URL", &self.webhook_url)
            .env("WEBHOOK_SECRET", &self.secret)
            .env("MEDIA_SERVER_ID", "test")
            .env("HEARTBEAT", self.heartbeat)
            .output()
            .expect("bash is there");
        assert!(output.status.success(), "media {verb}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for MediaServer {
    fn drop(&mut self) {
        let stopped = Command::new(workspace().join("deploy/nginx-rtmp/media")).arg("stop").arg(self.home()).status();
        if stopped.is_ok_and(|status| status.success()) {
            return;
        }
        // Its files are not taken from under a server that may still run.
        self.folder.disable_cleanup(true);
        let complaint = format!("the media server could not be stopped: {} stays", self.folder.path().display());
        if std::thread::panicking() {
            eprintln!("{complaint}");
        } else {
            panic!("{complaint}");
        }
    }
}

/// ffmpeg that publishes a test picture and tone: H.264 and AAC over RTMP.
pub struct Encoder(Child);

impl Encoder {
    /// Begins to publish to `url`, for two minutes at most.
    #[must_use]
    pub fn publish(url: &str) -> Self {
        Self(encoder(url, BROADCAST_SECONDS).spawn().expect("ffmpeg is there"))
    }

    /// Publishes two seconds to `url`, and says whether it was let.
    #[must_use]
    pub fn is_let(url: &str) -> bool {
        let status = encoder(url, 2).stderr(Stdio::null()).status().expect("ffmpeg is there");
        status.success()
    }

    /// Whether it is still publishing.
    pub fn is_publishing(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Ends the broadcast as a streamer does.
    pub fn stop(mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT); // It may have ended by itself.
        let _ = self.0.wait();
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It may have ended by itself.
        let _ = self.0.wait();
    }
}

/// How long an encoder publishes that nobody stops.
const BROADCAST_SECONDS: u32 = 120;

fn encoder(url: &str, seconds: u32) -> Command {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-nostdin", "-hide_banner", "-loglevel", "error", "-re"])
        .args(["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25"])
        .args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100"])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25", "-pix_fmt", "yuv420p"])
        .args(["-c:a", "aac", "-t", &seconds.to_string(), "-f", "flv", url])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// The codecs that ffprobe reads from `url`, one a stream, sorted; none when it cannot be played.
#[must_use]
pub fn codecs(url: &str) -> Vec<String> {
    let Output { stdout, .. } = Command::new("ffprobe")
        .args(["-v", "error", "-rw_timeout", "5000000", "-show_entries", "stream=codec_name", "-of", "csv=p=0", url])
        .output()
        .expect("ffprobe is there");
    let text = String::from_utf8_lossy(&stdout);
    let mut codecs: Vec<_> = text.lines().map(|line| line.trim_matches(',').to_owned()).collect();
    codecs.retain(|codec| !codec.is_empty());
    codecs.sort();
    codecs.dedup();
    codecs
}

/// Plays a second of `url`, then leaves.
pub fn play_a_second(url: &str) -> bool {
    let status = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-rw_timeout", "10000000", "-i", url, "-t", "1", "-f", "null", "-"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// ffmpeg that plays, until this is dropped.
pub struct Player(Child);

impl Player {
    #[must_use]
    pub fn play(url: &str) -> Self {
        let child = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-rw_timeout", "10000000", "-i", url, "-c", "copy", "-f", "null", "-"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("ffmpeg is there"))
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It may have ended by itself.
        let _ = self.0.wait();
    }
}

/// Files under `folder` that contain `text`.
#[must_use]
pub fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(text.len()).any(|window| window == text.as_bytes())
        {
            found.push(path);
        }
    }
    found
}
