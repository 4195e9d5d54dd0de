//! The body of an answer, from whomever it is.

use std::error::Error;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use bytes::Bytes;
use common::{Verified, Verifier};
use futures_util::future::LocalBoxFuture;

use crate::unread::Unread;
use crate::upstream;

/// A body that goes to a client.
pub enum Answer {
    /// Ours: a page or a problem.
    Own(BoxBody),
    /// A service's.
    Upstream(upstream::Body),
    /// A service's that goes on for as long as the session of its reader.
    Watched(Box<Watched>),
    /// One of these, and the body of the request it answers.
    Holding(Box<Answer>, Unread),
}

/// A body that breaks off when a session ends.
pub struct Watched {
    body: upstream::Body,
    ended: LocalBoxFuture<'static, ()>,
}

/// The session of whoever reads has ended.
#[derive(Debug, thiserror::Error)]
#[error("the session has ended")]
struct SessionEnded;

impl Answer {
    /// `body`, which breaks off when the session of `reader` ends. One that is here whole does not.
    #[must_use]
    pub fn read_by(reader: Option<&Verified>, verifier: &Verifier, body: upstream::Body) -> Self {
        match (body, reader) {
            (body @ upstream::Body::Stream(_), Some(reader)) => {
                let watch = verifier.watch(reader.claims.sid);
                let ended = Box::pin(async move { watch.ended().await });
                Self::Watched(Box::new(Watched { body, ended }))
            }
            (body, _) => Self::Upstream(body),
        }
    }
}

impl MessageBody for Answer {
    type Error = Box<dyn Error>;

    fn size(&self) -> BodySize {
        match self {
            Self::Own(body) => body.size(),
            Self::Upstream(body) => body.size(),
            Self::Watched(watched) => watched.body.size(),
            Self::Holding(answer, _) => answer.size(),
        }
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match self.get_mut() {
            Self::Own(body) => pin!(body).poll_next(cx),
            Self::Upstream(body) => Pin::new(body).poll_next(cx).map_err(Into::into),
            Self::Watched(watched) => {
                if watched.ended.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Some(Err(SessionEnded.into())));
                }
                Pin::new(&mut watched.body).poll_next(cx).map_err(Into::into)
            }
            Self::Holding(answer, _) => Pin::new(&mut **answer).poll_next(cx),
        }
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        match self {
            Self::Own(body) => body.try_into_bytes().map_err(Self::Own),
            Self::Upstream(body) => body.try_into_bytes().map_err(Self::Upstream),
            other => Err(other),
        }
    }
}
