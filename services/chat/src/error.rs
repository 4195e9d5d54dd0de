//! What can go wrong, and what a client sees of it.

use std::fmt::Display;
use std::time::Duration;

use chassis::db;
use common::{Invalid, Problem, RoomId, UserId};
use diesel_async::pooled_connection::deadpool::PoolError;

common::problems! {
    /// There is no such room, or you are not a member of it: which of the two is told to nobody. A group that is not public is
    /// joined with its code.
    NO_SUCH_ROOM = 404 "no-such-room" "No such room";
    /// No room has this code.
    NO_SUCH_CODE = 404 "no-such-code" "No such code";
    /// Nothing is said in this room any more: its stream has ended.
    ROOM_CLOSED = 409 "room-closed" "Room closed";
    /// A room of the kind `direct` is its two users' for good: nobody joins or leaves it.
    NOT_A_GROUP = 409 "not-a-group" "Not a group";
    /// There is no user with this id.
    NO_SUCH_USER = 404 "no-such-user" "No such user";
    /// You must join a room before you speak in it.
    NOT_JOINED = 409 "not-joined" "Not joined";
    /// A connection has at most 1,000 rooms open.
    TOO_MANY_ROOMS = 409 "too-many-rooms" "Too many rooms";
    /// More messages wait than can be stored soon.
    TOO_BUSY = 503 "too-busy" "Too busy";
    /// You write, or guess, faster than is allowed.
    TOO_FAST = 429 "too-fast" "Too fast";
}

#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    #[error("there is no room {0}, or you are not a member of it")]
    NoSuchRoom(RoomId),
    #[error("there is no room {0} that you may join by its id: a group is joined with its code")]
    NotJoinedById(RoomId),
    #[error("there is no such room, or you are not a member of it")]
    NotInRoom,
    #[error("You must join the room first")]
    NotJoined,
    #[error("a connection has at most 1,000 rooms open: leave one first")]
    TooManyRooms,
    #[error("no room has this code")]
    NoSuchCode,
    #[error("room {0} is its two users' for good")]
    NotAGroup(RoomId),
    #[error("room {0} can be read, and takes no messages: its stream has ended")]
    RoomClosed(RoomId),
    #[error("there is no user {0}")]
    NoSuchUser(UserId),
    #[error("too many messages wait")]
    Busy,
    #[error("the database was away")]
    Away,
    #[error("wait {} s", .0.as_secs_f64().ceil())]
    TooFast(Duration),
    #[error(transparent)]
    Invalid(#[from] Problem),
    #[error("the database failed")]
    Database(#[from] diesel::result::Error),
    #[error("no database connection was free")]
    Pool(#[from] PoolError),
}

/// A field has a value that is not allowed.
pub(crate) fn invalid(field: &'static str, reason: impl Display) -> ChatError {
    let mut invalid = Invalid::default();
    invalid.field(field, reason);
    invalid.problem().into()
}

impl From<ChatError> for Problem {
    fn from(error: ChatError) -> Self {
        match error {
            ChatError::NoSuchRoom(_) | ChatError::NotJoinedById(_) | ChatError::NotInRoom => NO_SUCH_ROOM.say(&error),
            ChatError::NotJoined => NOT_JOINED.say(&error),
            ChatError::TooManyRooms => TOO_MANY_ROOMS.say(&error),
            ChatError::NoSuchCode => NO_SUCH_CODE.say(&error),
            ChatError::NotAGroup(_) => NOT_A_GROUP.say(&error),
            ChatError::RoomClosed(_) => ROOM_CLOSED.say(&error),
            ChatError::NoSuchUser(_) => NO_SUCH_USER.say(&error),
            ChatError::Busy => TOO_BUSY.say(&error).retry_after(Duration::from_secs(1)),
            ChatError::Away => Self::unavailable(Duration::from_secs(1), error),
            ChatError::TooFast(wait) => TOO_FAST.say(&error).retry_after(wait),
            ChatError::Invalid(problem) => problem,
            ChatError::Database(error) => db::query_problem(error),
            ChatError::Pool(error) => db::pool_problem(error),
        }
    }
}

impl From<ChatError> for actix_web::Error {
    fn from(error: ChatError) -> Self {
        Problem::from(error).into()
    }
}
