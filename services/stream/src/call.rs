//! What media servers say, whatever their dialect: the words that the rest of the service understands.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{KeyId, StreamKey};

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
        /// The key that it came with.
        name: Name,
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
    /// A player asks whether it may play. Whether it does is told otherwise, or not at all.
    MayPlay { name: Name },
    /// The media server itself hands on what an encoder was let publish, to where viewers find it.
    HandOn { name: Name },
    /// A file was recorded.
    Recorded { name: Name, path: String },
}

/// What a media server calls a stream: an encoder's connection by its key, everything public by the playback id.
#[derive(Clone, PartialEq, Eq)]
pub enum Name {
    Key(StreamKey),
    Public(Uuid),
    /// A key that only the row is known of: the call was kept, the key was not. `None`: nobody had this key.
    Kept(Option<KeyId>),
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
            Self::Kept(key) => write!(f, "Kept({key:?})"),
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
    /// The public name in it, if it had one instead.
    pub playback_id: Option<Uuid>,
    /// The public name that it wanted to publish under; [`NO_NAME`] where that was none.
    pub under: Option<String>,
    /// The recorded file.
    pub path: Option<String>,
}

/// Stands for a name that is no playback id: it may have been a key.
const NO_NAME: &str = "…";

impl Understood {
    /// What is kept of `call`, whose key is that of this row.
    #[must_use]
    pub fn of(call: &Call, key_id: Option<KeyId>) -> Self {
        let public =
            |text: &String| if matches!(Name::of(text), Name::Public(_)) { text.clone() } else { NO_NAME.into() };
        Self {
            client_id: call.client_id.clone(),
            what: call.what.kind(),
            key_id: key_id.map(|id| id.0),
            playback_id: match call.what.name() {
                Name::Public(playback_id) => Some(*playback_id),
                Name::Key(_) | Name::Kept(_) => None,
            },
            under: match &call.what {
                What::Publish { under, .. } => under.as_ref().map(public),
                _ => None,
            },
            path: match &call.what {
                What::Recorded { path, .. } => Some(path.clone()),
                _ => None,
            },
        }
    }

    /// The call again.
    #[must_use]
    pub fn call(self) -> Call {
        let name = self.playback_id.map_or(Name::Kept(self.key_id.map(KeyId)), Name::Public);
        let what = match self.what {
            Kind::Publish => What::Publish { name, under: self.under },
            Kind::Heartbeat => What::Heartbeat { name },
            Kind::Confirm => What::Confirm { name },
            Kind::Leave => What::Leave { name },
            Kind::Play => What::Play { name },
            Kind::MayPlay => What::MayPlay { name },
            Kind::HandOn => What::HandOn { name },
            Kind::Recorded => What::Recorded { name, path: self.path.unwrap_or_default() },
        };
        Call { client_id: self.client_id, what }
    }
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
    MayPlay,
    HandOn,
    Recorded,
}

impl Kind {
    /// Whether such calls come all the time, and rarely say anything new.
    #[must_use]
    pub fn is_routine(self) -> bool {
        matches!(self, Self::Heartbeat | Self::MayPlay)
    }
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
            Self::MayPlay { .. } => Kind::MayPlay,
            Self::HandOn { .. } => Kind::HandOn,
            Self::Recorded { .. } => Kind::Recorded,
        }
    }

    /// What it says it of.
    #[must_use]
    pub fn name(&self) -> &Name {
        match self {
            Self::Publish { name, .. }
            | Self::Heartbeat { name }
            | Self::Confirm { name }
            | Self::Leave { name }
            | Self::Play { name }
            | Self::MayPlay { name }
            | Self::HandOn { name }
            | Self::Recorded { name, .. } => name,
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

    #[test]
    fn what_is_kept_of_a_call_decides_it_again_and_has_no_key() {
        let key = || Name::Key(StreamKey::of("hunter2"));
        let (kept, public) = (Name::Kept(Some(KeyId(7))), Name::Public(Uuid::from_u128(7)));
        let under = Some(Uuid::from_u128(7).to_string());
        let cases = [
            (What::Publish { name: key(), under: under.clone() }, What::Publish { name: kept.clone(), under }),
            (
                What::Publish { name: key(), under: Some("hunter2".into()) },
                What::Publish { name: kept.clone(), under: Some(NO_NAME.into()) },
            ),
            (What::Heartbeat { name: key() }, What::Heartbeat { name: kept.clone() }),
            (What::Leave { name: key() }, What::Leave { name: kept.clone() }),
            (What::Confirm { name: key() }, What::Confirm { name: kept.clone() }),
            (What::Play { name: key() }, What::Play { name: kept.clone() }),
            (What::MayPlay { name: key() }, What::MayPlay { name: kept.clone() }),
            (What::HandOn { name: key() }, What::HandOn { name: kept.clone() }),
            (
                What::Recorded { name: key(), path: "/rec/1.flv".into() },
                What::Recorded { name: kept, path: "/rec/1.flv".into() },
            ),
            (What::Leave { name: public.clone() }, What::Leave { name: public }),
        ];
        for (what, expected) in cases {
            let understood = Understood::of(&Call { client_id: "3".into(), what }, Some(KeyId(7)));
            let json = serde_json::to_string(&understood).unwrap();
            assert!(!json.contains("hunter2"), "{json}");
            let again: Understood = serde_json::from_str(&json).unwrap();
            assert_eq!(again.call(), Call { client_id: "3".into(), what: expected });
        }
    }
}
