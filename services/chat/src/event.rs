//! What members of a room are told, and how each dialect says it.

use std::sync::OnceLock;

use bytes::Bytes;
use common::{RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::dialect::Dialect;
use crate::domain::Message;

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
}

/// An event on its way to many sockets: written once in each dialect, and shared.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) room_id: RoomId,
    pub(crate) event: Event,
    frames: [OnceLock<Option<Bytes>>; Dialect::COUNT],
}

impl Told {
    pub(crate) fn new(room_id: RoomId, event: Event) -> Self {
        Self { room_id, event, frames: Default::default() }
    }

    /// The number of the message that it is.
    pub(crate) fn seq(&self) -> Option<i64> {
        match &self.event {
            Event::Message(message) => Some(message.seq),
            _ => None,
        }
    }

    /// The frames that say it in `dialect`; `None`: that has no word for it.
    pub(crate) fn frame(&self, dialect: Dialect) -> Option<Bytes> {
        self.frames[dialect as usize].get_or_init(|| dialect.write(self.room_id, &self.event)).clone()
    }
}
