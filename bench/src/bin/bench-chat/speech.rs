//! How each server is spoken to.

use crate::client::{User, frame_of};

/// How long a message is, in bytes.
pub(crate) const SIZE: usize = 100;
/// What stands before its number in each message.
const MARK: &[u8] = b"bench-";
const DIGITS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    /// What one says in a channel, all hear as it is: nchan and ws.
    Plain,
    /// Our dialect of rooms.
    Rooms,
    /// Socket.IO, ours or theirs.
    SocketIo,
}

/// Whether a frame is the one that is waited for.
pub(crate) type IsIt = fn(&[u8]) -> bool;

impl Speech {
    pub(crate) fn path(self, user: &User, room: usize) -> String {
        match self {
            Self::Plain => format!("/?room_id={room}"),
            Self::Rooms => format!("/api/v1/chat/ws?token={}", user.token),
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket".to_owned(),
        }
    }

    /// What a client says first, and how that is answered.
    pub(crate) fn hello(self, user: &User) -> Option<(Vec<u8>, IsIt)> {
        let answer: IsIt = |frame| frame.starts_with(b"40{");
        (self == Self::SocketIo).then(|| (frame_of(&format!("40{{\"token\":\"{}\"}}", user.token)), answer))
    }

    pub(crate) fn join(self, room: usize, since: Option<i64>) -> Option<Vec<u8>> {
        let since = since.map(|since| format!(",\"since\":{since}")).unwrap_or_default();
        match self {
            Self::Plain => None,
            Self::Rooms => Some(frame_of(&format!("{{\"type\":\"join_room\",\"room_id\":{room}{since}}}"))),
            Self::SocketIo => Some(frame_of(&format!("420[\"join\",{{\"roomId\":{room}{since}}}]"))),
        }
    }

    pub(crate) fn is_joined(self, frame: &[u8]) -> bool {
        match self {
            Self::Plain => false,
            Self::Rooms => memchr::memmem::find(frame, b"\"type\":\"joined\"").is_some(),
            Self::SocketIo => frame.starts_with(b"430["),
        }
    }

    pub(crate) fn message(self, room: usize, number: usize) -> Vec<u8> {
        let text = format!("bench-{number:0DIGITS$}-{:x<1$}", "", SIZE - MARK.len() - DIGITS - 1);
        match self {
            Self::Plain => frame_of(&text),
            Self::Rooms => {
                frame_of(&format!("{{\"type\":\"send_message\",\"room_id\":{room},\"content\":\"{text}\"}}"))
            }
            Self::SocketIo => frame_of(&format!("42[\"chat_message\",{{\"roomId\":{room},\"message\":\"{text}\"}}]")),
        }
    }

    /// Whether it says that a message of the client's own is stored.
    pub(crate) fn is_ack(frame: &[u8]) -> bool {
        memchr::memmem::find(frame, b"\"type\":\"ack\"").is_some()
    }

    /// The number of the message in this frame, if it is one.
    pub(crate) fn number(frame: &[u8]) -> Option<usize> {
        let at = memchr::memmem::find(frame, MARK)? + MARK.len();
        std::str::from_utf8(frame.get(at..at + DIGITS)?).ok()?.parse().ok()
    }
}

/// The number that stands behind `"seq":`.
pub(crate) fn seq(frame: &[u8]) -> Option<i64> {
    const NAME: &[u8] = b"\"seq\":";
    let at = memchr::memmem::find(frame, NAME)? + NAME.len();
    let digits = frame[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&frame[at..at + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_long_as_they_say_and_have_their_number() {
        for speech in [Speech::Plain, Speech::Rooms, Speech::SocketIo] {
            assert_eq!(Speech::number(&speech.message(7, 42)), Some(42));
        }
        assert_eq!(Speech::Plain.message(1, 1).len(), 2 + 4 + SIZE);
        assert_eq!(seq(br#"{"seq":120,"type":"joined"}"#), Some(120));
    }
}
