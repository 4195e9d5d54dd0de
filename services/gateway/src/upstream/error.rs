//! What can go wrong between the gateway and an upstream.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_web::error::PayloadError;

use super::framing::Malformed;

/// Why an upstream's answer did not come, or did not come whole; and which of its instances was asked, for the log.
#[derive(Debug, thiserror::Error)]
#[error("{}", asked(.instance))]
pub struct UpstreamError {
    /// `None`: none was.
    pub instance: Option<SocketAddr>,
    #[source]
    pub fault: Fault,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No instance may be asked: those that are known have failed too often, or are leaving, or there are none.
    #[error("no instance may be asked for {retry_after:?}")]
    NoInstance {
        /// When the next one may be, at the soonest.
        retry_after: Duration,
    },
    /// There is no connection, so nothing was sent.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// The upstream closed the connection before the whole answer had come. `None`: in an orderly way.
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

impl Fault {
    /// Whether it speaks against the instance that was asked, if it came before an answer: a slow client does not, and
    /// neither does an answer that one path alone may have made crooked.
    pub(super) fn is_the_instances(&self) -> bool {
        match self {
            Self::Connect(_) | Self::BrokenOff(_) | Self::Silent(_) => true,
            Self::NoInstance { .. } | Self::Malformed(_) | Self::TooLarge(_) | Self::Stalled(_) | Self::Client(_) => {
                false
            }
        }
    }

    pub(super) fn at(self, instance: SocketAddr) -> UpstreamError {
        UpstreamError { instance: Some(instance), fault: self }
    }
}

impl From<Fault> for UpstreamError {
    fn from(fault: Fault) -> Self {
        Self { instance: None, fault }
    }
}

impl From<Malformed> for Fault {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Malformed(what)
    }
}

fn asked(instance: &Option<SocketAddr>) -> String {
    instance.map_or_else(|| "no instance was asked".to_owned(), |instance| format!("instance {instance}"))
}
