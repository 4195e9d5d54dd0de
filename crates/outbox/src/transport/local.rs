//! A broker kept in PostgreSQL, for processes that run without RabbitMQ.
//!
//! An event is a row per queue that takes it. A consumer holds a lock on its queue through a connection of its own:
//! whoever holds it receives, and PostgreSQL gives it up when the connection ends, whatever became of the process.
//! `NOTIFY` wakes consumers, polling is the safety net.

use chrono::{DateTime, Utc};
use common::EventId;
use diesel::QueryableByName;
use diesel::dsl::sql;
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use events::{Envelope, Subscription, matches};
use prepared::statement;
use serde_json::Value;

use super::{Content, DELIVERY_LIMIT, LIST_AT_MOST, Parked, Replay, Replayed, TAIL_AT_MOST, TransportError};
use crate::Pool;
use crate::listen::{connection, listen, own_connection, wake};

/// Events through tables. Any number of processes may share them; each consumer and each [`super::Tail`] occupies
/// one connection.
#[derive(Clone)]
pub struct Local {
    pool: Pool,
    subscriptions: &'static [Subscription],
}

impl Local {
    /// `pool` is for the schema of [`crate::BROKER_MIGRATIONS`]; `subscriptions` is every queue. Does not connect.
    #[must_use]
    pub fn new(pool: Pool, subscriptions: &'static [Subscription]) -> Self {
        Self { pool, subscriptions }
    }

    pub(super) fn subscriptions(&self) -> &'static [Subscription] {
        self.subscriptions
    }

    /// All of them or none: one transaction.
    pub(super) async fn publish_in_order(&self, envelopes: &[Envelope]) -> (usize, Option<TransportError>) {
        if envelopes.is_empty() {
            return (0, None);
        }
        match self.publish(envelopes).await {
            Ok(()) => (envelopes.len(), None),
            Err(error) => (0, Some(error)),
        }
    }

    async fn publish(&self, envelopes: &[Envelope]) -> Result<(), TransportError> {
        let mut conn = connection(&self.pool).await?;
        conn.transaction(async |conn| {
            let tails = living_tails(conn).await?;
            let (mut queues, mut ids, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
            for envelope in envelopes {
                let subscribed = self.subscriptions.iter().filter(|subscription| subscription.takes(&envelope.name));
                let watching = tails.iter().filter(|tail| matches(&tail.pattern, &envelope.name));
                let body = serde_json::to_value(envelope)?;
                let takers = subscribed.map(|subscription| subscription.queue);
                for queue in takers.chain(watching.map(|tail| tail.queue.as_str())) {
                    queues.push(queue);
                    ids.push(envelope.event_id.0);
                    bodies.push(body.clone());
                }
            }
            if queues.is_empty() {
                return Ok(());
            }
            statement(
                "WITH stored AS (
                     INSERT INTO messages (queue, event_id, body)
                     SELECT queue, event_id, body
                     FROM unnest($1::text[], $2::uuid[], $3::jsonb[]) WITH ORDINALITY AS message (queue, event_id, body, place)
                     ORDER BY place
                 )
                 SELECT pg_notify(current_schema() || '.messages', '')",
            )
            .bind::<Array<Text>, _>(queues)
            .bind::<Array<Uuid>, _>(ids)
            .bind::<Array<Jsonb>, _>(bodies)
            .execute(conn)
            .await?;
            Ok(())
        })
        .await
    }

    pub(super) async fn subscribe(&self, queue: &str) -> Result<LocalDeliveries, TransportError> {
        let mut conn = own_connection(&self.pool).await?;
        listen_for_messages(&mut conn).await?;
        while !lock(&mut conn, queue).await? {
            wake(&mut conn).await?;
        }
        // What a crash of the machine could undo here only brings an event once more, and that does nothing.
        conn.batch_execute("SET synchronous_commit = off").await?;
        Ok(LocalDeliveries { conn, queue: queue.to_owned(), at_hand: None })
    }

    pub(super) async fn parked(&self, queue: &str) -> Result<Vec<Parked>, TransportError> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Uuid)]
            event_id: uuid::Uuid,
            #[diesel(sql_type = Jsonb)]
            body: Value,
            #[diesel(sql_type = Text)]
            reason: String,
            #[diesel(sql_type = Integer)]
            attempts: i32,
            #[diesel(sql_type = Timestamptz)]
            parked_at: DateTime<Utc>,
        }
        let mut conn = connection(&self.pool).await?;
        let rows: Vec<Row> = diesel::sql_query(
            "SELECT event_id, body, reason, attempts, parked_at FROM messages
             WHERE queue = $1 AND parked_at IS NOT NULL ORDER BY seq LIMIT $2",
        )
        .bind::<Text, _>(queue)
        .bind::<BigInt, _>(LIST_AT_MOST as i64)
        .load(&mut conn)
        .await?;
        let parked = rows.into_iter().map(|row| Parked {
            queue: queue.to_owned(),
            event_id: Some(EventId(row.event_id)),
            name: row.body.get("name").and_then(Value::as_str).map(str::to_owned),
            reason: row.reason,
            attempts: row.attempts.unsigned_abs(),
            parked_at: Some(row.parked_at),
            body: row.body,
        });
        Ok(parked.collect())
    }

    pub(super) async fn replay(&self, queue: &str, which: Replay) -> Result<Replayed, TransportError> {
        let only = match which {
            Replay::All => None,
            Replay::One(event_id) => Some(event_id.0),
        };
        let not_before = which.not_before();
        let mut conn = connection(&self.pool).await?;
        // A new `seq` is the end of the queue. They are handed out in the order of the inner query.
        let count = diesel::sql_query(
            "WITH chosen AS (
                 SELECT seq FROM messages
                 WHERE queue = $1 AND parked_at IS NOT NULL
                   AND ($2 IS NULL OR event_id = $2) AND ($3 IS NULL OR parked_at >= $3)
                 ORDER BY seq FOR UPDATE
             ), moved AS (
                 SELECT seq, nextval(pg_get_serial_sequence('messages', 'seq')) AS new_seq FROM chosen
             )
             UPDATE messages
             SET seq = new_seq, deliveries = 0, parked_at = NULL, reason = NULL, attempts = NULL
             FROM moved WHERE messages.seq = moved.seq",
        )
        .bind::<Text, _>(queue)
        .bind::<Nullable<Uuid>, _>(only)
        .bind::<Nullable<Timestamptz>, _>(not_before)
        .execute(&mut conn)
        .await?;
        diesel::sql_query("SELECT pg_notify(current_schema() || '.messages', '')").execute(&mut conn).await?;
        let too_old: i64 = diesel::select(
            sql::<BigInt>("(SELECT count(*) FROM messages WHERE queue = ")
                .bind::<Text, _>(queue)
                .sql(" AND parked_at < ")
                .bind::<Nullable<Timestamptz>, _>(not_before)
                .sql(")"),
        )
        .get_result(&mut conn)
        .await?;
        Ok(Replayed { count: count as u64, too_old: too_old.unsigned_abs() })
    }

    pub(super) async fn tail(&self, pattern: &str) -> Result<LocalTail, TransportError> {
        let queue = format!("tail.{}", uuid::Uuid::now_v7());
        let mut conn = own_connection(&self.pool).await?;
        listen_for_messages(&mut conn).await?;
        // The lock comes first: a tail without one counts as left behind.
        lock(&mut conn, &queue).await?;
        diesel::sql_query("INSERT INTO tails (queue, pattern) VALUES ($1, $2)")
            .bind::<Text, _>(&queue)
            .bind::<Text, _>(pattern)
            .execute(&mut conn)
            .await?;
        Ok(LocalTail { conn, queue })
    }
}

/// What a queue gives to this process while it holds the queue's lock.
pub(crate) struct LocalDeliveries {
    conn: AsyncPgConnection,
    queue: String,
    at_hand: Option<i64>,
}

impl LocalDeliveries {
    pub(super) async fn next(&mut self) -> Result<Content, TransportError> {
        loop {
            match self.take().await? {
                Some(message) if message.deliveries.unsigned_abs() > DELIVERY_LIMIT => {
                    self.at_hand = Some(message.seq);
                    self.park(&super::delivery_limit_reason(), DELIVERY_LIMIT).await?;
                }
                Some(message) => {
                    self.at_hand = Some(message.seq);
                    return Ok(serde_json::from_value(message.body).map_err(|error| error.to_string()));
                }
                None => wake(&mut self.conn).await?,
            }
        }
    }

    pub(super) async fn ack(&mut self) -> Result<(), TransportError> {
        if let Some(seq) = self.at_hand.take() {
            statement("DELETE FROM messages WHERE seq = $1").bind::<BigInt, _>(seq).execute(&mut self.conn).await?;
        }
        Ok(())
    }

    pub(super) async fn park(&mut self, reason: &str, attempts: u32) -> Result<(), TransportError> {
        if let Some(seq) = self.at_hand.take() {
            statement("UPDATE messages SET parked_at = now(), reason = $1, attempts = $2 WHERE seq = $3")
                .bind::<Text, _>(reason)
                .bind::<Integer, _>(i32::try_from(attempts).unwrap_or(i32::MAX))
                .bind::<BigInt, _>(seq)
                .execute(&mut self.conn)
                .await?;
        }
        Ok(())
    }

    /// The oldest message, counted as delivered.
    async fn take(&mut self) -> QueryResult<Option<Message>> {
        let messages: Vec<Message> = statement(
            "UPDATE messages SET deliveries = deliveries + 1
             WHERE seq = (
                 SELECT seq FROM messages WHERE queue = $1 AND parked_at IS NULL ORDER BY seq LIMIT 1
             )
             RETURNING seq, body, deliveries",
        )
        .bind::<Text, _>(&self.queue)
        .load(&mut self.conn)
        .await?;
        Ok(messages.into_iter().next())
    }
}

/// What is published, for somebody who watches.
pub(crate) struct LocalTail {
    conn: AsyncPgConnection,
    queue: String,
}

impl LocalTail {
    pub(super) async fn next(&mut self) -> Result<Envelope, TransportError> {
        loop {
            let messages: Vec<Message> = statement(
                "DELETE FROM messages
                 WHERE seq = (SELECT seq FROM messages WHERE queue = $1 ORDER BY seq LIMIT 1)
                 RETURNING seq, body, deliveries",
            )
            .bind::<Text, _>(&self.queue)
            .load(&mut self.conn)
            .await?;
            match messages.into_iter().next() {
                Some(message) => return Ok(serde_json::from_value(message.body)?),
                None => wake(&mut self.conn).await?,
            }
        }
    }
}

#[derive(QueryableByName)]
struct Message {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Jsonb)]
    body: Value,
    #[diesel(sql_type = Integer)]
    deliveries: i32,
}

#[derive(QueryableByName)]
struct TailRow {
    #[diesel(sql_type = Text)]
    queue: String,
    #[diesel(sql_type = Text)]
    pattern: String,
}

/// The tails that somebody reads, after dropping the others and what is too much. None of them is dropped before the
/// transaction ends, so that it may publish into them.
async fn living_tails(conn: &mut AsyncPgConnection) -> QueryResult<Vec<TailRow>> {
    let dead = statement(
        "DELETE FROM tails WHERE queue IN (
             SELECT queue FROM tails
             WHERE pg_try_advisory_xact_lock(hashtextextended(current_schema() || '.' || queue, 0))
             FOR UPDATE SKIP LOCKED
         )
         RETURNING queue, pattern",
    );
    // A statement of its own, so that it sees what was published until the tail was dropped.
    let unread = statement("DELETE FROM messages WHERE queue = ANY($1)");
    let too_much = statement(
        "DELETE FROM messages USING tails
         WHERE messages.queue = tails.queue AND seq <= (
             SELECT seq FROM messages AS newer
             WHERE newer.queue = tails.queue AND newer.parked_at IS NULL
             ORDER BY seq DESC OFFSET $1 LIMIT 1
         )",
    );
    let dead: Vec<TailRow> = dead.load(conn).await?;
    if !dead.is_empty() {
        let dead: Vec<String> = dead.into_iter().map(|tail| tail.queue).collect();
        unread.bind::<Array<Text>, _>(dead).execute(conn).await?;
    }
    // Shared with others that publish. Whoever drops a tail passes over those that are locked, and the other way
    // round: nobody waits, and nothing is published into a tail that is being dropped.
    let tails: Vec<TailRow> = statement("SELECT queue, pattern FROM tails FOR SHARE SKIP LOCKED").load(conn).await?;
    if !tails.is_empty() {
        too_much.bind::<BigInt, _>(i64::from(TAIL_AT_MOST)).execute(conn).await?;
    }
    Ok(tails)
}

/// Hold the lock of a queue for as long as the connection lives. False while another connection holds it.
async fn lock(conn: &mut AsyncPgConnection, queue: &str) -> QueryResult<bool> {
    diesel::select(
        sql::<Bool>("pg_try_advisory_lock(hashtextextended(current_schema() || '.' || ")
            .bind::<Text, _>(queue)
            .sql(", 0))"),
    )
    .get_result(conn)
    .await
}

async fn listen_for_messages(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    let schema: String = diesel::select(sql::<Text>("current_schema()::text")).get_result(conn).await?;
    listen(conn, &format!("{schema}.messages")).await
}

#[cfg(test)]
mod tests {
    use diesel_async::AsyncMigrationHarness;
    use diesel_migrations::MigrationHarness;

    use super::*;

    const QUEUE: &str = "tail.left-behind";

    async fn messages(conn: &mut AsyncPgConnection) -> i64 {
        diesel::select(sql::<BigInt>("(SELECT count(*) FROM messages)")).get_result(conn).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_published_into_a_tail_that_another_relay_drops() {
        let database = testkit::database().await;
        let pool = database.pool("broker").await;
        let mut harness = AsyncMigrationHarness::new(pool.get().await.unwrap());
        harness.run_pending_migrations(crate::BROKER_MIGRATIONS).unwrap();
        let (mut one, mut other) = (pool.get().await.unwrap(), pool.get().await.unwrap());
        let left_behind = format!(
            "INSERT INTO tails (queue, pattern) VALUES ('{QUEUE}', '#');
             INSERT INTO messages (queue, event_id, body) VALUES ('{QUEUE}', gen_random_uuid(), '{{}}')"
        );
        one.batch_execute(&left_behind).await.unwrap();
        one.batch_execute("BEGIN").await.unwrap();
        assert!(living_tails(&mut one).await.unwrap().is_empty());

        // Its reader is gone, but the relay that drops it has not committed.
        other.batch_execute("BEGIN").await.unwrap();
        assert!(living_tails(&mut other).await.unwrap().is_empty());

        one.batch_execute("COMMIT").await.unwrap();
        assert_eq!(messages(&mut other).await, 0);
    }
}
