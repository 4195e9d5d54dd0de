//! What the gateway reads from its environment, and the services that it knows.

use std::sync::Arc;
use std::time::Duration;

use chassis::{ConfigError, Core, Env};

use crate::upstream::{Addresses, Fleet, Patience, Resolve, Watch};

/// The services behind the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Auth,
    Stream,
    /// The media server, or whatever else serves the files of live streams over HTTP.
    Hls,
}

impl Service {
    /// All of them, in the order of their values.
    pub const ALL: [Self; 3] = [Self::Auth, Self::Stream, Self::Hls];

    /// For people and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Stream => "stream",
            Self::Hls => "hls",
        }
    }

    /// The path at which its instances say whether requests should come.
    #[must_use]
    pub fn probe(self) -> Option<&'static str> {
        match self {
            Self::Auth | Self::Stream => Some("/healthz"),
            Self::Hls => None,
        }
    }

    /// Whether it describes its API at `/openapi.json`.
    #[must_use]
    pub fn has_openapi(self) -> bool {
        match self {
            Self::Auth | Self::Stream => true,
            Self::Hls => false,
        }
    }
}

/// The instances of each service, in the order of [`Service::ALL`].
pub type Fleets = [Arc<Fleet>; Service::ALL.len()];

/// Everything the gateway reads from its environment, once, before it listens.
#[derive(Debug, Clone)]
pub struct Config {
    /// `AUTH_URL`.
    pub auth: Addresses,
    /// `STREAM_URL`.
    pub stream: Addresses,
    /// `HLS_ORIGIN_URL`.
    pub hls: Addresses,
    /// `GATEWAY_CONNECT_TIMEOUT`, `GATEWAY_ANSWER_TIMEOUT` and `GATEWAY_BODY_TIMEOUT`.
    pub patience: Patience,
    /// `GATEWAY_PROBE_EVERY`.
    pub probe_every: Duration,
    /// `GATEWAY_RESOLVE_EVERY`.
    pub resolve_every: Duration,
    /// `http` or `https`: how clients reach the gateway, from `PUBLIC_URL`.
    pub scheme: &'static str,
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
        Ok(Self {
            auth: env.read("AUTH_URL", "http://127.0.0.1:8081", "Where the auth service listens. Several instances: with commas between them, or a name with several addresses.")?,
            stream: env.read("STREAM_URL", "http://127.0.0.1:8082", "Where the stream service listens. Several instances: with commas between them, or a name with several addresses.")?,
            hls: env.read(
                "HLS_ORIGIN_URL",
                "http://127.0.0.1:8088",
                "The media server's HTTP address, from which `/hls/…` is served. Several that serve the same: with commas between them, or a name with several addresses.",
            )?,
            patience: Patience { connect, answer, body },
            probe_every,
            resolve_every,
            scheme: if core.public_url.as_str().starts_with("https:") { "https" } else { "http" },
        })
    }

    /// The instances of all services, whose names `resolver` finds. Nobody watches them yet.
    #[must_use]
    pub fn fleets(&self, resolver: Arc<dyn Resolve>) -> Fleets {
        Service::ALL.map(|service| {
            let watch =
                Watch { probe: service.probe(), probe_every: self.probe_every, resolve_every: self.resolve_every };
            Fleet::new(service.name(), self.addresses(service).clone(), watch, Arc::clone(&resolver))
        })
    }

    /// Where the instances of `service` listen.
    #[must_use]
    pub fn addresses(&self, service: Service) -> &Addresses {
        match service {
            Service::Auth => &self.auth,
            Service::Stream => &self.stream,
            Service::Hls => &self.hls,
        }
    }
}
