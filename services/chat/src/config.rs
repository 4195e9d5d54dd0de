//! Everything chat reads from its environment, once, before it listens.

use std::time::Duration;

use chassis::env::Rate;
use chassis::{ConfigError, Core, Env};

use crate::domain::Emails;
use crate::engine::Rules;

#[derive(Debug, Clone)]
pub struct Config {
    /// `CHAT_PING_EVERY`: between two WebSocket pings. A client that says nothing for twice as long is gone.
    pub ping_every: Duration,
    /// `CHAT_SOCKET_IO_*`: the times and sizes of Socket.IO.
    pub socket_io: Rules,
    /// `CHAT_SOCKET_IO_CONNECT_TIMEOUT`: how long a Socket.IO client may be connected to no namespace.
    pub connect_timeout: Duration,
    /// `CHAT_SHOW_EMAILS`: whether messages of rooms say the addresses of who wrote them.
    pub emails: Emails,
    /// `CHAT_RATE_PER_USER`: how many messages a user may send.
    pub rate_per_user: Rate,
    /// `CHAT_RATE_PER_ROOM`: how many messages a room takes, of all users together.
    pub rate_per_room: Rate,
}

impl Config {
    pub fn from_env(env: &Env, _core: &Core) -> Result<Self, ConfigError> {
        Ok(Self {
            ping_every: env.read("CHAT_PING_EVERY", "25s", "How often a WebSocket is asked whether it is still there. One that says nothing for twice as long is closed.")?,
            socket_io: Rules {
                ping_interval: env.read("CHAT_SOCKET_IO_PING_INTERVAL", "25s", "How often a Socket.IO client is asked whether it is still there.")?,
                ping_timeout: env.read("CHAT_SOCKET_IO_PING_TIMEOUT", "20s", "How long a Socket.IO client may take to answer that.")?,
                max_payload: env.read("CHAT_SOCKET_IO_MAX_PAYLOAD", "65536", "The most bytes that a Socket.IO client sends in one POST.")?,
            },
            connect_timeout: env.read("CHAT_SOCKET_IO_CONNECT_TIMEOUT", "45s", "How long a Socket.IO client may take to send its token.")?,
            emails: match env.read("CHAT_SHOW_EMAILS", "true", "Whether members of a room see the e-mail addresses of who writes in it. In the chat of a stream, which everybody may join, nobody does.")? {
                true => Emails::Shown,
                false => Emails::Hidden,
            },
            rate_per_user: env.read("CHAT_RATE_PER_USER", "30/10s", "How many messages a user may send, at each instance.")?,
            rate_per_room: env.read("CHAT_RATE_PER_ROOM", "1000/10s", "How many messages a room takes of all users together, at each instance.")?,
        })
    }
}
