//! Streams and broadcasts, and what their texts may be. Parsed once, then trusted.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chassis::secrets::random_hex;
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use common::{BroadcastId, Invalid, Problem, StreamId, UserId};
use events::EndReason;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// As the table of 002 has it, in characters.
const LONGEST_TEXT: usize = 255;
/// A description is a text, not a book: in characters.
const LONGEST_DESCRIPTION: usize = 5000;
/// Of a search, in characters, and the words of it that count.
const LONGEST_SEARCH: usize = 200;
const MOST_WORDS: usize = 10;
/// What a key is called, in characters.
const LONGEST_KEY_NAME: usize = 100;
/// Nobody plans further ahead.
const FURTHEST_SCHEDULE: TimeDelta = TimeDelta::days(2 * 366);
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

/// What a stream is asked for by: its id, or its public name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamName {
    Id(StreamId),
    Playback(Uuid),
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Playback(id) => id.fmt(f),
        }
    }
}

impl FromStr for StreamName {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Uuid::try_parse(text) {
            Ok(playback_id) if text.len() == 36 => Ok(Self::Playback(playback_id)),
            _ => text.parse().map(Self::Id),
        }
    }
}

impl<'de> Deserialize<'de> for StreamName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What is said of a stream, checked. A field left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    pub title: Option<String>,
    pub description: Option<Option<String>>,
    pub thumbnail: Option<Option<String>>,
    /// In whole microseconds, as it is stored. See [`check_schedule`].
    pub scheduled_at: Option<Option<DateTime<Utc>>>,
    pub visibility: Option<Visibility>,
    /// For administrators to say.
    pub featured: Option<bool>,
}

impl Description {
    /// `said`, if its texts are valid; else a problem that names every field that is not.
    pub fn parse(said: Self) -> Result<Self, Problem> {
        let mut invalid = Invalid::default();
        let mut check = |name, text: Option<&String>, longest: usize, may_break: bool| {
            if let Some(text) = text {
                check_text(&mut invalid, name, text, longest, may_break);
            }
        };
        check("title", said.title.as_ref(), LONGEST_TEXT, false);
        check("description", said.description.as_ref().and_then(Option::as_ref), LONGEST_DESCRIPTION, true);
        check("thumbnail", said.thumbnail.as_ref().and_then(Option::as_ref), LONGEST_TEXT, false);
        // An empty address is none.
        let thumbnail = said.thumbnail.map(|address| address.filter(|address| !address.is_empty()));
        let is_address = |text: &String| text.starts_with("https://") || text.starts_with("http://");
        if !thumbnail.iter().flatten().all(is_address) {
            invalid.field("thumbnail", "must be an http or https address");
        }
        let scheduled_at = said.scheduled_at.map(|at| at.map(|at| at.trunc_subsecs(6)));
        invalid.or(Self { thumbnail, scheduled_at, ..said })
    }
}

fn check_text(invalid: &mut Invalid, name: &'static str, text: &str, longest: usize, may_break: bool) {
    if text.chars().count() > longest {
        invalid.field(name, format!("may have at most {longest} characters"));
    }
    if text.chars().any(|c| c.is_control() && !(may_break && matches!(c, '\n' | '\r' | '\t'))) {
        invalid.field(name, "must not have control characters");
    }
}

/// Whether a stream can be announced for `at`, when it was not before.
pub fn check_schedule(at: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), Problem> {
    let mut invalid = Invalid::default();
    if at <= now || at > now + FURTHEST_SCHEDULE {
        invalid.field("scheduledAt", "must be in the future, within two years");
    }
    invalid.or(())
}

/// What a key is to be called, if that is a name.
pub fn key_name(text: String) -> Result<String, Problem> {
    let mut invalid = Invalid::default();
    if text.trim().is_empty() {
        invalid.field("name", "must not be empty");
    }
    check_text(&mut invalid, "name", &text, LONGEST_KEY_NAME, false);
    invalid.or(text)
}

/// Why a broadcast ended, for people.
#[must_use]
pub fn in_words(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Left => "The encoder stopped publishing.",
        EndReason::Stale => "The media server was not heard of any more, and the encoder did not come back.",
        EndReason::Vanished => "The connection of the encoder was lost, and it did not come back.",
        EndReason::StoppedByOwner => "Its owner ended it.",
        EndReason::StoppedByAdministrator => "An administrator ended it.",
        EndReason::KeyRevoked => "The stream key that it was published with was revoked or replaced.",
        EndReason::Deleted => "The stream was deleted.",
        EndReason::Replaced => "Another encoder took over.",
    }
}

/// Which streams a list has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// `None`: all.
    pub which: Option<Which>,
    pub owner: Option<UserId>,
    /// Whether their owner asks, who sees all of them. Everybody else sees public ones.
    pub is_owners: bool,
    pub search: Option<Search>,
    pub sort: Option<Sort>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// On air.
    Live,
    /// Announced, and not on air yet. Up to an hour late.
    Upcoming,
    /// Chosen by an administrator.
    Featured,
    /// Not on air.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    Newest,
    Oldest,
    /// Those on air first, by how many watch; then the newest.
    Viewers,
    /// Those that begin soonest first, then those that are not announced for any time.
    Scheduled,
    /// Those that went live last first, then those that never did.
    Started,
}

/// What is searched for: streams with all of these words in title or description, each at least as the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Search(Vec<String>);

impl Search {
    /// `None` if there is nothing to search for.
    pub fn parse(text: &str) -> Result<Option<Self>, Problem> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        let mut invalid = Invalid::default();
        if text.chars().count() > LONGEST_SEARCH {
            invalid.field("search", format!("may have at most {LONGEST_SEARCH} characters"));
        }
        // An accent can be a character of its own, after its letter.
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '\u{300}'..='\u{36f}');
        let words = text.split(|c| !is_part(c)).filter(|word| !word.is_empty());
        invalid.or(Some(Self(words.take(MOST_WORDS).map(str::to_owned).collect())))
    }

    /// As `to_tsquery` reads it; empty, and so found nowhere, if it has no word. A word has letters and digits only, so
    /// none of it is an operator there.
    #[must_use]
    pub fn as_query(&self) -> String {
        self.0.iter().map(|word| format!("'{word}':*")).collect::<Vec<_>>().join(" & ")
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
        let said = Description {
            title: Some("a".repeat(256)),
            description: Some(Some("\0".into())),
            thumbnail: Some(Some("javascript:1".into())),
            ..Description::default()
        };
        let problem = Description::parse(said).unwrap_err();
        let fields = problem.body()["fields"].clone();
        for name in ["title", "description", "thumbnail"] {
            assert!(fields.get(name).is_some(), "{name} in {fields}");
        }
    }

    #[test]
    fn a_search_is_words_whatever_is_between_them() {
        let query = |text: &str| Search::parse(text).unwrap().map(|search| search.as_query());
        assert_eq!(query(" \t"), None);
        assert_eq!(query("Nấu  ăn"), Some("'Nấu':* & 'ăn':*".into()));
        assert_eq!(query("node.js | !(a & 'b') \\ \0:*"), Some("'node':* & 'js':* & 'a':* & 'b':*".into()));
        assert_eq!(query("a\u{302}\u{301}m"), Some("'a\u{302}\u{301}m':*".into()));
        assert_eq!(query("?!"), Some(String::new()));
        assert_eq!(query(&"a ".repeat(100)).unwrap().matches('&').count(), MOST_WORDS - 1);
        assert!(Search::parse(&"a".repeat(201)).is_err());
    }

    #[test]
    fn a_stream_is_asked_for_by_its_id_or_its_public_name_as_we_write_it() {
        let playback_id = Uuid::new_v4();
        assert_eq!(playback_id.to_string().parse(), Ok(StreamName::Playback(playback_id)));
        assert_eq!("7".parse(), Ok(StreamName::Id(StreamId(7))));
        for text in ["", "abc", "9223372036854775808", &playback_id.simple().to_string()] {
            assert!(text.parse::<StreamName>().is_err(), "{text}");
        }
    }
}
