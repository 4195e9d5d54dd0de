//! Everything stream reads from its environment, once, before it listens.

use std::time::Duration;

use chassis::env::Origins;
use chassis::{ConfigError, Core, Env};
use common::Secret;

use crate::machine::Rules;
use crate::media::Addresses;

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
    /// `MEDIA_SERVERS`: where media servers can be asked and ordered. Never printed.
    pub(crate) media_servers: Addresses,
    /// `MEDIA_POLL_EVERY`: how often each is asked.
    pub media_poll_every: Duration,
    /// `FEED_KEEP`: how long a reader of events can stay away and still go on.
    pub feed_keep: Duration,
    /// `HLS_ORIGIN_URL`: where playlists are, for taking pictures.
    pub hls_origins: Origins,
    /// `THUMBNAIL_EVERY`: how often a picture is taken of each live stream.
    pub thumbnail_every: Duration,
    /// `FFMPEG`: what takes it.
    pub ffmpeg: String,
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
            media_servers: env.optional("MEDIA_SERVERS", "none: only what they call for is known", "The control interfaces of media servers, with the names under which they call: `m1=nginx-rtmp+http://127.0.0.1:8090,m2=srs+http://user:password@10.0.0.2:1985,m3=mediamtx+http://10.0.0.3:9997`. They are asked who is there, and told whom to disconnect.")?.unwrap_or_default(),
            media_poll_every: env.read("MEDIA_POLL_EVERY", "5s", "How often each of `MEDIA_SERVERS` is asked who is there.")?,
            feed_keep: env.read("FEED_KEEP", "1h", "How long a reader of `/streams/events` can stay away and still hear everything when it is back.")?,
            hls_origins: env.read("HLS_ORIGIN_URL", "http://127.0.0.1:8088", "The media server's HTTP address, from which `/hls/…` is served. Several that serve the same: with commas between them, or a name with several addresses.")?,
            thumbnail_every: env.read("THUMBNAIL_EVERY", "60s", "How often a picture is taken of each live stream.")?,
            ffmpeg: env.read("FFMPEG", "ffmpeg", "The program that takes pictures of live streams; without it there are none.")?,
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
