//! Publish what was committed, oldest first, and forget what the broker confirmed.

use std::time::Duration;

use chrono::{DateTime, Utc};
use common::EventId;
use diesel::sql_types::{BigInt, Bool, Double, Nullable, Text};
use diesel::{ExpressionMethods, QueryDsl, QueryResult, Queryable, QueryableByName, Selectable, SelectableHelper};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use events::Envelope;
use prepared::statement;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::listen::{NoConnection, listen, own_connection, wake};
use crate::transport::{Publisher, TransportError};
use crate::{Pool, Transport};

diesel::table! {
    outbox (seq) {
        seq -> BigInt,
        event_id -> Uuid,
        name -> Text,
        occurred_at -> Timestamptz,
        traceparent -> Nullable<Text>,
        data -> Jsonb,
    }
}

/// The most events that one transaction publishes. It is the one transaction that waits for the network.
const BATCH: i64 = 50;

/// The most events that health counts.
const COUNT_AT_MOST: i64 = 10_000;

/// How often health is measured while there is work.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Moves events from one schema's outbox to the broker.
///
/// Any number of processes may run one for the same schema: one at a time publishes, the others stand by and take
/// over when it is gone. It occupies one connection.
pub struct Relay {
    pool: Pool,
    transport: Transport,
    health: watch::Sender<RelayHealth>,
}

/// How a relay is doing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RelayHealth {
    /// Why events cannot leave at the moment, in words for an operator. None when they can.
    pub problem: Option<String>,
    /// How many events wait, counted up to 10 000. As of the last time that the database answered.
    pub waiting: u64,
    /// How long the oldest of them has waited. None when none waits.
    pub oldest_waiting: Option<Duration>,
}

impl Relay {
    /// A relay for the outbox in the schema of `pool`. It does nothing until [`Relay::run`].
    #[must_use]
    pub fn new(pool: Pool, transport: Transport) -> Self {
        Self { pool, transport, health: watch::Sender::default() }
    }

    /// How the relay is doing, updated at least every few seconds while it runs.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<RelayHealth> {
        self.health.subscribe()
    }

    /// Publish until `shutdown`. Whatever fails is tried again, with back-off, for as long as it takes.
    ///
    /// After `shutdown` it finishes the batch at hand, which takes 10 s at most. Dropping the future is safe too:
    /// events that the broker had and the outbox still has are published once more.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut backoff = Backoff::for_outage();
        while !shutdown.is_cancelled() {
            let Err(error) = self.relay_until_failure(&shutdown, &mut backoff).await else { break };
            tracing::warn!(error = %error, "events wait in the outbox");
            self.health.send_modify(|health| health.problem = Some(error.to_string()));
            tokio::select! {
                () = sleep(backoff.next()) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Runs on one connection for as long as everything works. Ok means shutdown.
    async fn relay_until_failure(&self, shutdown: &CancellationToken, backoff: &mut Backoff) -> Result<(), RelayError> {
        let mut conn = own_connection(&self.pool).await?;
        let schema =
            diesel::select(diesel::dsl::sql::<Text>("current_schema()::text")).get_result::<String>(&mut conn).await?;
        listen(&mut conn, &format!("{schema}.outbox")).await?;
        let mut publisher = self.transport.publisher();
        let mut measured_at = None::<Instant>;

        while !shutdown.is_cancelled() {
            if measured_at.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
                self.measure(&mut conn, &schema).await?;
                measured_at = Some(Instant::now());
            }
            tokio::select! {
                connected = publisher.connect() => connected?,
                () = shutdown.cancelled() => return Ok(()),
            }
            let batch = relay_batch(&mut conn, &schema, &mut publisher).await?;
            if let Some(refusal) = batch.refusal {
                self.measure(&mut conn, &schema).await?;
                return Err(refusal.into());
            }
            backoff.reset();
            self.health.send_if_modified(|health| health.problem.take().is_some());
            if batch.published == 0 {
                tokio::select! {
                    woken = wake(&mut conn) => woken?,
                    () = shutdown.cancelled() => {}
                }
            }
        }
        Ok(())
    }

    /// Tell health and metrics what waits.
    async fn measure(&self, conn: &mut AsyncPgConnection, schema: &str) -> QueryResult<()> {
        #[derive(QueryableByName)]
        struct Waiting {
            #[diesel(sql_type = BigInt)]
            events: i64,
            #[diesel(sql_type = Nullable<Double>)]
            oldest_seconds: Option<f64>,
        }
        let waiting: Waiting = diesel::sql_query(
            "SELECT count(*) AS events,
                    extract(epoch FROM clock_timestamp() - min(enqueued_at))::float8 AS oldest_seconds
             FROM (SELECT enqueued_at FROM outbox ORDER BY seq LIMIT $1) AS oldest",
        )
        .bind::<BigInt, _>(COUNT_AT_MOST)
        .get_result(conn)
        .await?;
        let oldest = waiting.oldest_seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
        metrics::gauge!("outbox_waiting", "schema" => schema.to_owned()).set(waiting.events as f64);
        metrics::gauge!("outbox_oldest_waiting_seconds", "schema" => schema.to_owned())
            .set(oldest.unwrap_or_default().as_secs_f64());
        self.health.send_modify(|health| {
            health.waiting = waiting.events.unsigned_abs();
            health.oldest_waiting = oldest;
        });
        Ok(())
    }
}

/// Why events wait.
#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    NoConnection(#[from] NoConnection),
    #[error("the database failed: {0}")]
    Database(#[from] diesel::result::Error),
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// What became of a batch.
#[derive(Default)]
struct Batch {
    /// How many events left the outbox; 0 without a refusal means there are none, or another process relays.
    published: usize,
    /// What kept the rest back.
    refusal: Option<TransportError>,
}

/// Publish one batch, oldest first, and forget what the broker confirmed.
///
/// A crash between the two publishes again, so consumers see every event at least once. The lock goes with the
/// transaction: whoever loses its connection has lost its turn.
async fn relay_batch(conn: &mut AsyncPgConnection, schema: &str, publisher: &mut Publisher) -> QueryResult<Batch> {
    conn.transaction(async |conn| {
        if !take_turn(conn, schema).await? {
            return Ok(Batch::default());
        }
        let rows: Vec<Row> = outbox::table.order(outbox::seq).limit(BATCH).select(Row::as_select()).load(conn).await?;
        let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
        let envelopes: Vec<Envelope> = rows.into_iter().map(Row::into_envelope).collect();

        let (published, refusal) = publisher.publish_in_order(&envelopes).await;
        diesel::delete(outbox::table.filter(outbox::seq.eq_any(&seqs[..published]))).execute(conn).await?;
        for envelope in &envelopes[..published] {
            metrics::counter!("events_published_total", "name" => envelope.name.clone()).increment(1);
        }
        Ok(Batch { published, refusal })
    })
    .await
}

/// Whether this transaction may relay; false while another does.
async fn take_turn(conn: &mut AsyncPgConnection, schema: &str) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Turn {
        #[diesel(sql_type = Bool)]
        is_ours: bool,
    }
    // The time-out ends the turn of a process that hangs, or whose machine is gone without a word.
    let turn: Turn = statement(
        "SELECT set_config('idle_in_transaction_session_timeout', '30s', true),
                pg_try_advisory_xact_lock(hashtextextended($1, 0)) AS is_ours",
    )
    .bind::<Text, _>(format!("{schema}.outbox"))
    .get_result(conn)
    .await?;
    Ok(turn.is_ours)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = outbox, check_for_backend(diesel::pg::Pg))]
struct Row {
    seq: i64,
    event_id: uuid::Uuid,
    name: String,
    occurred_at: DateTime<Utc>,
    traceparent: Option<String>,
    data: serde_json::Value,
}

impl Row {
    fn into_envelope(self) -> Envelope {
        Envelope {
            event_id: EventId(self.event_id),
            name: self.name,
            occurred_at: self.occurred_at,
            traceparent: self.traceparent,
            data: self.data,
        }
    }
}
