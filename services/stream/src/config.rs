//! Everything stream reads from its environment, once, before it listens.

use std::time::Duration;

use chassis::{ConfigError, Core, Env};
use common::Secret;

use crate::machine::Rules;

#[derive(Debug, Clone)]
pub struct Config {
    /// `WEBHOOK_SECRET`: what media servers show with their callbacks. Never printed.
    pub webhook_secret: Secret,
    /// `RTMP_INGEST_URL`: where encoders publish, without the key.
    pub ingest_url: String,
    /// `RTMP_RELAY_URL`: where the media server hands an accepted broadcast on, under its public name.
    pub relay_url: String,
    /// `PLAYBACK_BASE_URL`: what a playlist's address begins with.
    pub playback_base_url: String,
    /// `BROADCAST_STALE_AFTER`: a broadcast not heard of for this long is over.
    pub stale_after: Duration,
    /// `RECONNECT_GRACE`: how long a broadcast can be gone on with after its encoder has left.
    pub grace: Duration,
    /// `PUBLISH_HOLD`: how long an encoder that was sent away stays away.
    pub hold: Duration,
    /// `STREAM_CACHE_TTL`: how long a list may be kept.
    pub cache_ttl: Duration,
    /// `VIEWER_COUNTS_FOR`: how long a viewer over HLS counts after a beat.
    pub viewer_counts_for: Duration,
    /// `VIEWERS_FLUSH_EVERY`: how often the number of viewers is written.
    pub viewers_flush_every: Duration,
    /// `SCHEDULED_SOON`: how long before its schedule it is told that a stream begins soon.
    pub scheduled_soon: Duration,
}

impl Config {
    pub fn from_env(env: &Env, core: &Core) -> Result<Self, ConfigError> {
        let playback: Option<String> = env.optional("PLAYBACK_BASE_URL", "`PUBLIC_URL`/hls", "What the addresses of playlists begin with, when viewers do not fetch them through the gateway: a CDN, say.")?;
        let base = playback.unwrap_or_else(|| format!("{}/hls", core.public_url));
        Ok(Self {
            webhook_secret: env.secret("WEBHOOK_SECRET", core.stage, &core.data_dir, "What media servers show with their callbacks; at least 16 characters.")?,
            ingest_url: trimmed(env.read("RTMP_INGEST_URL", "rtmp://127.0.0.1:1935/live", "Where encoders publish, as streamers see it, without the key.")?),
            relay_url: trimmed(env.read("RTMP_RELAY_URL", "rtmp://127.0.0.1:1935/watch", "The media server's public application as the media server itself reaches it: an accepted broadcast is handed on there under its public name.")?),
            playback_base_url: trimmed(base),
            stale_after: env.read("BROADCAST_STALE_AFTER", "20s", "A broadcast that the media server has not reported for this long is over. Several times its heartbeat (5 s).")?,
            grace: env.read("RECONNECT_GRACE", "30s", "An encoder that comes back this soon goes on with the same broadcast: only after it others are told that the broadcast has ended. `0s`: never.")?,
            hold: env.read("PUBLISH_HOLD", "10s", "When a broadcast was ended by order (its owner's, an administrator's, a revoked key's), no encoder is taken on that stream for this long: encoders come back by themselves.")?,
            cache_ttl: env.read("STREAM_CACHE_TTL", "2s", "How long lists and details of streams may be kept; a change drops them at once.")?,
            viewer_counts_for: env.read("VIEWER_COUNTS_FOR", "60s", "How long a viewer over HLS counts after a beat that shows that it plays. It is told to beat three times as often.")?,
            viewers_flush_every: env.read("VIEWERS_FLUSH_EVERY", "5s", "How often the numbers of viewers over HLS are counted, written and told.")?,
            scheduled_soon: env.read("SCHEDULED_SOON", "10m", "How long before its schedule it is told that a public stream begins soon.")?,
        })
    }
}

impl Config {
    pub(crate) fn rules(&self) -> Rules {
        Rules { stale_after: self.stale_after, grace: self.grace, hold: self.hold }
    }
}

fn trimmed(url: String) -> String {
    url.trim_end_matches('/').to_owned()
}
