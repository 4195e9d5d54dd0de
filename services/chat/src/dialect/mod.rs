//! Three ways to speak of the same rooms. A dialect is a codec and nothing more.

mod conversations;
mod rooms;

use bytes::Bytes;

use crate::domain::Place;
use crate::event::Event;
use crate::session::{Command, Reply, RoomRef};

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `/api/v1/chat/ws`, of 003.
    Rooms,
    /// `/ws/chat`, of 004.
    Conversations,
}

impl Dialect {
    pub(crate) const COUNT: usize = 2;

    /// Whether a connection hears all rooms of its user, and joins none by itself.
    pub(crate) fn hears_all_rooms(self) -> bool {
        self == Self::Conversations
    }

    /// What the dialect calls the room.
    pub(crate) fn name_of(self, place: Place) -> RoomRef {
        match self {
            Self::Rooms => RoomRef::Id(place.room_id),
            Self::Conversations => RoomRef::Conversation(place.conversation_id),
        }
    }

    /// What a client says; or why that is not understood, in words.
    pub(crate) fn read(self, text: &[u8]) -> Result<Command, String> {
        match self {
            Self::Rooms => rooms::read(text),
            Self::Conversations => conversations::read(text),
        }
    }

    /// The frame that tells of `event`, if the dialect has a word for it.
    pub(crate) fn write(self, place: Place, event: &Event) -> Option<Bytes> {
        match self {
            Self::Rooms => rooms::write(place.room_id, event),
            Self::Conversations => conversations::write(place.conversation_id, event),
        }
    }

    /// The frame that answers a client, if the dialect has a word for it.
    pub(crate) fn write_reply(self, reply: &Reply) -> Option<Bytes> {
        match self {
            Self::Rooms => rooms::write_reply(reply),
            Self::Conversations => conversations::write_reply(reply),
        }
    }
}
