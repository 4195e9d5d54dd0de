//! What the gateway reads from its environment, and the services that it knows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chassis::env::Rate;
use chassis::{ConfigError, Core, Env};

use crate::client::Proxies;
use crate::origin::{Listed, Origins};
use crate::tls::TlsFiles;
use crate::upstream::{Addresses, Fleet, Patience, Resolve, Watch};

/// The services behind the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Auth,
    Stream,
    Session,
    VideoCall,
    Chat,
    Vod,
    /// The media server, or whatever else serves the files of live streams over HTTP.
    Hls,
}

impl Service {
    /// All of them, in the order of their values.
    pub const ALL: [Self; 7] =
        [Self::Auth, Self::Stream, Self::Session, Self::VideoCall, Self::Chat, Self::Vod, Self::Hls];

    /// For people and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Stream => "stream",
            Self::Session => "session",
            Self::VideoCall => "video-call",
            Self::Chat => "chat",
            Self::Vod => "vod",
            Self::Hls => "hls",
        }
    }

    /// The path at which its instances say whether requests should come.
    #[must_use]
    pub fn probe(self) -> Option<&'static str> {
        // The media server is not ours.
        (self != Self::Hls).then_some("/healthz")
    }

    /// Whether it describes its API at `/openapi.json`.
    #[must_use]
    pub fn has_openapi(self) -> bool {
        self != Self::Hls
    }
}

/// The instances of each service, in the order of [`Service::ALL`]; `None` for one that the installation does without.
pub type Fleets = [Option<Arc<Fleet>>; Service::ALL.len()];

/// Everything the gateway reads from its environment, once, before it listens.
#[derive(Debug, Clone)]
pub struct Config {
    /// `AUTH_URL`.
    pub auth: Addresses,
    /// `STREAM_URL`.
    pub stream: Addresses,
    /// `SESSION_URL`, `VIDEO_CALL_URL`, `CHAT_URL` and `VOD_URL`: services that an installation may do without.
    pub session: Option<Addresses>,
    pub video_call: Option<Addresses>,
    pub chat: Option<Addresses>,
    pub vod: Option<Addresses>,
    /// `HLS_ORIGIN_URL`.
    pub hls: Addresses,
    /// `GATEWAY_CONNECT_TIMEOUT`, `GATEWAY_ANSWER_TIMEOUT` and `GATEWAY_BODY_TIMEOUT`.
    pub patience: Patience,
    /// `GATEWAY_PROBE_EVERY`.
    pub probe_every: Duration,
    /// `GATEWAY_RESOLVE_EVERY`.
    pub resolve_every: Duration,
    /// `TRUSTED_PROXIES`.
    pub proxies: Proxies,
    /// From `PUBLIC_URL` and `ALLOWED_ORIGINS`.
    pub origins: Origins,
    /// `GATEWAY_RATE_PER_ADDRESS` and `GATEWAY_RATE_PER_USER`.
    pub rate_per_address: Rate,
    pub rate_per_user: Rate,
    /// `WEB_DIR`, if it is there.
    pub web: Option<PathBuf>,
    /// `GATEWAY_TLS_CERT` and `GATEWAY_TLS_KEY`.
    pub tls: Option<TlsFiles>,
    /// How clients reach the gateway, from `PUBLIC_URL`, where neither its own TLS nor a trusted proxy says so.
    pub scheme: &'static str,
    /// Whether a collector takes traces.
    pub is_traced: bool,
}

impl Config {
    /// Reads it. Fails with the name of the first setting that makes no sense.
    pub fn from_env(env: &Env, core: &Core) -> Result<Self, ConfigError> {
        let connect: Duration = env.read(
            "GATEWAY_CONNECT_TIMEOUT",
            "2s",
            "How long the gateway waits for a connection to a service before it answers 503.",
        )?;
        let answer: Duration = env.read(
            "GATEWAY_ANSWER_TIMEOUT",
            "60s",
            "How long a service may be silent before the gateway answers 504. Event streams and WebSockets have no limit.",
        )?;
        let body: Duration = env.read(
            "GATEWAY_BODY_TIMEOUT",
            "30s",
            "How long a client may pause in the middle of a request's body before the gateway answers 408. WebSockets have no limit.",
        )?;
        let probe_every: Duration = env.read(
            "GATEWAY_PROBE_EVERY",
            "1s",
            "How often the gateway asks each instance of a service at `/healthz` whether requests should come: 503 means no, no answer twice means no, all else means yes.",
        )?;
        let resolve_every: Duration = env.read(
            "GATEWAY_RESOLVE_EVERY",
            "5s",
            "How often the gateway looks up the names in the addresses of services: each address of a name is an instance.",
        )?;
        let optional = |name, meaning| env.optional(name, "the paths of this service answer 503", meaning);
        let listed: Option<Listed> = env.optional(
            "ALLOWED_ORIGINS",
            "only pages of the gateway itself",
            "Origins of other pages that may use the gateway with the cookies of their visitors (CORS), such as https://app.example.org.",
        )?;
        let listed = listed.unwrap_or_default();
        let web: PathBuf =
            env.read("WEB_DIR", "web/dist", "The folder of the web client, served at `/` if it is there.")?;
        Ok(Self {
            auth: env.read("AUTH_URL", "http://127.0.0.1:8081", "Where the auth service listens. Several instances: with commas between them, or a name with several addresses.")?,
            stream: env.read("STREAM_URL", "http://127.0.0.1:8082", "Where the stream service listens. Several instances: with commas between them, or a name with several addresses.")?,
            hls: env.read(
                "HLS_ORIGIN_URL",
                "http://127.0.0.1:8088",
                "The media server's HTTP address, from which `/hls/…` is served. Several that serve the same: with commas between them, or a name with several addresses.",
            )?,
            session: optional("SESSION_URL", "Where the session service (meetings) listens.")?,
            video_call: optional("VIDEO_CALL_URL", "Where the video-call service (lessons) listens.")?,
            chat: optional("CHAT_URL", "Where the chat service listens.")?,
            vod: optional("VOD_URL", "Where the VOD service (recordings) listens.")?,
            patience: Patience { connect, answer, body },
            probe_every,
            resolve_every,
            proxies: env
                .optional(
                    "TRUSTED_PROXIES",
                    "nobody",
                    "The load balancers in front of the gateway, as networks or addresses such as 10.0.0.0/8: they are believed what `X-Forwarded-For` and `X-Forwarded-Proto` say of clients.",
                )?
                .unwrap_or_default(),
            origins: Origins::new(core.public_url.as_str(), listed),
            rate_per_address: env.read(
                "GATEWAY_RATE_PER_ADDRESS",
                "1000/10s",
                "How many requests an address (IPv6: a /64 network) may send before it is answered 429. Video and callbacks of media servers do not count.",
            )?,
            rate_per_user: env.read("GATEWAY_RATE_PER_USER", "600/10s", "The same for a user who is logged in.")?,
            web: Some(web).filter(|web| web.join("index.html").is_file()),
            tls: TlsFiles::from_env(env)?,
            is_traced: core.is_traced(),
            scheme: if core.public_url.as_str().starts_with("https:") { "https" } else { "http" },
        })
    }

    /// The instances of all services that the installation has, whose names `resolver` finds. Nobody watches them yet.
    #[must_use]
    pub fn fleets(&self, resolver: &Arc<dyn Resolve>) -> Fleets {
        let watch = |service: Service| Watch {
            probe: service.probe(),
            probe_every: self.probe_every,
            resolve_every: self.resolve_every,
        };
        Service::ALL.map(|service| {
            let addresses = self.addresses(service)?.clone();
            Some(Fleet::new(service.name(), addresses, watch(service), Arc::clone(resolver)))
        })
    }

    /// Where the instances of `service` listen; `None` if the installation does without it.
    #[must_use]
    pub fn addresses(&self, service: Service) -> Option<&Addresses> {
        match service {
            Service::Auth => Some(&self.auth),
            Service::Stream => Some(&self.stream),
            Service::Session => self.session.as_ref(),
            Service::VideoCall => self.video_call.as_ref(),
            Service::Chat => self.chat.as_ref(),
            Service::Vod => self.vod.as_ref(),
            Service::Hls => Some(&self.hls),
        }
    }
}
