//! Everything stream reads from its environment, once, before it listens.

use std::net::IpAddr;
use std::time::Duration;

use chassis::env::{Origins, Value};
use chassis::{ConfigError, Core, Env, Stage, secrets};
use common::Secret;
use ipnet::IpNet;

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
    /// `PUBLIC_URL`: the address of the gateway as clients see it.
    pub public_url: String,
    /// `STREAM_CACHE`, `STREAM_LIST_TTL`, `STREAM_DETAIL_TTL`: what is kept, and how long.
    pub cache: CacheConfig,
    /// `WEBHOOK_SECRET_NEXT`: a second secret that is as good, while the first is being replaced. Never printed.
    pub webhook_secret_next: Option<Secret>,
    /// `WEBHOOK_ADDRESSES`: from where callbacks are believed without a secret.
    pub webhook_addresses: Networks,
    /// `WEBHOOK_LOG`: how many callbacks are kept.
    pub webhook_log: u32,
    /// `VIEWER_COUNTS_FOR`: how long a viewer over HLS counts after a beat.
    pub viewer_counts_for: Duration,
    /// `VIEWERS_FLUSH_EVERY`: how often the number of viewers is written.
    pub viewers_flush_every: Duration,
    /// `SCHEDULED_SOON`: how long before its schedule it is told that a stream begins soon.
    pub scheduled_soon: Duration,
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

/// What is kept, and how long.
#[derive(Debug, Clone, Copy)]
pub struct CacheConfig {
    pub is_on: bool,
    pub lists: Duration,
    pub details: Duration,
}

/// Networks such as `10.0.0.0/8`, or single addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(Vec<IpNet>);

impl Value for Networks {
    const EXPECTS: &'static str = "networks or addresses such as 10.0.0.0/8, separated by commas";

    fn parse(text: &str) -> Option<Self> {
        let network = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        text.split(',').map(str::trim).map(network).collect::<Option<_>>().map(Self)
    }
}

impl Networks {
    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl Config {
    pub fn from_env(env: &Env, core: &Core) -> Result<Self, ConfigError> {
        let playback: Option<String> = env.optional("PLAYBACK_BASE_URL", "`PUBLIC_URL`/hls", "What the addresses of playlists begin with, when viewers do not fetch them through the gateway: a CDN, say.")?;
        let next: Option<Secret> = env.optional("WEBHOOK_SECRET_NEXT", "no second secret", "A second secret that media servers may show: to change the first, set it here, then in the media servers, then make it the first.")?;
        if let (Some(why), Stage::Production) = (next.as_ref().and_then(secrets::weakness), core.stage) {
            return Err(ConfigError::WeakSecret { name: "WEBHOOK_SECRET_NEXT".to_owned(), why });
        }
        let addresses: Option<Networks> = env.optional("WEBHOOK_ADDRESSES", "none: every callback shows a secret", "From where callbacks are believed without a secret: networks or addresses, for media servers that can send none. Whoever is there can end broadcasts.")?;
        let base = playback.unwrap_or_else(|| format!("{}/hls", core.public_url));
        Ok(Self {
            webhook_secret: env.secret("WEBHOOK_SECRET", core.stage, &core.data_dir, "What media servers show with their callbacks; at least 16 characters.")?,
            ingest_url: trimmed(env.read("RTMP_INGEST_URL", "rtmp://127.0.0.1:1935/live", "Where encoders publish, as streamers see it, without the key.")?),
            relay_url: trimmed(env.read("RTMP_RELAY_URL", "rtmp://127.0.0.1:1935/watch", "The media server's public application as the media server itself reaches it: an accepted broadcast is handed on there under its public name.")?),
            playback_base_url: trimmed(base),
            stale_after: env.read("BROADCAST_STALE_AFTER", "20s", "A broadcast that the media server has not reported for this long is over. Several times its heartbeat (5 s).")?,
            grace: env.read("RECONNECT_GRACE", "30s", "An encoder that comes back this soon goes on with the same broadcast: only after it others are told that the broadcast has ended. `0s`: never.")?,
            hold: env.read("PUBLISH_HOLD", "10s", "When a broadcast was ended by order (its owner's, an administrator's, a revoked key's), no encoder is taken on that stream for this long: encoders come back by themselves.")?,
            public_url: core.public_url.to_string(),
            cache: CacheConfig {
                is_on: env.read("STREAM_CACHE", "true", "Whether lists and details of streams are kept at all. `false`: every answer comes from the database, to compare.")?,
                lists: env.read("STREAM_LIST_TTL", "2s", "How long a list of streams may be kept; a change drops it at once.")?,
                details: env.read("STREAM_DETAIL_TTL", "5s", "How long what is said of one stream may be kept; a change drops it at once.")?,
            },
            webhook_secret_next: next,
            webhook_addresses: addresses.unwrap_or_default(),
            webhook_log: env.read("WEBHOOK_LOG", "10000", "How many callbacks of media servers are kept for administrators to look at; of heartbeats as many again.")?,
            viewer_counts_for: env.read("VIEWER_COUNTS_FOR", "60s", "How long a viewer over HLS counts after a beat that shows that it plays. It is told to beat three times as often.")?,
            viewers_flush_every: env.read("VIEWERS_FLUSH_EVERY", "5s", "How often the numbers of viewers over HLS are counted, written and told.")?,
            scheduled_soon: env.read("SCHEDULED_SOON", "10m", "How long before its schedule it is told that a public stream begins soon.")?,
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

impl Config {
    /// The secrets that media servers may show.
    pub(crate) fn webhook_secrets(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.webhook_secret).chain(&self.webhook_secret_next)
    }

    /// The media server's public application, as nginx-rtmp calls it: what `RTMP_RELAY_URL` ends with.
    pub(crate) fn relay_app(&self) -> &str {
        self.relay_url.splitn(4, '/').nth(3).unwrap_or_default()
    }
}

fn trimmed(url: String) -> String {
    url.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_written_with_their_length_or_as_single_addresses() {
        let networks = Networks::parse("10.0.0.0/8, 192.0.2.7,2001:db8::/32").unwrap();
        for (address, is_in) in [
            ("10.9.8.7", true),
            ("192.0.2.7", true),
            ("2001:db8::1", true),
            ("192.0.2.8", false),
            ("2001:db9::1", false),
        ] {
            assert_eq!(networks.contain(address.parse().unwrap()), is_in, "{address}");
        }
        for wrong in ["10.0.0.0/33", "10.0.0.0/8,", "localhost"] {
            assert_eq!(Networks::parse(wrong), None, "{wrong}");
        }
        assert!(!Networks::default().contain("127.0.0.1".parse().unwrap()));
    }
}
