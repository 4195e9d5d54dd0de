//! The body of an answer, from whomever it is.

use std::error::Error;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use bytes::Bytes;
use common::{Verified, Verifier};
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, select};
use tokio_util::sync::CancellationToken;

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

/// A body that breaks off when a session ends, or ends when this instance stops.
pub struct Watched {
    body: upstream::Body,
    ended: LocalBoxFuture<'static, End>,
}

/// Why a body does not go on.
enum End {
    Session,
    Stopping,
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
                let ended = Box::pin(async move {
                    watch.ended().await;
                    End::Session
                });
                Self::Watched(Box::new(Watched { body, ended }))
            }
            (body, _) => Self::Upstream(body),
        }
    }

    /// The same, if it is one without an end (server-sent events), until `stopping`: its reader comes back by itself, and
    /// would be waited for otherwise.
    #[must_use]
    pub fn until(self, stopping: &CancellationToken) -> Self {
        let stopping = stopping.clone().cancelled_owned().map(|()| End::Stopping);
        match self {
            Self::Upstream(body) => Self::Watched(Box::new(Watched { body, ended: Box::pin(stopping) })),
            Self::Watched(watched) => {
                let Watched { body, ended } = *watched;
                let ended = select(ended, Box::pin(stopping)).map(|ended| ended.factor_first().0);
                Self::Watched(Box::new(Watched { body, ended: Box::pin(ended) }))
            }
            other => other,
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
                match watched.ended.as_mut().poll(cx) {
                    Poll::Ready(End::Session) => return Poll::Ready(Some(Err(SessionEnded.into()))),
                    Poll::Ready(End::Stopping) => return Poll::Ready(None),
                    Poll::Pending => {}
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
