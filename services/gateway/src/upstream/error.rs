//! What can go wrong between the gateway and an upstream.

use std::io;
use std::time::Duration;

use actix_web::error::PayloadError;

use super::framing::Malformed;

/// Why an upstream's answer did not come, or did not come whole.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// There is no connection, so nothing was sent.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// The upstream closed the connection before the whole answer had come.
    #[error("the answer broke off")]
    BrokenOff(#[source] Option<io::Error>),
    /// The upstream neither took nor sent anything for too long.
    #[error("silent for {0:?}")]
    Silent(Duration),
    /// The answer is not HTTP as we understand it.
    #[error("{0}")]
    Malformed(&'static str),
    /// The answer has more than this many bytes, which is more than its reader takes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The client sent nothing more of its request's body for too long.
    #[error("the client's request body stopped coming for {0:?}")]
    Stalled(Duration),
    /// The body of the client's request did not come whole, or not well-formed.
    #[error("the client's request body broke off")]
    Client(#[source] PayloadError),
}

impl From<Malformed> for UpstreamError {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Malformed(what)
    }
}
