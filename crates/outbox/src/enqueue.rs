//! Write an event in the transaction of the change that it tells of.

use chrono::{DateTime, Utc};
use common::EventId;
use diesel::QueryResult;
use diesel::result::Error;
use diesel::sql_types::{Jsonb, Nullable, Text, Timestamptz, Uuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use events::Event;

use crate::trace;

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
    diesel::sql_query(
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
