//! What the gateway reads from its environment, and the services that it knows.

use std::time::Duration;

use chassis::{ConfigError, Core, Env};

use crate::upstream::{Address, Patience};

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

    /// Whether it describes its API at `/openapi.json`.
    #[must_use]
    pub fn has_openapi(self) -> bool {
        match self {
            Self::Auth | Self::Stream => true,
            Self::Hls => false,
        }
    }
}

/// Everything the gateway reads from its environment, once, before it listens.
#[derive(Debug, Clone)]
pub struct Config {
    /// `AUTH_URL`.
    pub auth: Address,
    /// `STREAM_URL`.
    pub stream: Address,
    /// `HLS_ORIGIN_URL`.
    pub hls: Address,
    /// `GATEWAY_CONNECT_TIMEOUT`, `GATEWAY_ANSWER_TIMEOUT` and `GATEWAY_BODY_TIMEOUT`.
    pub patience: Patience,
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
        Ok(Self {
            auth: env.read("AUTH_URL", "http://127.0.0.1:8081", "Where the auth service listens.")?,
            stream: env.read("STREAM_URL", "http://127.0.0.1:8082", "Where the stream service listens.")?,
            hls: env.read(
                "HLS_ORIGIN_URL",
                "http://127.0.0.1:8088",
                "The media server's HTTP address, from which `/hls/…` is served.",
            )?,
            patience: Patience { connect, answer, body },
            scheme: if core.public_url.as_str().starts_with("https:") { "https" } else { "http" },
        })
    }

    /// Where `service` listens.
    #[must_use]
    pub fn address(&self, service: Service) -> &Address {
        match service {
            Service::Auth => &self.auth,
            Service::Stream => &self.stream,
            Service::Hls => &self.hls,
        }
    }
}
