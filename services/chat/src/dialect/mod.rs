//! Three ways to speak of the same rooms. A dialect is a codec and nothing more.

mod rooms;
pub(crate) mod socket_io;

use bytes::Bytes;
use common::RoomId;

use crate::event::Event;
use crate::session::{Command, Reply, Unread};

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `/api/v1/chat/ws`, of 003.
    Rooms,
    /// Socket.IO at `/socket.io/`, of 002.
    SocketIo,
}

impl Dialect {
    pub(crate) const COUNT: usize = 2;

    /// What a client says; or why that is not understood.
    pub(crate) fn read(self, text: &[u8]) -> Result<Command, Unread> {
        match self {
            Self::Rooms => rooms::read(text).map_err(Unread::from),
            Self::SocketIo => socket_io::read(text),
        }
    }

    /// The frame that tells of `event`, if the dialect has a word for it.
    pub(crate) fn write(self, room_id: RoomId, event: &Event) -> Option<Bytes> {
        match self {
            Self::Rooms => rooms::write(room_id, event),
            Self::SocketIo => socket_io::write(room_id, event),
        }
    }

    /// The frame that answers a client, if the dialect has a word for it.
    pub(crate) fn write_reply(self, reply: &Reply) -> Option<Bytes> {
        match self {
            Self::Rooms => rooms::write_reply(reply),
            Self::SocketIo => socket_io::write_reply(reply),
        }
    }
}
