//! Handle each event once, retry with back-off, put aside what cannot be handled.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use events::{Envelope, OpenError};
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::backoff::Backoff;
use crate::listen::connection;
use crate::transport::{Content, Deliveries, TransportError};
use crate::{Pool, Transport, inbox, trace};

/// How long a handler may take for one event.
const HANDLE_WITHIN: Duration = Duration::from_secs(30);

/// How long a connection may take to show that it still works.
const PROBE_WITHIN: Duration = Duration::from_secs(5);

/// After this many events the consumer forgets some of the oldest that it remembers.
const FORGET_EVERY: u64 = 500;

/// What a service does about events.
pub trait Handler: Send + Sync + 'static {
    /// React to one event, with changes made through `conn` only.
    ///
    /// `conn` is in a transaction that also remembers the event: it commits when this returns Ok, and the event is
    /// done. On an error nothing of it remains. Events of one queue come one after another, in order. An event whose
    /// name the handler does not know is Ok. It is given 30 s.
    fn handle(
        &self,
        conn: &mut AsyncPgConnection,
        envelope: &Envelope,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// Why an event was not handled.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// It may work later. Tried again, then parked with this reason.
    #[error("{0}")]
    Retry(String),
    /// It never will. Parked at once with this reason.
    #[error("{0}")]
    Poison(String),
    /// A query failed. Tried again like [`HandlerError::Retry`]; without counting, if it is the database that failed.
    #[error("a query failed: {0}")]
    Database(#[from] Error),
}

impl From<OpenError> for HandlerError {
    fn from(error: OpenError) -> Self {
        Self::Poison(error.to_string())
    }
}

/// How often and how soon a consumer tries an event that its handler did not handle.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// How often the handler sees the event before it is parked. At least 1.
    pub tries: u32,
    /// The wait before the second try; it doubles from there, with jitter.
    pub first_wait: Duration,
    /// No wait is longer than twice this.
    pub longest_wait: Duration,
}

impl Default for Retries {
    /// 6 tries within 15 to 30 seconds.
    fn default() -> Self {
        Self { tries: 6, first_wait: Duration::from_millis(500), longest_wait: Duration::from_secs(30) }
    }
}

/// How a consumer is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsumerHealth {
    /// Why events of its queue cannot be handled at the moment, in words for an operator. None when they can.
    pub problem: Option<String>,
}

/// Takes events from a queue and has each handled once.
///
/// Any number of processes may run one for the same queue: one at a time receives, in order, and another takes over
/// when it is gone. A failed event is retried where it is, so that later ones do not overtake it, until it is done
/// or parked.
pub struct Consumer<H> {
    queue: &'static str,
    pool: Pool,
    transport: Transport,
    handler: H,
    retries: Retries,
    health: watch::Sender<ConsumerHealth>,
}

impl<H: Handler> Consumer<H> {
    /// A consumer of `queue`, which must be one of the transport's subscriptions. `pool` is for the schema that the
    /// handler changes and that holds the inbox. It does nothing until [`Consumer::run`].
    #[must_use]
    pub fn new(queue: &'static str, pool: Pool, transport: Transport, handler: H) -> Self {
        Self { queue, pool, transport, handler, retries: Retries::default(), health: watch::Sender::default() }
    }

    #[must_use]
    pub fn with_retries(self, retries: Retries) -> Self {
        Self { retries, ..self }
    }

    /// How the consumer is doing, updated whenever it changes.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<ConsumerHealth> {
        self.health.subscribe()
    }

    /// Handle events until `shutdown`. While the broker or the database is away it waits, for as long as it takes.
    ///
    /// After `shutdown` it finishes the try at hand, which takes 30 s at most. Dropping the future is safe too.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut backoff = Backoff::for_outage();
        let mut handled = 0;
        loop {
            let error = tokio::select! {
                subscribed = self.transport.subscribe(self.queue) => match subscribed {
                    Ok(mut deliveries) => {
                        backoff.reset();
                        self.recovered();
                        match self.consume(&mut deliveries, &mut handled, &shutdown).await {
                            Ok(()) => return,
                            Err(error) => error,
                        }
                    }
                    Err(error) => error,
                },
                () = shutdown.cancelled() => return,
            };
            self.failed(&error.to_string());
            if is_cancelled_within(&shutdown, backoff.next()).await {
                return;
            }
        }
    }

    /// Runs on one subscription for as long as it works. Ok means shutdown.
    async fn consume(
        &self,
        deliveries: &mut Deliveries,
        handled: &mut u64,
        shutdown: &CancellationToken,
    ) -> Result<(), TransportError> {
        loop {
            let content = tokio::select! {
                content = deliveries.next() => content?,
                () = shutdown.cancelled() => return Ok(()),
            };
            let span = match &content {
                Ok(envelope) => {
                    let span = tracing::info_span!(
                        "event.consume", queue = self.queue, event.name = envelope.name, event.id = %envelope.event_id
                    );
                    trace::follow(&span, envelope.traceparent.as_deref());
                    span
                }
                Err(_) => tracing::info_span!("event.consume", queue = self.queue),
            };
            let settled = self.settle(deliveries, content, handled, shutdown).instrument(span).await?;
            if !settled {
                return Ok(());
            }
        }
    }

    /// See one event through: done, or parked. False when shutdown came first and the broker keeps it.
    async fn settle(
        &self,
        deliveries: &mut Deliveries,
        content: Content,
        handled: &mut u64,
        shutdown: &CancellationToken,
    ) -> Result<bool, TransportError> {
        let envelope = match content {
            Ok(envelope) => envelope,
            Err(reason) => {
                let reason = format!("it is not an event: {reason}");
                self.park(deliveries, &reason, 0).await?;
                return Ok(true);
            }
        };
        let mut tries = 0;
        let mut between_tries = Backoff::new(self.retries.first_wait, self.retries.longest_wait);
        let mut outage = Backoff::for_outage();
        loop {
            let wait = match self.attempt(&envelope).await {
                Ok(outcome) => {
                    self.recovered();
                    self.count(outcome.label());
                    deliveries.ack().await?;
                    self.tidy(&envelope, handled).await;
                    return Ok(true);
                }
                Err(Failure::Outage(reason)) => {
                    self.failed(&reason);
                    outage.next()
                }
                Err(Failure::Poison(reason)) => {
                    self.park(deliveries, &reason, tries + 1).await?;
                    return Ok(true);
                }
                Err(Failure::Retry(reason)) => {
                    tries += 1;
                    if tries >= self.retries.tries {
                        self.park(deliveries, &reason, tries).await?;
                        return Ok(true);
                    }
                    self.recovered();
                    self.count("retried");
                    tracing::warn!(reason, tries, "an event was not handled and is tried again");
                    outage.reset();
                    between_tries.next()
                }
            };
            if is_cancelled_within(shutdown, wait).await {
                return Ok(false);
            }
        }
    }

    /// Handle the event in one transaction with remembering it.
    async fn attempt(&self, envelope: &Envelope) -> Result<Outcome, Failure> {
        let mut conn = connection(&self.pool).await.map_err(|error| Failure::Outage(error.to_string()))?;
        let transaction = conn.transaction(async |conn| {
            match inbox::remember(conn, self.queue, envelope.event_id).await {
                Ok(true) => {}
                Ok(false) => return Ok(Outcome::Duplicate),
                Err(error) => return Err(TryError::Inbox(error)),
            }
            self.handler.handle(conn, envelope).await.map_err(TryError::Handler)?;
            Ok(Outcome::Done)
        });
        let error = match timeout(HANDLE_WITHIN, AssertUnwindSafe(transaction).catch_unwind()).await {
            Ok(Ok(Ok(outcome))) => return Ok(outcome),
            Ok(Ok(Err(TryError::Handler(error)))) => error,
            // No event can be at fault for this: the database is away, full or not migrated.
            Ok(Ok(Err(TryError::Inbox(error)))) => return Err(Failure::Outage(format!("the inbox failed: {error}"))),
            unfinished => {
                // A query may still occupy the connection, or a transaction may be open on it: another one is asked.
                conn = connection(&self.pool).await.map_err(|error| Failure::Outage(error.to_string()))?;
                HandlerError::Retry(match unfinished {
                    Err(_) => format!("the handler took longer than {} s", HANDLE_WITHIN.as_secs()),
                    Ok(_) => "the handler panicked".to_owned(),
                })
            }
        };
        // Whatever the handler made of it: on a connection that is lost, it was not the event's fault.
        if is_outage(&error) || !works(&mut conn).await {
            return Err(Failure::Outage(format!("the database failed: {error}")));
        }
        Err(match error {
            HandlerError::Poison(reason) => Failure::Poison(reason),
            HandlerError::Retry(reason) => Failure::Retry(reason),
            HandlerError::Database(error) => Failure::Retry(format!("a query failed: {error}")),
        })
    }

    async fn park(&self, deliveries: &mut Deliveries, reason: &str, tries: u32) -> Result<(), TransportError> {
        deliveries.park(reason, tries).await?;
        self.recovered();
        self.count("parked");
        tracing::error!(reason, tries, "an event was parked: see `amphi events parked`");
        Ok(())
    }

    /// Every so often, forget what is too old to come again. That it fails does no harm.
    async fn tidy(&self, envelope: &Envelope, handled: &mut u64) {
        if handled.is_multiple_of(FORGET_EVERY)
            && let Ok(mut conn) = connection(&self.pool).await
            && let Err(error) = inbox::forget_old(&mut conn, self.queue, envelope.occurred_at).await
        {
            tracing::warn!(error = %error, "old rows stay in the inbox for now");
        }
        *handled += 1;
    }

    fn failed(&self, problem: &str) {
        tracing::warn!(queue = self.queue, problem, "events wait in their queue");
        self.health.send_modify(|health| health.problem = Some(problem.to_owned()));
    }

    fn recovered(&self) {
        self.health.send_if_modified(|health| health.problem.take().is_some());
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!("events_consumed_total", "queue" => self.queue, "outcome" => outcome).increment(1);
    }
}

/// What became of an event that was handled.
enum Outcome {
    Done,
    /// It took effect before.
    Duplicate,
}

impl Outcome {
    fn label(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Duplicate => "duplicate",
        }
    }
}

/// Where a try stopped.
enum TryError {
    Inbox(Error),
    Handler(HandlerError),
}

impl From<Error> for TryError {
    /// Beginning and committing. What the handler changed may be why the commit failed.
    fn from(error: Error) -> Self {
        Self::Handler(error.into())
    }
}

/// Why a try came to nothing.
enum Failure {
    /// The database is away. Does not count against the event.
    Outage(String),
    Retry(String),
    Poison(String),
}

/// Whether the error itself says that it was not about the event: a standby that cannot be written to, or a
/// transaction that lost against another.
fn is_outage(error: &HandlerError) -> bool {
    matches!(
        error,
        HandlerError::Database(Error::DatabaseError(
            DatabaseErrorKind::ReadOnlyTransaction | DatabaseErrorKind::SerializationFailure,
            _
        ))
    )
}

async fn works(conn: &mut AsyncPgConnection) -> bool {
    let probe = diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>("1"));
    matches!(timeout(PROBE_WITHIN, probe.get_result::<i32>(conn)).await, Ok(Ok(_)))
}

/// Wait, but not beyond shutdown.
async fn is_cancelled_within(shutdown: &CancellationToken, wait: Duration) -> bool {
    tokio::select! {
        () = sleep(wait) => false,
        () = shutdown.cancelled() => true,
    }
}
