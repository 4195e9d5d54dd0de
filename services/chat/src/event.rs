//! What members of a room are told, and how each dialect says it.

use std::sync::OnceLock;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use common::{MessageId, UserId};
use serde::{Deserialize, Serialize};

use crate::dialect::Dialect;
use crate::domain::{Message, Place};

/// Something that happened in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A message was stored. In the order of its number.
    Message(Message),
    /// A user has opened the room somewhere.
    Joined { user_id: UserId },
    /// A user has closed the room everywhere.
    Left { user_id: UserId },
    /// A user is a member no more: whoever has the room open for them closes it.
    Removed { user_id: UserId },
    /// So many have the room open: a crowd, which is not told who comes and goes; or one no longer.
    Online { count: usize },
    /// The room is no more: whoever has it open is in it no longer.
    Deleted,
    /// A user is typing, or is no more. Nothing that the user's own connections are told.
    Typing { user_id: UserId, is_typing: bool },
    /// A user has read all up to this message.
    Read { user_id: UserId, seq: i64, message_id: MessageId, at: DateTime<Utc> },
}

/// An event on its way to many sockets: written once in each dialect, and shared.
#[derive(Debug)]
pub(crate) struct Told {
    place: Place,
    pub(crate) event: Event,
    frames: [OnceLock<Option<Bytes>>; Dialect::COUNT],
}

impl Told {
    pub(crate) fn new(place: Place, event: Event) -> Self {
        Self { place, event, frames: Default::default() }
    }

    /// The number of the message that it is.
    pub(crate) fn seq(&self) -> Option<i64> {
        match &self.event {
            Event::Message(message) => Some(message.seq),
            _ => None,
        }
    }

    /// About how many bytes it takes here.
    pub(crate) fn size(&self) -> usize {
        let content = match &self.event {
            Event::Message(message) => message.content.len(),
            _ => 0,
        };
        // The content also stands in the frames, in one twice.
        size_of::<Self>() + 5 * content
    }

    pub(crate) fn is_hidden_from(&self, user_id: UserId) -> bool {
        matches!(self.event, Event::Typing { user_id: who, .. } if who == user_id)
    }

    /// The frames that say it in `dialect`; `None`: that has no word for it.
    pub(crate) fn frame(&self, dialect: Dialect) -> Option<Bytes> {
        self.frames[dialect as usize].get_or_init(|| dialect.write(self.place, &self.event)).clone()
    }
}
