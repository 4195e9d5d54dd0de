//! What can go wrong, and what a client sees of it.

use std::time::Duration;

use chassis::db;
use common::problem::kinds;
use common::{Kind, Problem, StreamId, UserId};
use diesel_async::pooled_connection::deadpool::PoolError;

use crate::dialect::NoCall;
use crate::domain::StreamName;
use crate::machine::Refusal;

common::problems! {
    /// There is no stream with this id.
    NO_SUCH_STREAM = 404 "no-such-stream" "No such stream";
    /// Only its owner may change a stream.
    NOT_YOUR_STREAM = 403 "not-your-stream" "Not your stream";
    /// A media server's callback did not prove where it comes from: it shows `WEBHOOK_SECRET` (or `WEBHOOK_SECRET_NEXT`), is
    /// signed with it (`X-Webhook-Signature: sha256=<HMAC-SHA256 of the body, hexadecimal>`), or comes from
    /// `WEBHOOK_ADDRESSES`. A signature that is there has to be right, whatever else is shown.
    WEBHOOK_SECRET_WRONG = 401 "webhook-secret-wrong" "Webhook secret wrong";
    /// The encoder published with a key that belongs to no stream. The media server refuses it because of this answer.
    WRONG_STREAM_KEY = 403 "wrong-stream-key" "Wrong stream key";
    /// Another encoder is on air with this key. It goes on; this one is refused.
    ALREADY_LIVE = 409 "already-live" "Already live";
    /// This broadcast has ended on our side; the media server disconnects the encoder because of this answer.
    BROADCAST_ENDED = 403 "broadcast-ended" "Broadcast ended";
    /// The broadcast was ended by order a moment ago (`PUBLISH_HOLD`). The encoder may try again later.
    SENT_AWAY = 403 "sent-away" "Sent away";
    /// This media server shows viewers the name that an encoder publishes under. Publish as `<playbackId>?key=<stream key>`.
    NOT_ITS_NAME = 403 "not-its-name" "Not its name";
    /// More calls of media servers wait than can be settled soon.
    TOO_BUSY = 503 "too-busy" "Too busy";
    /// The stream has no key with this id.
    NO_SUCH_KEY = 404 "no-such-key" "No such key";
    /// A stream has no more keys than this. Revoke one that is not used any more.
    TOO_MANY_KEYS = 409 "too-many-keys" "Too many keys";
    /// A stream cannot become private while it is on air, or may still come back: viewers know its address. End it first.
    STREAM_LIVE = 409 "stream-live" "Stream is live";
    /// The stream is off the air: nobody publishes to it, and nobody watches it.
    NOT_LIVE = 409 "not-live" "Not live";
    /// The encoder published without a stream key. MediaMTX asks its user for one because of this answer.
    STREAM_KEY_MISSING = 401 "stream-key-missing" "Stream key missing";
    /// The call of a media server is not kept, or not any more: the last `WEBHOOK_LOG` are.
    NO_SUCH_CALL = 404 "no-such-call" "No such call";
    /// Nothing followed from this call of a media server, so there is nothing to try again. Its verdict says why.
    NOTHING_TO_REPLAY = 409 "nothing-to-replay" "Nothing to replay";
    /// There is no user with this id, and so no channel.
    NO_SUCH_CHANNEL = 404 "no-such-channel" "No such channel";
    /// No picture was taken of this stream yet: it was not live for long enough, or not at all.
    NO_THUMBNAIL = 404 "no-thumbnail" "No thumbnail";
}

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("there is no stream {0}")]
    NoSuchStream(StreamId),
    #[error("stream {0} belongs to somebody else")]
    NotYours(StreamId),
    #[error("{0}")]
    WrongSecret(&'static str),
    /// A media server's call, refused by the rules of going live: why, in words.
    #[error("{1}")]
    Refused(Refusal, String),
    #[error("too many calls wait")]
    Busy,
    #[error("the database was away")]
    Away,
    #[error("the stream has no such key")]
    NoSuchKey,
    #[error("there is no stream {0}")]
    NoSuchName(StreamName),
    #[error("only administrators may do this")]
    NotAdministrator,
    #[error("a stream has at most {0} keys: revoke one first")]
    TooManyKeys(usize),
    #[error("stream {0} is live, or may still come back: end it first")]
    Live(StreamId),
    #[error("nobody publishes to stream {0}")]
    NotLive(StreamId),
    #[error("{0}")]
    NoCall(#[from] NoCall),
    #[error("call {0} is not kept")]
    NoSuchCall(i64),
    #[error("nothing followed from call {0}, so there is nothing to try again")]
    NothingToReplay(i64),
    #[error("the stream is off the air")]
    OffAir,
    #[error("there is no user {0}")]
    NoSuchChannel(UserId),
    #[error("no picture was taken of this stream yet")]
    NoThumbnail,
    #[error(transparent)]
    Invalid(#[from] Problem),
    #[error("the database failed")]
    Database(#[from] diesel::result::Error),
    #[error("no database connection was free")]
    Pool(#[from] PoolError),
    #[error("an answer could not be written")]
    Json(#[from] serde_json::Error),
}

impl From<StreamError> for Problem {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::NoSuchStream(_) => NO_SUCH_STREAM.say(&error),
            StreamError::NotYours(_) => NOT_YOUR_STREAM.say(&error),
            StreamError::WrongSecret(_) => WEBHOOK_SECRET_WRONG.say(&error),
            StreamError::Refused(refusal, _) => kind_of(refusal).say(&error),
            StreamError::Busy => TOO_BUSY.say(&error).retry_after(Duration::from_secs(1)),
            StreamError::Away => Self::unavailable(Duration::from_secs(1), error),
            StreamError::NoSuchKey => NO_SUCH_KEY.say(&error),
            StreamError::NoSuchName(_) => NO_SUCH_STREAM.say(&error),
            StreamError::NotAdministrator => kinds::FORBIDDEN.say(&error),
            StreamError::TooManyKeys(most) => TOO_MANY_KEYS.say(&error).with("most", most),
            StreamError::Live(_) => STREAM_LIVE.say(&error),
            StreamError::NotLive(_) => NOT_LIVE.say(&error),
            StreamError::NoCall(NoCall::NoKey) => STREAM_KEY_MISSING.say(&error),
            StreamError::NoCall(NoCall::NotOurs) => kinds::FORBIDDEN.say(&error),
            StreamError::NoCall(_) => kinds::BAD_REQUEST.say(&error),
            StreamError::NoSuchCall(_) => NO_SUCH_CALL.say(&error),
            StreamError::NothingToReplay(_) => NOTHING_TO_REPLAY.say(&error),
            StreamError::OffAir => NOT_LIVE.say(&error),
            StreamError::NoSuchChannel(_) => NO_SUCH_CHANNEL.say(&error),
            StreamError::NoThumbnail => NO_THUMBNAIL.say(&error),
            StreamError::Invalid(problem) => problem,
            StreamError::Database(error) => db::query_problem(error),
            StreamError::Pool(error) => db::pool_problem(error),
            StreamError::Json(error) => Self::internal(error),
        }
    }
}

pub(crate) fn kind_of(refusal: Refusal) -> Kind {
    match refusal {
        Refusal::WrongKey => WRONG_STREAM_KEY,
        Refusal::AlreadyLive => ALREADY_LIVE,
        Refusal::BroadcastEnded => BROADCAST_ENDED,
        Refusal::SentAway => SENT_AWAY,
        Refusal::NotItsName => NOT_ITS_NAME,
        Refusal::NoSuchPlayback => NO_SUCH_STREAM,
    }
}

impl From<StreamError> for actix_web::Error {
    fn from(error: StreamError) -> Self {
        Problem::from(error).into()
    }
}
