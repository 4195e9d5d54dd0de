//! What can go wrong, and what a client sees of it.

use chassis::db;
use common::{Problem, StreamId};
use diesel_async::pooled_connection::deadpool::PoolError;

common::problems! {
    /// There is no stream with this id.
    NO_SUCH_STREAM = 404 "no-such-stream" "No such stream";
    /// Only its owner may change a stream.
    NOT_YOUR_STREAM = 403 "not-your-stream" "Not your stream";
    /// A media server's callback did not show the secret `WEBHOOK_SECRET`. Both must be configured alike.
    WEBHOOK_SECRET_WRONG = 401 "webhook-secret-wrong" "Webhook secret wrong";
    /// The encoder published with a key that belongs to no stream. The media server refuses it because of this answer.
    WRONG_STREAM_KEY = 403 "wrong-stream-key" "Wrong stream key";
    /// Another encoder is on air with this key. It goes on; this one is refused.
    ALREADY_LIVE = 409 "already-live" "Already live";
    /// This broadcast has ended on our side; the media server disconnects the encoder because of this answer.
    BROADCAST_ENDED = 403 "broadcast-ended" "Broadcast ended";
}

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("there is no stream {0}")]
    NoSuchStream(StreamId),
    #[error("stream {0} belongs to somebody else")]
    NotYours(StreamId),
    #[error("the callback did not show the webhook secret")]
    WrongSecret,
    #[error("no stream has this key")]
    WrongKey,
    #[error("nothing is played under this name")]
    NoSuchPlayback,
    #[error("stream {0} is live from another encoder")]
    AlreadyLive(StreamId),
    #[error("this broadcast of stream {0} has ended")]
    BroadcastEnded(StreamId),
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
            StreamError::NoSuchStream(_) | StreamError::NoSuchPlayback => NO_SUCH_STREAM.say(&error),
            StreamError::NotYours(_) => NOT_YOUR_STREAM.say(&error),
            StreamError::WrongSecret => WEBHOOK_SECRET_WRONG.say(&error),
            StreamError::WrongKey => WRONG_STREAM_KEY.say(&error),
            StreamError::AlreadyLive(_) => ALREADY_LIVE.say(&error),
            StreamError::BroadcastEnded(_) => BROADCAST_ENDED.say(&error),
            StreamError::Invalid(problem) => problem,
            StreamError::Database(error) => db::query_problem(error),
            StreamError::Pool(error) => db::pool_problem(error),
            StreamError::Json(error) => Self::internal(error),
        }
    }
}

impl From<StreamError> for actix_web::Error {
    fn from(error: StreamError) -> Self {
        Problem::from(error).into()
    }
}
