//! What media servers say, whatever their dialect: the words that the rest of the service understands.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::StreamKey;

/// What happened at a media server, to one of its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What that run of the media server calls the connection; empty where it has no name for it.
    pub client_id: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// An encoder wants to publish. The answer decides.
    Publish {
        key: StreamKey,
        /// The public name that it publishes under, where the media server cannot hand a broadcast on under another
        /// name. It must be the stream's own, as it is what viewers ask for.
        under: Option<String>,
    },
    /// An encoder is still publishing. A refusal disconnects it.
    Heartbeat { name: Name },
    /// What an encoder was let publish has arrived, and this is what the connection is called from now on.
    Confirm { name: Name },
    /// A connection is gone that published or played, which of the two is not said.
    Leave { name: Name },
    /// A player wants to play. The answer decides.
    Play { name: Name },
    /// A file was recorded.
    Recorded { name: Name, path: String },
}

/// What a media server calls a stream: an encoder's connection by its key, everything public by the playback id.
#[derive(Clone, PartialEq, Eq)]
pub enum Name {
    Key(StreamKey),
    Public(Uuid),
}

impl Name {
    /// A playback id if it reads like one, else a key.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match Uuid::try_parse(text) {
            Ok(playback_id) if text.len() == 36 => Self::Public(playback_id),
            _ => Self::Key(StreamKey::of(text)),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(_) => f.write_str("Key(…)"),
            Self::Public(playback_id) => write!(f, "Public({playback_id})"),
        }
    }
}

/// A call without its key, as it is kept: enough to decide it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Understood {
    pub client_id: String,
    pub what: Kind,
    /// The key's row, where the call had a key that exists.
    pub key_id: Option<i64>,
    /// The public name in it, if it had one.
    pub playback_id: Option<Uuid>,
    /// The recorded file.
    pub path: Option<String>,
}

/// What a call says, without what it says it of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Publish,
    Heartbeat,
    Confirm,
    Leave,
    Play,
    Recorded,
}

impl What {
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Publish { .. } => Kind::Publish,
            Self::Heartbeat { .. } => Kind::Heartbeat,
            Self::Confirm { .. } => Kind::Confirm,
            Self::Leave { .. } => Kind::Leave,
            Self::Play { .. } => Kind::Play,
            Self::Recorded { .. } => Kind::Recorded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_playback_id_only_if_it_is_written_like_ours() {
        let playback_id = Uuid::new_v4();
        assert_eq!(Name::of(&playback_id.to_string()), Name::Public(playback_id));
        for text in [playback_id.simple().to_string(), playback_id.urn().to_string(), "cam".into(), String::new()] {
            assert_eq!(Name::of(&text), Name::Key(StreamKey::of(&text)), "{text}");
        }
        assert!(!format!("{:?}", Name::of("hunter2")).contains("hunter2"));
    }
}
