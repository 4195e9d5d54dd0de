//! Two services and what is between them: `source` publishes, `sink` consumes and writes down every effect.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use common::{EventId, Secret};
use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Uuid};
use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl};
use diesel_migrations::MigrationHarness;
use events::{Envelope, Event, Subscription};
use lapin::{Channel, Connection, ConnectionProperties};
use outbox::{
    Amqp, AmqpOptions, Consumer, ConsumerHealth, Handler, HandlerError, Local, Pool, Relay, RelayHealth, Retries,
    Transport,
};
use serde::{Deserialize, Serialize};
use testkit::{AmqpNamespace, TestDatabase, amqp_namespace, eventually};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::ToSchema;

/// How long [`soon`] waits. More than a broker takes to be given up, and far more than anything else.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const QUEUE: &str = "sink.things";
pub(crate) const OTHER_QUEUE: &str = "other.things";

pub(crate) const SUBSCRIPTIONS: &[Subscription] = &[
    Subscription { queue: QUEUE, patterns: &["test.thing.*.v1"], purpose: "What the tests look at." },
    Subscription {
        queue: OTHER_QUEUE,
        patterns: &["test.thing.counted.v1", "test.#"],
        purpose: "A second queue for the same events, which takes them once although two patterns match.",
    },
];

/// The event of most tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ThingCounted {
    pub(crate) n: i64,
}

impl Event for ThingCounted {
    const NAME: &'static str = "test.thing.counted.v1";
    const SUMMARY: &'static str = "A thing was counted.";

    fn example() -> Self {
        Self { n: 1 }
    }
}

/// An event that no queue asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct NobodyAsked {}

impl Event for NobodyAsked {
    const NAME: &'static str = "unheard.thing.happened.v1";
    const SUMMARY: &'static str = "Something happened that interests nobody.";

    fn example() -> Self {
        Self {}
    }
}

pub(crate) struct House {
    pub(crate) source: Pool,
    pub(crate) sink: Pool,
    pub(crate) transport: Transport,
    pub(crate) namespace: Option<AmqpNamespace>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Dropped last, and with it whatever is still connected.
    _database: TestDatabase,
}

impl House {
    pub(crate) async fn with_rabbitmq() -> Self {
        let namespace = amqp_namespace(&[QUEUE, OTHER_QUEUE]);
        let transport = amqp(&namespace.url, &namespace.name);
        Self { namespace: Some(namespace), ..Self::new(testkit::database().await, async |_| transport).await }
    }

    pub(crate) async fn in_process() -> Self {
        Self::new(testkit::database().await, async |database| local(database).await).await
    }

    pub(crate) async fn new(database: TestDatabase, transport: impl AsyncFnOnce(&TestDatabase) -> Transport) -> Self {
        let source = source(&database).await;
        let sink = sink(&database).await;
        let transport = transport(&database).await;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Self { source, sink, transport, namespace: None, stop, tasks, _database: database }
    }

    pub(crate) fn relay(&self) -> watch::Receiver<RelayHealth> {
        let relay = Relay::new(self.source.clone(), self.transport.clone());
        let health = relay.health();
        self.tasks.spawn(relay.run(self.stop.clone()));
        health
    }

    /// Consume with a handler that writes down the effect and then does as `react` says.
    pub(crate) fn consume<F>(&self, react: F) -> Running
    where
        F: Fn(&Envelope) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        self.consume_with(Record(react))
    }

    pub(crate) fn consume_with(&self, handler: impl Handler) -> Running {
        let (first_wait, longest_wait) = (Duration::from_millis(20), Duration::from_millis(100));
        self.consume_with_retries(handler, Retries { tries: 3, first_wait, longest_wait })
    }

    pub(crate) fn consume_with_retries(&self, handler: impl Handler, retries: Retries) -> Running {
        let consumer = Consumer::new(QUEUE, self.sink.clone(), self.transport.clone(), handler).with_retries(retries);
        let health = consumer.health();
        let stop = self.stop.child_token();
        let task = self.tasks.spawn(consumer.run(stop.clone()));
        Running { health, stop, task }
    }

    /// Consume the other queue, without an effect.
    pub(crate) fn consume_other<F>(&self, react: F)
    where
        F: Fn(&Envelope) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        let handler = React(react);
        let consumer = Consumer::new(OTHER_QUEUE, self.sink.clone(), self.transport.clone(), handler);
        self.tasks.spawn(consumer.run(self.stop.clone()));
    }

    /// Commit these events, each in a transaction of its own.
    pub(crate) async fn publish(&self, numbers: impl IntoIterator<Item = i64>) -> Vec<EventId> {
        let mut ids = Vec::new();
        for n in numbers {
            ids.push(commit(&self.source, &ThingCounted { n }).await);
        }
        ids
    }

    /// Wait until exactly these effects are there, in this order.
    pub(crate) async fn expect_effects(&self, expected: impl IntoIterator<Item = i64>) {
        let expected: Vec<i64> = expected.into_iter().collect();
        eventually("as many effects as expected", async || {
            (effects(&self.sink).await.len() >= expected.len()).then_some(())
        })
        .await;
        assert_eq!(effects(&self.sink).await, expected);
    }

    /// Wait until the outbox is empty.
    pub(crate) async fn expect_all_published(&self) {
        eventually("an empty outbox", async || (waiting(&self.source).await == 0).then_some(())).await;
    }

    /// Stop everything in good order.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        soon("the end of all tasks", self.tasks.wait()).await;
    }

    /// A way to the house's RabbitMQ beside the transport.
    pub(crate) async fn channel(&self) -> Channel {
        let url = &self.namespace.as_ref().unwrap().url;
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        connection.create_channel().await.unwrap()
    }
}

/// A consumer at work.
pub(crate) struct Running {
    pub(crate) health: watch::Receiver<ConsumerHealth>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        soon("the end of a consumer", self.task).await.unwrap();
    }

    /// Drop it in the middle of what it does.
    pub(crate) async fn abort(self) {
        self.task.abort();
        let _ = soon("the end of a consumer", self.task).await;
    }
}

pub(crate) fn amqp(url: &str, namespace: &str) -> Transport {
    let options = AmqpOptions {
        url: Secret::new(url),
        namespace: namespace.to_owned(),
        process: "test".to_owned(),
        subscriptions: SUBSCRIPTIONS,
    };
    Transport::Amqp(Amqp::new(options).unwrap())
}

pub(crate) async fn local(database: &TestDatabase) -> Transport {
    let pool = database.pool("broker").await;
    migrate(&pool, outbox::BROKER_MIGRATIONS).await;
    Transport::Local(Local::new(pool, SUBSCRIPTIONS))
}

pub(crate) async fn source(database: &TestDatabase) -> Pool {
    let pool = database.pool("source").await;
    migrate(&pool, outbox::MIGRATIONS).await;
    execute(&pool, "CREATE TABLE changes (n bigint NOT NULL)").await;
    pool
}

pub(crate) async fn sink(database: &TestDatabase) -> Pool {
    let pool = database.pool("sink").await;
    migrate(&pool, outbox::MIGRATIONS).await;
    // Nothing here stops an effect from happening twice.
    execute(&pool, "CREATE TABLE effects (id bigserial, event_id uuid NOT NULL, n bigint NOT NULL)").await;
    pool
}

/// Commit one event.
pub(crate) async fn commit(source: &Pool, event: &impl Event) -> EventId {
    let mut conn = source.get().await.unwrap();
    conn.transaction(async |conn| outbox::enqueue(conn, event, DateTime::UNIX_EPOCH).await).await.unwrap()
}

/// Commit a change and its event, or say that the outcome is not known.
pub(crate) async fn try_commit(source: &Pool, n: i64) -> anyhow::Result<()> {
    let mut conn = source.get().await?;
    conn.transaction::<(), diesel::result::Error, _>(async |conn| {
        diesel::sql_query("INSERT INTO changes (n) VALUES ($1)").bind::<BigInt, _>(n).execute(conn).await?;
        outbox::enqueue(conn, &ThingCounted { n }, DateTime::UNIX_EPOCH).await?;
        Ok(())
    })
    .await?;
    Ok(())
}

pub(crate) async fn execute(pool: &Pool, statement: &str) -> usize {
    diesel::sql_query(statement).execute(&mut pool.get().await.unwrap()).await.unwrap()
}

/// The numbers of the effects, in the order in which they happened.
pub(crate) async fn effects(sink: &Pool) -> Vec<i64> {
    try_effects(sink).await.unwrap()
}

pub(crate) async fn try_effects(sink: &Pool) -> anyhow::Result<Vec<i64>> {
    try_numbers(sink, "SELECT n FROM effects ORDER BY id").await
}

/// How many events wait in the outbox.
pub(crate) async fn waiting(source: &Pool) -> i64 {
    numbers(source, "SELECT count(*) AS n FROM outbox").await[0]
}

pub(crate) async fn numbers(pool: &Pool, query: &str) -> Vec<i64> {
    try_numbers(pool, query).await.unwrap()
}

pub(crate) async fn try_numbers(pool: &Pool, query: &str) -> anyhow::Result<Vec<i64>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        n: i64,
    }
    let rows: Vec<Row> = diesel::sql_query(query).load(&mut pool.get().await?).await?;
    Ok(rows.into_iter().map(|row| row.n).collect())
}

/// Writes down the effect and then does as it was told.
pub(crate) struct Record<F>(pub(crate) F);

impl<F: Fn(&Envelope) -> Result<(), HandlerError> + Send + Sync + 'static> Handler for Record<F> {
    async fn handle(&self, conn: &mut AsyncPgConnection, envelope: &Envelope) -> Result<(), HandlerError> {
        let event: ThingCounted = envelope.open()?;
        diesel::sql_query("INSERT INTO effects (event_id, n) VALUES ($1, $2)")
            .bind::<Uuid, _>(envelope.event_id.0)
            .bind::<BigInt, _>(event.n)
            .execute(conn)
            .await?;
        (self.0)(envelope)
    }
}

/// Does as it was told.
struct React<F>(F);

impl<F: Fn(&Envelope) -> Result<(), HandlerError> + Send + Sync + 'static> Handler for React<F> {
    async fn handle(&self, _: &mut AsyncPgConnection, envelope: &Envelope) -> Result<(), HandlerError> {
        (self.0)(envelope)
    }
}

/// What `future` comes to. Panics after 60 s, naming `what` was awaited.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("after {} s still not: {what}", PATIENCE.as_secs()))
}

/// For [`House::consume`]: nothing to complain of.
pub(crate) fn fine(_: &Envelope) -> Result<(), HandlerError> {
    Ok(())
}

/// The number that an event carries.
pub(crate) fn number(envelope: &Envelope) -> i64 {
    envelope.open::<ThingCounted>().unwrap().n
}

async fn migrate(pool: &Pool, migrations: diesel_migrations::EmbeddedMigrations) {
    let mut harness = AsyncMigrationHarness::new(pool.get().await.unwrap());
    harness.run_pending_migrations(migrations).unwrap();
}

/// Shared with a handler.
pub(crate) fn shared<T>(value: T) -> (Arc<T>, Arc<T>) {
    let value = Arc::new(value);
    (value.clone(), value)
}
