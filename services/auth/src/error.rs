//! What can go wrong, and what a client sees of it.

use std::time::Duration;

use chassis::db;
use common::Problem;
use common::problem::kinds;
use diesel_async::pooled_connection::deadpool::PoolError;

common::problems! {
    /// Somebody has registered with this e-mail address. Log in, or register with another.
    EMAIL_TAKEN = 409 "email-taken" "E-mail address taken";
    /// No account has this e-mail address and this password. Which of the two is wrong is not told.
    BAD_CREDENTIALS = 401 "bad-credentials" "E-mail address or password wrong";
    /// The token was good, but its session has ended: logged out here or elsewhere. Log in again.
    SESSION_ENDED = 401 "session-ended" "Session ended";
}

#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("the e-mail address is taken")]
    EmailTaken,
    #[error("the e-mail address or the password is wrong")]
    BadCredentials,
    #[error("the session has ended; log in again")]
    SessionEnded,
    #[error(transparent)]
    Invalid(#[from] Problem),
    #[error("too many passwords are waiting to be checked")]
    Busy,
    #[error("a password could not be hashed")]
    Hash(#[source] argon2::password_hash::Error),
    #[error("a token could not be signed")]
    Sign(#[from] jsonwebtoken::errors::Error),
    #[error("a task ended early")]
    Task(#[from] tokio::task::JoinError),
    #[error("the database failed")]
    Database(#[from] diesel::result::Error),
    #[error("no database connection was free")]
    Pool(#[from] PoolError),
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::EmailTaken => EMAIL_TAKEN.say(&error),
            AuthError::BadCredentials => BAD_CREDENTIALS.say(&error),
            AuthError::SessionEnded => SESSION_ENDED.say(&error),
            AuthError::Invalid(problem) => problem,
            AuthError::Busy => kinds::UNAVAILABLE
                .say("many logins are waiting; try again")
                .retry_after(Duration::from_secs(2))
                .caused_by(error),
            AuthError::Hash(_) | AuthError::Sign(_) | AuthError::Task(_) => Self::internal(error),
            AuthError::Database(error) => db::query_problem(error),
            AuthError::Pool(error) => db::pool_problem(error),
        }
    }
}

impl From<AuthError> for actix_web::Error {
    fn from(error: AuthError) -> Self {
        Problem::from(error).into()
    }
}
