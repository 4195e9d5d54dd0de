//! What took effect already.

use chrono::{DateTime, TimeDelta, Utc};
use common::EventId;
use diesel::{ExpressionMethods, QueryDsl, QueryResult};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

diesel::table! {
    inbox (consumer, event_id) {
        consumer -> Text,
        event_id -> Uuid,
        handled_at -> Timestamptz,
    }
}

/// How much older than the event at hand a remembered event must be to be forgotten.
///
/// A second copy comes from a relay that died before it could delete, and is close behind, or it was parked and is
/// replayed. Counting from the event at hand and not from today keeps this true for a consumer that was away for
/// months.
const REMEMBER_FOR: TimeDelta = TimeDelta::days(30);

/// How long after it was parked an event is replayed without an operator who names it: while a copy of it that took
/// effect is remembered, less a day for clocks that differ.
pub(crate) const REPLAY_WITHIN: TimeDelta = TimeDelta::days(29);

/// The most rows that one call forgets.
const FORGET_AT_ONCE: i64 = 1000;

/// Remember that the event takes effect in this transaction. False when it did before.
///
/// While another transaction is about to remember the same event, this waits for it.
pub(crate) async fn remember(conn: &mut AsyncPgConnection, consumer: &str, event_id: EventId) -> QueryResult<bool> {
    let rows = diesel::insert_into(inbox::table)
        .values((inbox::consumer.eq(consumer), inbox::event_id.eq(event_id.0)))
        .on_conflict_do_nothing()
        .execute(conn)
        .await?;
    Ok(rows == 1)
}

/// Forget some of what is so old that no copy can come any more, given an event that the consumer just handled.
pub(crate) async fn forget_old(
    conn: &mut AsyncPgConnection,
    consumer: &str,
    occurred_at: DateTime<Utc>,
) -> QueryResult<usize> {
    let old = inbox::table
        .filter(inbox::consumer.eq(consumer))
        .filter(inbox::handled_at.lt(occurred_at - REMEMBER_FOR))
        .order(inbox::handled_at)
        .limit(FORGET_AT_ONCE)
        .select(inbox::event_id)
        .load::<uuid::Uuid>(conn)
        .await?;
    if old.is_empty() {
        return Ok(0);
    }
    diesel::delete(inbox::table.filter(inbox::consumer.eq(consumer)).filter(inbox::event_id.eq_any(old)))
        .execute(conn)
        .await
}
