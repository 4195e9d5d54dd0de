//! Three ways to speak of the same rooms. A dialect is a codec and nothing more.

pub(crate) mod rooms;

use bytes::Bytes;
use common::RoomId;

use crate::event::Event;

/// How a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `/api/v1/chat/ws`, of 003.
    Rooms,
}

impl Dialect {
    pub(crate) const COUNT: usize = 1;

    /// The frame that tells of `event`, if the dialect has a word for it.
    pub(crate) fn write(self, room_id: RoomId, event: &Event) -> Option<Bytes> {
        match self {
            Self::Rooms => rooms::write(room_id, event),
        }
    }
}
