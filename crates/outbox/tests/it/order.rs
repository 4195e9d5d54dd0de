//! In which order events take effect, and who handles them.

use std::sync::Mutex;

use crate::house::{House, execute, fine, number, shared};

on_both_transports!(
    events_take_effect_in_the_order_of_their_changes,
    several_relays_keep_the_order,
    several_consumers_take_turns,
    what_was_handled_is_gone_from_its_queue,
);

async fn events_take_effect_in_the_order_of_their_changes(house: House) {
    // More than one batch, and some of it before the relay starts.
    house.publish(0..120).await;
    house.relay();
    house.consume(fine);
    house.publish(120..200).await;

    house.expect_effects(0..200).await;
    house.close().await;
}

async fn several_relays_keep_the_order(house: House) {
    for _ in 0..3 {
        house.relay();
    }
    house.consume(fine);

    house.publish(0..100).await;

    house.expect_effects(0..100).await;
    house.close().await;
}

async fn several_consumers_take_turns(house: House) {
    let (by_first, seen_by_first) = shared(Mutex::new(Vec::new()));
    house.relay();
    let first = house.consume(move |envelope| {
        seen_by_first.lock().unwrap().push(number(envelope));
        Ok(())
    });
    house.publish(0..10).await;
    house.expect_effects(0..10).await;

    house.consume(fine);
    house.publish(10..20).await;
    house.expect_effects(0..20).await;
    assert_eq!(*by_first.lock().unwrap(), (0..20).collect::<Vec<_>>());

    first.stop().await;
    house.publish(20..30).await;
    house.expect_effects(0..30).await;
    assert_eq!(by_first.lock().unwrap().len(), 20);
    house.close().await;
}

async fn what_was_handled_is_gone_from_its_queue(house: House) {
    house.relay();
    let first = house.consume(fine);
    house.publish(0..10).await;
    house.expect_effects(0..10).await;
    first.stop().await;
    // Now whatever comes again takes effect again.
    execute(&house.sink, "DELETE FROM inbox").await;

    house.consume(fine);
    house.publish([10]).await;

    house.expect_effects(0..11).await;
    house.close().await;
}
