//! Streams and broadcasts, and what their texts may be. Parsed once, then trusted.

use std::fmt;
use std::time::Duration;

use chassis::secrets::random_hex;
use chrono::{DateTime, Utc};
use common::{BroadcastId, Invalid, Problem, StreamId, UserId};
use events::EndReason;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// As the table of 002 has it, in characters.
const LONGEST_TEXT: usize = 255;
/// A description is a text, not a book: in characters.
const LONGEST_DESCRIPTION: usize = 5000;
/// Random bytes in a stream key: 160 bits.
const KEY_BYTES: usize = 20;

/// What an encoder publishes with. Whoever knows it can go live, so it is shown once and stored as a hash.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamKey(String);

impl StreamKey {
    #[must_use]
    pub fn new() -> Self {
        Self(random_hex(KEY_BYTES))
    }

    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The key itself, for its owner.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored. A key is random and long, so its plain SHA-256 tells nothing about it.
    #[must_use]
    pub fn hash(&self) -> Vec<u8> {
        digest(&SHA256, self.0.as_bytes()).as_ref().to_vec()
    }
}

impl Default for StreamKey {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamKey(…)")
    }
}

/// Whether a stream is on air.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Live,
    Ended,
}

impl Status {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ended => "ended",
        }
    }
}

/// Who may see a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Everybody; it is in lists.
    #[default]
    Public,
    /// Whoever knows its playback id; it is in no list.
    Unlisted,
    /// Its owner. Whoever has the playlist's address can play it all the same: that is known to nobody else.
    Private,
}

impl Visibility {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Unlisted => "unlisted",
            Self::Private => "private",
        }
    }
}

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub id: StreamId,
    pub user_id: UserId,
    /// Once auth has told us of the user.
    pub user_name: Option<String>,
    pub playback_id: Uuid,
    pub title: String,
    pub description: Option<String>,
    pub status: Status,
    pub visibility: Visibility,
    pub featured: bool,
    pub scheduled_at: Option<DateTime<Utc>>,
    pub start_time: Option<DateTime<Utc>>,
    pub end_time: Option<DateTime<Utc>>,
    /// Players over RTMP and watchers over HLS, while it is live.
    pub viewer_count: i32,
    /// What its owner has set.
    pub thumbnail: Option<String>,
    /// When the last picture was taken from its broadcast.
    pub pictured_at: Option<DateTime<Utc>>,
    /// No encoder is taken before.
    pub refused_until: Option<DateTime<Utc>>,
    /// When its followers were last told that it is live.
    pub followers_told_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A media server's connection, of an encoder or of a player.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Connection {
    pub media_server: MediaServer,
    /// What this run of the media server calls the connection: a number, or a longer name.
    pub client_id: String,
}

/// A media server, from its start to its end: connections are numbered anew in each run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MediaServer {
    /// As it is named in its configuration.
    pub name: String,
    /// When it was started, as it says itself; empty if it does not say.
    pub run: String,
}

/// What viewers see as one: from going live to the end. An encoder that comes back soon enough goes on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broadcast {
    pub id: BroadcastId,
    pub started_at: DateTime<Utc>,
    /// While nobody publishes: since when, why, and until when it can be gone on with. Not at all if that is `None`.
    pub off_air: Option<OffAir>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffAir {
    pub since: DateTime<Utc>,
    pub reason: EndReason,
    pub open_until: Option<DateTime<Utc>>,
}

/// One connection of an encoder that was let publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    pub id: PublicationId,
    pub encoder: Connection,
    pub last_seen_at: DateTime<Utc>,
    /// When and why it ended; `None` while it is on air.
    pub end: Option<(DateTime<Utc>, EndReason)>,
}

/// A publication's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicationId(pub i64);

/// A key's row: what it is called where the key itself is not to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = i64)]
pub struct KeyId(pub i64);

impl Publication {
    /// Whether its media server has not reported it for longer than `after`.
    #[must_use]
    pub fn is_stale(&self, now: DateTime<Utc>, after: Duration) -> bool {
        self.last_seen_at + after < now
    }
}

/// What an owner says of a stream, checked. A field left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    pub title: Option<String>,
    pub description: Option<String>,
    pub thumbnail: Option<String>,
}

impl Description {
    /// Names every field that is not valid.
    pub fn parse(
        title: Option<String>,
        description: Option<String>,
        thumbnail: Option<String>,
    ) -> Result<Self, Problem> {
        let mut invalid = Invalid::default();
        let mut check = |name, text: &Option<String>, longest: usize, may_break: bool| {
            let Some(text) = text else { return };
            if text.chars().count() > longest {
                invalid.field(name, format!("may have at most {longest} characters"));
            }
            if text.chars().any(|c| c.is_control() && !(may_break && matches!(c, '\n' | '\r' | '\t'))) {
                invalid.field(name, "must not have control characters");
            }
        };
        check("title", &title, LONGEST_TEXT, false);
        check("description", &description, LONGEST_DESCRIPTION, true);
        check("thumbnail", &thumbnail, LONGEST_TEXT, false);
        let is_address = |text: &String| text.is_empty() || text.starts_with("https://") || text.starts_with("http://");
        if !thumbnail.as_ref().is_none_or(is_address) {
            invalid.field("thumbnail", "must be an http or https address");
        }
        invalid.or(Self { title, description, thumbnail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_long_random_and_not_printed() {
        let (one, two) = (StreamKey::new(), StreamKey::new());
        assert_ne!(one.expose(), two.expose());
        assert_eq!(one.expose().len(), 40);
        assert!(!format!("{one:?}").contains(one.expose()));
        assert_eq!(StreamKey::of(one.expose()).hash(), one.hash());
    }

    #[test]
    fn texts_that_are_too_long_or_have_control_characters_are_named() {
        let problem =
            Description::parse(Some("a".repeat(256)), Some("\0".into()), Some("javascript:1".into())).unwrap_err();
        let fields = problem.body()["fields"].clone();
        for name in ["title", "description", "thumbnail"] {
            assert!(fields.get(name).is_some(), "{name} in {fields}");
        }
    }
}
