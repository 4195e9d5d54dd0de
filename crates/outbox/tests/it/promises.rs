//! What holds for every event that is handled.

use std::sync::atomic::{AtomicU32, Ordering};

use chrono::DateTime;
use diesel::result::Error;
use diesel_async::AsyncConnection;
use outbox::HandlerError;
use testkit::eventually;

use crate::house::{House, NobodyAsked, ThingCounted, commit, execute, fine, number, numbers, shared, soon};

on_both_transports!(
    what_was_rolled_back_is_never_published,
    an_event_from_before_its_consumers_first_start_is_waiting,
    an_event_that_arrives_twice_takes_effect_once,
    an_event_that_failed_is_retried_before_the_next,
    every_queue_that_asks_gets_the_event_once,
    an_event_that_nobody_asks_for_leaves_the_outbox,
    whoever_watches_sees_what_matches,
    only_what_is_too_old_to_come_again_is_forgotten,
);

async fn what_was_rolled_back_is_never_published(house: House) {
    house.relay();
    house.consume(fine);

    let mut conn = house.source.get().await.unwrap();
    let rolled_back = conn
        .transaction::<(), _, _>(async |conn| {
            outbox::enqueue(conn, &ThingCounted { n: 1 }, DateTime::UNIX_EPOCH).await?;
            Err(Error::RollbackTransaction)
        })
        .await;
    assert_eq!(rolled_back, Err(Error::RollbackTransaction));
    house.publish([2]).await;

    house.expect_effects([2]).await;
    house.close().await;
}

async fn an_event_from_before_its_consumers_first_start_is_waiting(house: House) {
    house.relay();
    house.publish([1, 2]).await;
    house.expect_all_published().await;

    house.consume(fine);

    house.expect_effects([1, 2]).await;
    house.close().await;
}

async fn an_event_that_arrives_twice_takes_effect_once(house: House) {
    house.relay();
    house.consume(fine);
    house.publish([1]).await;
    house.expect_effects([1]).await;
    house.expect_all_published().await;

    // What a relay leaves that died between the broker's confirm and its own commit.
    execute(
        &house.source,
        "WITH handled AS (SELECT event_id FROM sink.inbox)
         INSERT INTO outbox (event_id, name, occurred_at, data)
         SELECT event_id, 'test.thing.counted.v1', now(), '{\"n\": 1}' FROM handled",
    )
    .await;
    house.publish([2]).await;

    house.expect_effects([1, 2]).await;
    house.close().await;
}

async fn an_event_that_failed_is_retried_before_the_next(house: House) {
    let (failures, left) = shared(AtomicU32::new(2));
    house.relay();
    house.consume(move |envelope| {
        let fails = number(envelope) == 1
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if fails { Err(HandlerError::Retry("not yet".to_owned())) } else { Ok(()) }
    });

    house.publish([1, 2]).await;

    house.expect_effects([1, 2]).await;
    assert_eq!(failures.load(Ordering::SeqCst), 0);
    assert_eq!(house.transport.parked(None).await.unwrap(), []);
    house.close().await;
}

async fn every_queue_that_asks_gets_the_event_once(house: House) {
    let (seen, count) = shared(AtomicU32::new(0));
    house.relay();
    house.consume(fine);
    house.consume_other(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });

    house.publish([1, 2, 3]).await;

    house.expect_effects([1, 2, 3]).await;
    eventually("the other queue's events", async || (seen.load(Ordering::SeqCst) >= 3).then_some(())).await;
    house.close().await;
    assert_eq!(seen.load(Ordering::SeqCst), 3);
}

async fn an_event_that_nobody_asks_for_leaves_the_outbox(house: House) {
    house.relay();
    house.consume(fine);

    commit(&house.source, &NobodyAsked {}).await;
    house.publish([1]).await;

    house.expect_effects([1]).await;
    house.expect_all_published().await;
    house.close().await;
}

async fn whoever_watches_sees_what_matches(house: House) {
    house.relay();
    let mut things = house.transport.tail("test.#").await.unwrap();
    let mut all = house.transport.tail("#").await.unwrap();

    commit(&house.source, &NobodyAsked {}).await;
    house.publish([1]).await;

    assert_eq!(number(&soon("an event", things.next()).await.unwrap()), 1);
    assert_eq!(soon("an event", all.next()).await.unwrap().name, "unheard.thing.happened.v1");
    assert_eq!(number(&soon("an event", all.next()).await.unwrap()), 1);
    house.close().await;
}

async fn only_what_is_too_old_to_come_again_is_forgotten(house: House) {
    execute(
        &house.sink,
        "INSERT INTO inbox (consumer, event_id, handled_at) VALUES
            ('sink.things', gen_random_uuid(), timestamptz '1970-01-01' - interval '31 days'),
            ('sink.things', gen_random_uuid(), timestamptz '1970-01-01' - interval '29 days'),
            ('other.things', gen_random_uuid(), timestamptz '1970-01-01' - interval '31 days')",
    )
    .await;
    house.relay();
    house.consume(fine);

    // The events of these tests occurred at the beginning of 1970.
    house.publish([1]).await;

    house.expect_effects([1]).await;
    let remembered = "SELECT count(*) AS n FROM inbox WHERE consumer = 'sink.things'";
    eventually("one row less", async || (numbers(&house.sink, remembered).await == [2]).then_some(())).await;
    assert_eq!(numbers(&house.sink, "SELECT count(*) AS n FROM inbox").await, [3]);
    house.close().await;
}
