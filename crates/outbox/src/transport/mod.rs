//! What carries events from a relay to consumers: RabbitMQ, or a broker kept in PostgreSQL.
//!
//! Both keep the same promises: an event counts as published when it is stored durably in every queue that takes
//! it; a queue keeps the order of publishing; it gives an event to one consumer at a time and keeps it until the
//! consumer settles it or is gone; what was parked stays until it is replayed.
//!
//! The first promise ends where somebody deletes a queue of RabbitMQ: what the queue held is gone, and what is
//! published before it is there again reaches the other queues alone. A consumer that runs makes its queue anew at
//! once, every relay within a minute. An event that only the deleted queue would have taken waits for that.

mod amqp;
mod local;

use std::time::Duration;

use chrono::{DateTime, Utc};
use common::{Clock, EventId, SystemClock};
use events::Envelope;
use serde_json::Value;
use tokio::time::timeout;

pub use amqp::{Amqp, AmqpOptions};
pub use local::Local;

use crate::inbox::REPLAY_WITHIN;
use crate::listen::NoConnection;

/// How long the broker may take to answer: a connection, a declaration, a whole batch of events.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The most of a reason that is kept. RabbitMQ carries it in a header, and a header larger than a frame ends the
/// connection.
const REASON_BYTES_AT_MOST: usize = 1024;

/// How often a queue gives an event to consumers that then stop, crash or lose their connection, before it parks it:
/// what brings a process down shall not do so for ever.
///
/// It is generous, because a consumer that is restarted while it waits for its database is no fault of the event.
pub const DELIVERY_LIMIT: u32 = 50;

/// The most parked events that are listed per queue.
pub const LIST_AT_MOST: usize = 1000;

/// The most events that wait for somebody who watches; the oldest are dropped first.
const TAIL_AT_MOST: u32 = 10_000;

/// One way to carry events. Cheap to clone; clones share connections.
#[derive(Clone)]
pub enum Transport {
    Amqp(Amqp),
    Local(Local),
}

/// Why the transport did not do what was asked. Whatever was asked may be asked again.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("the broker's address cannot be read: expected amqp://user:password@host:port/vhost")]
    Address,
    #[error("there is no connection to the broker")]
    NotConnected,
    #[error("the broker failed: {0}")]
    Amqp(#[from] lapin::Error),
    #[error("the broker did not answer within {0} s")]
    Timeout(u64),
    #[error("the broker refused: {0}")]
    Refused(String),
    #[error("the broker ended the subscription to {0}")]
    Unsubscribed(String),
    #[error("there is no queue {0}")]
    NoSuchQueue(String),
    #[error("an event cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    NoConnection(#[from] NoConnection),
    #[error("the database failed: {0}")]
    Database(#[from] diesel::result::Error),
}

/// An event that was put aside because it could not be handled.
#[derive(Debug, Clone, PartialEq)]
pub struct Parked {
    pub queue: String,
    /// None when what arrived was not an event of ours.
    pub event_id: Option<EventId>,
    pub name: Option<String>,
    /// Why, in words; at most 1 KiB of them.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    pub parked_at: Option<DateTime<Utc>>,
    /// The envelope as it was received. A string when it is not JSON.
    pub body: Value,
}

/// Which parked events to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Those that were parked within 29 days. Of an older one it is no longer certain that a second copy of it, if
    /// there is one, did not take effect already.
    All,
    /// This one, however old it is. Whoever names one older than 29 days has looked whether it took effect.
    One(EventId),
}

impl Replay {
    /// What was parked before this is left alone.
    fn not_before(self) -> Option<DateTime<Utc>> {
        match self {
            Self::All => Some(SystemClock.now() - REPLAY_WITHIN),
            Self::One(_) => None,
        }
    }

    fn takes(self, event_id: Option<EventId>) -> bool {
        match self {
            Self::All => true,
            Self::One(wanted) => event_id == Some(wanted),
        }
    }
}

/// What became of a replay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// How many are in their queue again.
    pub count: u64,
    /// How many stay parked because they are too old for [`Replay::All`].
    pub too_old: u64,
}

impl Transport {
    /// The parked events of one queue, or of all, oldest first; at most [`LIST_AT_MOST`] per queue. They stay parked.
    ///
    /// With RabbitMQ, events that somebody else lists or replays at the same moment may be missing.
    pub async fn parked(&self, queue: Option<&str>) -> Result<Vec<Parked>, TransportError> {
        let mut parked = Vec::new();
        for queue in self.queues(queue)? {
            parked.extend(match self {
                Self::Amqp(amqp) => amqp.parked(queue).await?,
                Self::Local(local) => local.parked(queue).await?,
            });
        }
        Ok(parked)
    }

    /// Put parked events at the end of their queue again, oldest first, and say how many. A repeat is safe, and so
    /// is a crash in between: an event that is queued twice takes effect once.
    pub async fn replay(&self, queue: &str, which: Replay) -> Result<Replayed, TransportError> {
        self.queues(Some(queue))?;
        match self {
            Self::Amqp(amqp) => amqp.replay(queue, which).await,
            Self::Local(local) => local.replay(queue, which).await,
        }
    }

    /// Watch what is published from now on, as far as its name matches `pattern`. For people: who falls behind by
    /// 10 000 events misses the oldest of them.
    pub async fn tail(&self, pattern: &str) -> Result<Tail, TransportError> {
        Ok(Tail(match self {
            Self::Amqp(amqp) => TailOf::Amqp(Box::new(amqp.tail(pattern).await?)),
            Self::Local(local) => TailOf::Local(Box::new(local.tail(pattern).await?)),
        }))
    }

    /// What a relay publishes through. It connects when it is used.
    pub(crate) fn publisher(&self) -> Publisher {
        match self {
            Self::Amqp(amqp) => Publisher::Amqp(amqp.publisher()),
            Self::Local(local) => Publisher::Local(local.clone()),
        }
    }

    /// Receive what is in `queue`. With [`Transport::Local`] it waits while another consumer receives.
    pub(crate) async fn subscribe(&self, queue: &str) -> Result<Deliveries, TransportError> {
        self.queues(Some(queue))?;
        Ok(match self {
            Self::Amqp(amqp) => Deliveries::Amqp(Box::new(amqp.subscribe(queue).await?)),
            Self::Local(local) => Deliveries::Local(Box::new(local.subscribe(queue).await?)),
        })
    }

    /// All queues, or the one that is named, if there is such a queue.
    fn queues(&self, queue: Option<&str>) -> Result<Vec<&'static str>, TransportError> {
        let subscriptions = match self {
            Self::Amqp(amqp) => amqp.subscriptions(),
            Self::Local(local) => local.subscriptions(),
        };
        let queues: Vec<_> = subscriptions
            .iter()
            .map(|subscription| subscription.queue)
            .filter(|name| queue.is_none_or(|queue| queue == *name))
            .collect();
        match queue {
            Some(queue) if queues.is_empty() => Err(TransportError::NoSuchQueue(queue.to_owned())),
            _ => Ok(queues),
        }
    }
}

/// Why the broker itself parks an event.
fn delivery_limit_reason() -> String {
    format!("it was given to a consumer {DELIVERY_LIMIT} times that then stopped, crashed or lost its connection")
}

/// What is published, as it is published.
pub struct Tail(TailOf);

enum TailOf {
    Amqp(Box<amqp::AmqpTail>),
    Local(Box<local::LocalTail>),
}

impl Tail {
    /// The next event. Safe to drop with RabbitMQ; in-process, a drop may skip one event.
    ///
    /// Fails when the broker is gone: what is published until the next [`Transport::tail`] is missed.
    pub async fn next(&mut self) -> Result<Envelope, TransportError> {
        match &mut self.0 {
            TailOf::Amqp(tail) => tail.next().await,
            TailOf::Local(tail) => tail.next().await,
        }
    }
}

/// Publishes for a relay.
pub(crate) enum Publisher {
    Amqp(amqp::AmqpPublisher),
    Local(Local),
}

impl Publisher {
    /// Be ready to publish: fails while the broker is away.
    pub(crate) async fn connect(&mut self) -> Result<(), TransportError> {
        match self {
            Self::Amqp(publisher) => publisher.connect().await,
            Self::Local(_) => Ok(()),
        }
    }

    /// Publish in this order, and stop at the first that is not confirmed.
    ///
    /// Says how many are in the broker's hands for certain, and what stopped the rest. One that was not confirmed
    /// may have arrived all the same. Takes 10 s at most.
    pub(crate) async fn publish_in_order(&mut self, envelopes: &[Envelope]) -> (usize, Option<TransportError>) {
        match self {
            Self::Amqp(publisher) => publisher.publish_in_order(envelopes).await,
            Self::Local(local) => match timeout(ANSWER_WITHIN, local.publish_in_order(envelopes)).await {
                Ok(published) => published,
                Err(_) => (0, Some(TransportError::Timeout(ANSWER_WITHIN.as_secs()))),
            },
        }
    }
}

/// What came out of a queue: an event, or, if it cannot be read as one, why.
pub(crate) type Content = Result<Envelope, String>;

/// What a queue gives to its consumer: one event at a time, in order, the next when the last was settled.
/// Dropped, it gives back the one that was not settled.
pub(crate) enum Deliveries {
    Amqp(Box<amqp::AmqpDeliveries>),
    Local(Box<local::LocalDeliveries>),
}

impl Deliveries {
    /// The next event, as soon as there is one. Safe to drop together with the deliveries.
    pub(crate) async fn next(&mut self) -> Result<Content, TransportError> {
        match self {
            Self::Amqp(deliveries) => deliveries.next().await,
            Self::Local(deliveries) => deliveries.next().await,
        }
    }

    /// The event at hand is done. If this fails, it comes again.
    pub(crate) async fn ack(&mut self) -> Result<(), TransportError> {
        match self {
            Self::Amqp(deliveries) => deliveries.ack().await,
            Self::Local(deliveries) => deliveries.ack().await,
        }
    }

    /// Put the event at hand aside, after so many attempts, with as much of the reason as is kept. If this fails, it
    /// comes again.
    pub(crate) async fn park(&mut self, reason: &str, attempts: u32) -> Result<(), TransportError> {
        let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_AT_MOST)];
        match self {
            Self::Amqp(deliveries) => deliveries.park(reason, attempts).await,
            Self::Local(deliveries) => deliveries.park(reason, attempts).await,
        }
    }
}
