//! Rooms and messages, and what a message may be. Parsed once, then trusted.

use chrono::{DateTime, Utc};
use common::{ConversationId, Invalid, MessageId, Problem, RoomId, StreamId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The most characters that a message has.
pub const LONGEST_CONTENT: usize = 8000;
/// The most characters that the name of a room has, as the table of 003 has it.
pub(crate) const LONGEST_NAME: usize = 255;
/// The most bytes of the address of a file.
const LONGEST_FILE_URL: usize = 2048;
/// The most bytes of a client's own name for a message.
const LONGEST_CLIENT_MESSAGE_ID: usize = 64;
/// How long a room's code is.
const CODE_LENGTH: usize = 6;
/// What codes are made of: no letter or digit that is taken for another (0 O, 1 I L).
const CODE_ALPHABET: &[u8] = b"23456789ABCDEFGHJKMNPQRSTUVWXYZ";

/// What a room is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Whoever has the code may join, and if it is public everybody.
    Group,
    /// Two users, for good.
    Direct,
    /// The chat of a stream.
    Stream,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Direct => "direct",
            Self::Stream => "stream",
        }
    }

    pub(crate) fn of(text: &str) -> Self {
        [Self::Direct, Self::Stream].into_iter().find(|kind| kind.as_str() == text).unwrap_or(Self::Group)
    }
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Made the room.
    Owner,
    Member,
}

impl MemberRole {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Member => "member",
        }
    }

    pub(crate) fn of(text: &str) -> Self {
        if text == Self::Owner.as_str() { Self::Owner } else { Self::Member }
    }
}

/// A room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    pub id: RoomId,
    pub conversation_id: ConversationId,
    pub kind: Kind,
    pub code: Option<RoomCode>,
    pub name: String,
    pub avatar_url: Option<String>,
    /// Whose chat it is.
    pub stream_id: Option<StreamId>,
    /// Whether one joins it by its id.
    pub is_public: bool,
    /// The number of its last message.
    pub last_seq: i64,
    pub created_by: Option<UserId>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// By what a room is known: of old, as a conversation, and as the chat of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) room_id: RoomId,
    pub(crate) conversation_id: ConversationId,
    pub(crate) stream_id: Option<StreamId>,
}

impl Room {
    pub(crate) fn place(&self) -> Place {
        Place { room_id: self.id, conversation_id: self.conversation_id, stream_id: self.stream_id }
    }
}

/// What one joins a group with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomCode(String);

impl RoomCode {
    /// A new one, which nobody can foretell.
    #[must_use]
    pub fn random() -> Self {
        // Its first bytes are all random. That the first letters come a little more often tells nobody anything.
        let random = Uuid::new_v4().into_bytes();
        let letters = random.iter().map(|byte| CODE_ALPHABET[usize::from(*byte) % CODE_ALPHABET.len()]);
        Self(letters.take(CODE_LENGTH).map(char::from).collect())
    }

    /// What somebody has typed: lower case is fine. `None`: it is no code.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let code = text.trim().to_ascii_uppercase();
        let is_code = code.len() == CODE_LENGTH && code.bytes().all(|byte| CODE_ALPHABET.contains(&byte));
        is_code.then_some(Self(code))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }
}

/// The name of a room, checked: at most 255 characters, none of them a control character.
pub(crate) fn room_name(field: &'static str, name: Option<String>) -> Result<String, Problem> {
    let mut invalid = Invalid::default();
    let name = name.unwrap_or_default().trim().to_owned();
    if name.chars().count() > LONGEST_NAME {
        invalid.field(field, format!("may have at most {LONGEST_NAME} characters"));
    }
    if name.chars().any(char::is_control) {
        invalid.field(field, "must not have control characters");
    }
    invalid.or(name)
}

/// What is in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContentKind {
    #[default]
    Text,
    Image,
    File,
    Audio,
    Video,
}

impl ContentKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::File => "file",
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }

    pub(crate) fn of(text: &str) -> Self {
        let all = [Self::Image, Self::File, Self::Audio, Self::Video];
        all.into_iter().find(|kind| kind.as_str() == text).unwrap_or(Self::Text)
    }
}

/// A message that somebody wants to send, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub kind: ContentKind,
    pub content: String,
    pub file_url: Option<String>,
    pub client_message_id: Option<String>,
}

/// A message as a client says it, whatever its dialect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RawDraft {
    pub(crate) kind: ContentKind,
    pub(crate) content: String,
    pub(crate) file_url: Option<String>,
    pub(crate) client_message_id: Option<String>,
}

impl Draft {
    /// Names every field that is not valid.
    pub(crate) fn parse(raw: RawDraft) -> Result<Self, Problem> {
        let RawDraft { kind, content, file_url, client_message_id } = raw;
        let mut invalid = Invalid::default();
        if content.trim().is_empty() && file_url.is_none() {
            invalid.field("content", "must not be empty");
        }
        if content.chars().count() > LONGEST_CONTENT {
            invalid.field("content", format!("may have at most {LONGEST_CONTENT} characters"));
        }
        // PostgreSQL has no text with it.
        if content.contains('\0') {
            invalid.field("content", "must not have NUL characters");
        }
        if let Some(url) = &file_url {
            let is_address = url.starts_with("https://") || url.starts_with("http://") || url.starts_with('/');
            if url.len() > LONGEST_FILE_URL || !is_address || url.chars().any(char::is_control) {
                invalid.field("file_url", format!("must be an address of at most {LONGEST_FILE_URL} bytes"));
            }
        }
        if let Some(id) = &client_message_id {
            check_client_message_id("client_message_id", id, &mut invalid);
        }
        invalid.or(Self { kind, content, file_url, client_message_id })
    }
}

/// Says of `field` if `id` cannot be a client's own name for a message.
pub(crate) fn check_client_message_id(field: &'static str, id: &str, invalid: &mut Invalid) {
    let is_printable = id.bytes().all(|byte| byte.is_ascii_graphic());
    if id.is_empty() || id.len() > LONGEST_CLIENT_MESSAGE_ID || !is_printable {
        invalid.field(field, format!("has 1 to {LONGEST_CLIENT_MESSAGE_ID} printable ASCII characters"));
    }
}

/// Whether members of a room see the e-mail addresses of who writes in it.
///
/// In the chat of a stream, which everybody may join, nobody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emails {
    Shown,
    Hidden,
}

impl Emails {
    pub(crate) fn seen_in(self, is_of_stream: bool, email: Option<String>) -> Option<String> {
        email.filter(|_| self == Self::Shown && !is_of_stream)
    }
}

/// A message that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub id: MessageId,
    pub room_id: RoomId,
    pub conversation_id: ConversationId,
    /// Within its room, from 1 without gaps.
    pub seq: i64,
    pub user_id: UserId,
    /// As it was known when the message was sent or read.
    pub user_name: Option<String>,
    /// The same, where it may be seen.
    pub user_email: Option<String>,
    pub kind: ContentKind,
    pub content: String,
    pub file_url: Option<String>,
    pub client_message_id: Option<String>,
    pub created_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        let code = RoomCode::random();
        assert_eq!(RoomCode::parse(&format!(" {} ", code.as_str().to_lowercase())), Some(code));
        for text in ["", "ABC", "ABCDEFG", "ABCDE0", "ABCDE1", "ABC DE", "ÄBCDEF"] {
            assert_eq!(RoomCode::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_message_is_named() {
        let raw = RawDraft {
            content: format!("\0{}", "a".repeat(8001)),
            file_url: Some("javascript:1".into()),
            client_message_id: Some("a b".into()),
            ..RawDraft::default()
        };
        let fields = Draft::parse(raw).unwrap_err().body()["fields"].clone();
        for name in ["content", "file_url", "client_message_id"] {
            assert!(fields.get(name).is_some(), "{name} in {fields}");
        }
        assert!(Draft::parse(RawDraft { content: " \n".into(), ..RawDraft::default() }).is_err());
        assert!(Draft::parse(RawDraft { content: "Xin chào 👋".into(), ..RawDraft::default() }).is_ok());
    }
}
