//! Three ways to speak of the same rooms. A dialect is a codec and nothing more.

mod conversations;
mod rooms;
pub(crate) mod socket_io;

use bytes::Bytes;

use crate::domain::Place;
use crate::event::Event;
use crate::session::{Command, Reply, RoomRef, Unread};

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `/api/v1/chat/ws`, of 003.
    Rooms,
    /// `/ws/chat`, of 004.
    Conversations,
    /// Socket.IO at `/socket.io/`, of 002.
    SocketIo,
}

impl Dialect {
    pub(crate) const COUNT: usize = 3;

    /// Whether a connection hears all rooms of its user, and joins none by itself.
    pub(crate) fn hears_all_rooms(self) -> bool {
        self == Self::Conversations
    }

    /// What the dialect calls the room.
    pub(crate) fn name_of(self, place: Place) -> RoomRef {
        match self {
            Self::Rooms => RoomRef::Id(place.room_id),
            Self::SocketIo => place.stream_id.map_or(RoomRef::Id(place.room_id), RoomRef::Stream),
            Self::Conversations => RoomRef::Conversation(place.conversation_id),
        }
    }

    /// What a client says; or why that is not understood.
    pub(crate) fn read(self, text: &[u8]) -> Result<Command, Unread> {
        match self {
            Self::Rooms => rooms::read(text).map_err(Unread::from),
            Self::SocketIo => socket_io::read(text),
            Self::Conversations => conversations::read(text).map_err(Unread::from),
        }
    }

    /// The frame that tells of `event`, if the dialect has a word for it.
    pub(crate) fn write(self, place: Place, event: &Event) -> Option<Bytes> {
        match self {
            Self::Rooms => rooms::write(place.room_id, event),
            Self::Conversations => conversations::write(place.conversation_id, event),
            Self::SocketIo => socket_io::write(place, event),
        }
    }

    /// The frame that answers a client, if the dialect has a word for it.
    pub(crate) fn write_reply(self, reply: &Reply) -> Option<Bytes> {
        match self {
            Self::Rooms => rooms::write_reply(reply),
            Self::Conversations => conversations::write_reply(reply),
            Self::SocketIo => socket_io::write_reply(reply),
        }
    }
}
