//! What becomes of an event that cannot be handled.

use std::sync::atomic::{AtomicBool, Ordering};

use events::Envelope;
use outbox::transport::DELIVERY_LIMIT;
use outbox::{Handler, HandlerError, Parked, Replay, TransportError};
use testkit::eventually;
use tokio::sync::mpsc;

use crate::house::{House, OTHER_QUEUE, QUEUE, fine, number, shared};

on_both_transports!(
    an_event_that_keeps_failing_is_parked_and_can_be_replayed,
    poison_is_parked_at_once,
    a_handler_that_panics_does_not_stop_the_queue,
    only_the_chosen_event_is_replayed,
    what_brings_its_consumer_down_is_parked_in_the_end,
    a_queue_that_does_not_exist_is_said_so,
);

async fn parked(house: &House, count: usize) -> Vec<Parked> {
    eventually("parked events", async || {
        let parked = house.transport.parked(Some(QUEUE)).await.unwrap();
        (parked.len() >= count).then_some(parked)
    })
    .await
}

async fn an_event_that_keeps_failing_is_parked_and_can_be_replayed(house: House) {
    let (is_mended, mended) = shared(AtomicBool::new(false));
    house.relay();
    house.consume(move |envelope| {
        if number(envelope) == 1 && !mended.load(Ordering::SeqCst) {
            return Err(HandlerError::Retry("the printer is on fire".to_owned()));
        }
        Ok(())
    });

    let ids = house.publish([1, 2]).await;

    house.expect_effects([2]).await;
    let parked = parked(&house, 1).await;
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].queue, QUEUE);
    assert_eq!(parked[0].event_id, Some(ids[0]));
    assert_eq!(parked[0].name.as_deref(), Some("test.thing.counted.v1"));
    assert_eq!(parked[0].reason, "the printer is on fire");
    assert_eq!(parked[0].attempts, 3);
    assert!(parked[0].parked_at.is_some());
    assert_eq!(parked[0].body["data"]["n"], 1);
    assert_eq!(house.transport.parked(None).await.unwrap(), parked, "looking changes nothing");
    assert_eq!(house.transport.parked(Some(OTHER_QUEUE)).await.unwrap(), []);

    is_mended.store(true, Ordering::SeqCst);
    assert_eq!(house.transport.replay(QUEUE, Replay::All).await.unwrap(), 1);

    house.expect_effects([2, 1]).await;
    assert_eq!(house.transport.parked(None).await.unwrap(), []);
    assert_eq!(house.transport.replay(QUEUE, Replay::All).await.unwrap(), 0);
    house.close().await;
}

async fn poison_is_parked_at_once(house: House) {
    house.relay();
    house.consume(|envelope| match number(envelope) {
        1 => Err(HandlerError::Poison("no such thing".to_owned())),
        _ => Ok(()),
    });

    house.publish([1, 2]).await;

    house.expect_effects([2]).await;
    let parked = parked(&house, 1).await;
    assert_eq!((parked[0].reason.as_str(), parked[0].attempts), ("no such thing", 1));
    house.close().await;
}

async fn a_handler_that_panics_does_not_stop_the_queue(house: House) {
    house.relay();
    house.consume(|envelope| {
        assert_ne!(number(envelope), 1, "this is part of the test");
        Ok(())
    });

    house.publish([1, 2]).await;

    house.expect_effects([2]).await;
    let parked = parked(&house, 1).await;
    assert_eq!((parked[0].reason.as_str(), parked[0].attempts), ("the handler panicked", 3));
    house.close().await;
}

async fn only_the_chosen_event_is_replayed(house: House) {
    let (is_mended, mended) = shared(AtomicBool::new(false));
    house.relay();
    house.consume(move |_| match mended.load(Ordering::SeqCst) {
        true => Ok(()),
        false => Err(HandlerError::Poison("not now".to_owned())),
    });
    let ids = house.publish(0..4).await;
    assert_eq!(parked(&house, 4).await.len(), 4);
    is_mended.store(true, Ordering::SeqCst);

    assert_eq!(house.transport.replay(QUEUE, Replay::One(ids[2])).await.unwrap(), 1);
    house.expect_effects([2]).await;
    let left: Vec<_> = house.transport.parked(Some(QUEUE)).await.unwrap();
    assert_eq!(left.iter().filter_map(|parked| parked.event_id).collect::<Vec<_>>(), [ids[0], ids[1], ids[3]]);

    assert_eq!(house.transport.replay(QUEUE, Replay::All).await.unwrap(), 3);
    house.expect_effects([2, 0, 1, 3]).await;
    house.close().await;
}

async fn what_brings_its_consumer_down_is_parked_in_the_end(house: House) {
    /// Says that it has begun, and never ends.
    struct Hang(mpsc::UnboundedSender<i64>);

    impl Handler for Hang {
        async fn handle(
            &self,
            _: &mut diesel_async::AsyncPgConnection,
            envelope: &Envelope,
        ) -> Result<(), HandlerError> {
            self.0.send(number(envelope)).unwrap();
            std::future::pending().await
        }
    }

    house.relay();
    house.publish([1, 2]).await;
    let (begun, mut begins) = mpsc::unbounded_channel();
    let mut crashes = 0;
    loop {
        let consumer = house.consume_with(Hang(begun.clone()));
        let n = begins.recv().await.unwrap();
        consumer.abort().await;
        if n == 2 {
            break;
        }
        crashes += 1;
        assert!(crashes <= DELIVERY_LIMIT + 1, "it is not parked");
    }
    assert!(crashes >= DELIVERY_LIMIT, "it is parked after {crashes} crashes");

    let parked = parked(&house, 1).await;
    assert_eq!(parked[0].body["data"]["n"], 1);
    assert_eq!(parked[0].attempts, DELIVERY_LIMIT);
    assert!(parked[0].reason.contains("crashed"), "{}", parked[0].reason);
    assert!(parked[0].parked_at.is_some());

    house.consume(fine);
    house.transport.replay(QUEUE, Replay::All).await.unwrap();
    house.expect_effects([2, 1]).await;
    house.close().await;
}

async fn a_queue_that_does_not_exist_is_said_so(house: House) {
    let listed = house.transport.parked(Some("sink.thinks")).await;
    assert!(matches!(listed, Err(TransportError::NoSuchQueue(_))));
    let replayed = house.transport.replay("sink.thinks", Replay::All).await;
    assert!(matches!(replayed, Err(TransportError::NoSuchQueue(_))));
}
