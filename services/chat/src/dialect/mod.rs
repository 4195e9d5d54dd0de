//! Three ways to speak of the same rooms. A dialect is a codec and nothing more.

mod rooms;

use bytes::Bytes;
use common::RoomId;

use crate::event::Event;
use crate::session::{Command, Reply};

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `/api/v1/chat/ws`, of 003.
    Rooms,
}

impl Dialect {
    pub(crate) const COUNT: usize = 1;

    /// What a client says; or why that is not understood, in words.
    pub(crate) fn read(self, text: &[u8]) -> Result<Command, String> {
        match self {
            Self::Rooms => rooms::read(text),
        }
    }

    /// The frame that tells of `event`, if the dialect has a word for it.
    pub(crate) fn write(self, room_id: RoomId, event: &Event) -> Option<Bytes> {
        match self {
            Self::Rooms => rooms::write(room_id, event),
        }
    }

    /// The frame that answers a client, if the dialect has a word for it.
    pub(crate) fn write_reply(self, reply: &Reply) -> Option<Bytes> {
        match self {
            Self::Rooms => rooms::write_reply(reply),
        }
    }
}
