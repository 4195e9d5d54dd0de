//! Everything chat reads from its environment, once, before it listens.

use std::time::Duration;

use chassis::{ConfigError, Core, Env};

#[derive(Debug, Clone)]
pub struct Config {
    /// `CHAT_PING_EVERY`: between two WebSocket pings. A client that says nothing for twice as long is gone.
    pub ping_every: Duration,
}

impl Config {
    pub fn from_env(env: &Env, _core: &Core) -> Result<Self, ConfigError> {
        Ok(Self {
            ping_every: env.read("CHAT_PING_EVERY", "25s", "How often a WebSocket is asked whether it is still there. One that says nothing for twice as long is closed.")?,
        })
    }
}
