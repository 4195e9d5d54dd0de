//! Write an event in the transaction of the change that it tells of.

use chrono::{DateTime, Utc};
use common::EventId;
use diesel::QueryResult;
use diesel::result::Error;
use diesel::sql_types::{Array, Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use events::Event;
use prepared::statement;

use crate::trace;

/// An event that waits to be enqueued together with others.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    event_id: EventId,
    name: &'static str,
    data: serde_json::Value,
}

impl Pending {
    /// Fails when the event cannot be written as JSON.
    pub fn of<E: Event>(event: &E) -> Result<Self, serde_json::Error> {
        Ok(Self { event_id: EventId::new(), name: E::NAME, data: serde_json::to_value(event)? })
    }
}

/// Commit all of `events`, in their order, as [`enqueue`] does with one. One round trip; none if there are no events.
pub async fn enqueue_all(
    mut conn: &AsyncPgConnection,
    events: &[Pending],
    occurred_at: DateTime<Utc>,
) -> QueryResult<()> {
    if events.is_empty() {
        return Ok(());
    }
    statement(
        "WITH stored AS (
             INSERT INTO outbox (event_id, name, occurred_at, traceparent, data)
             SELECT event_id, name, $1, $2, data
             FROM unnest($3::uuid[], $4::text[], $5::jsonb[]) WITH ORDINALITY AS event (event_id, name, data, place)
             ORDER BY place
         )
         SELECT pg_notify(current_schema() || '.outbox', '')",
    )
    .bind::<Timestamptz, _>(occurred_at)
    .bind::<Nullable<Text>, _>(trace::current())
    .bind::<Array<Uuid>, _>(events.iter().map(|event| event.event_id.0).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(events.iter().map(|event| event.name).collect::<Vec<_>>())
    .bind::<Array<Jsonb>, _>(events.iter().map(|event| &event.data).collect::<Vec<_>>())
    .execute(&mut conn)
    .await?;
    Ok(())
}

/// Commit `event` together with whatever else the caller's transaction changes, or not at all.
///
/// Call it inside a transaction. After the commit a [`crate::Relay`] of the same schema is woken and publishes the
/// event. `occurred_at` is by the caller's clock. The current span goes along, so that handling the event belongs
/// to the trace that caused it.
pub async fn enqueue<E: Event>(
    conn: &mut AsyncPgConnection,
    event: &E,
    occurred_at: DateTime<Utc>,
) -> QueryResult<EventId> {
    let event_id = EventId::new();
    let data = serde_json::to_value(event).map_err(|error| Error::SerializationError(Box::new(error)))?;
    // One round trip for both. PostgreSQL delivers the notification when the transaction commits.
    statement(
        "WITH stored AS (
             INSERT INTO outbox (event_id, name, occurred_at, traceparent, data) VALUES ($1, $2, $3, $4, $5)
         )
         SELECT pg_notify(current_schema() || '.outbox', '')",
    )
    .bind::<Uuid, _>(event_id.0)
    .bind::<Text, _>(E::NAME)
    .bind::<Timestamptz, _>(occurred_at)
    .bind::<Nullable<Text>, _>(trace::current())
    .bind::<Jsonb, _>(data)
    .execute(conn)
    .await?;
    Ok(event_id)
}
