//! What becomes of an event that cannot be handled.

use std::sync::atomic::{AtomicBool, Ordering};

use events::Envelope;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable};
use outbox::transport::DELIVERY_LIMIT;
use outbox::{Handler, HandlerError, Parked, Replay, Replayed, TransportError};
use testkit::eventually;
use tokio::sync::mpsc;

use crate::house::{self, House, OTHER_QUEUE, QUEUE, fine, number, shared, soon};

on_both_transports!(
    an_event_that_keeps_failing_is_parked_and_can_be_replayed,
    poison_is_parked_at_once,
    a_handler_that_panics_does_not_stop_the_queue,
    only_the_chosen_event_is_replayed,
    what_was_parked_long_ago_is_replayed_when_it_is_named,
    a_reason_is_cut_to_what_can_be_carried,
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

fn replayed(count: u64) -> Replayed {
    Replayed { count, too_old: 0 }
}

/// Make the one parked event look as if it was parked 30 days ago.
async fn age(house: &House) {
    let Some(namespace) = &house.namespace else {
        let aged = "UPDATE broker.messages SET parked_at = parked_at - interval '30 days' WHERE parked_at IS NOT NULL";
        assert_eq!(house::execute(&house.source, aged).await, 1);
        return;
    };
    let channel = house.channel().await;
    let parked = format!("{}.{QUEUE}.parked", namespace.name);
    let message = channel.basic_get(parked.as_str().into(), BasicGetOptions::default()).await.unwrap().unwrap();
    let (old, data) = (message.delivery.properties.clone(), message.delivery.data.clone());
    let mut headers: FieldTable = old.headers().clone().unwrap();
    headers.insert("x-parked-at".into(), AMQPValue::LongString("2026-01-01T00:00:00.000Z".into()));
    let (options, properties) = (BasicPublishOptions::default(), old.with_headers(headers));
    channel.basic_publish("".into(), parked.into(), options, &data, properties).await.unwrap().await.unwrap();
    message.delivery.ack(BasicAckOptions::default()).await.unwrap();
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
    assert_eq!(house.transport.replay(QUEUE, Replay::All).await.unwrap(), replayed(1));

    house.expect_effects([2, 1]).await;
    assert_eq!(house.transport.parked(None).await.unwrap(), []);
    assert_eq!(house.transport.replay(QUEUE, Replay::All).await.unwrap(), replayed(0));
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

    assert_eq!(house.transport.replay(QUEUE, Replay::One(ids[2])).await.unwrap(), replayed(1));
    house.expect_effects([2]).await;
    let left: Vec<_> = house.transport.parked(Some(QUEUE)).await.unwrap();
    assert_eq!(left.iter().filter_map(|parked| parked.event_id).collect::<Vec<_>>(), [ids[0], ids[1], ids[3]]);

    assert_eq!(house.transport.replay(QUEUE, Replay::All).await.unwrap(), replayed(3));
    house.expect_effects([2, 0, 1, 3]).await;
    house.close().await;
}

async fn what_was_parked_long_ago_is_replayed_when_it_is_named(house: House) {
    let (is_mended, mended) = shared(AtomicBool::new(false));
    house.relay();
    house.consume(move |_| match mended.load(Ordering::SeqCst) {
        true => Ok(()),
        false => Err(HandlerError::Poison("not now".to_owned())),
    });
    let old = house.publish([1]).await[0];
    parked(&house, 1).await;
    age(&house).await;
    house.publish([2]).await;
    parked(&house, 2).await;
    is_mended.store(true, Ordering::SeqCst);

    let all = house.transport.replay(QUEUE, Replay::All).await.unwrap();
    assert_eq!(all, Replayed { count: 1, too_old: 1 });
    house.expect_effects([2]).await;
    assert_eq!(parked(&house, 1).await[0].event_id, Some(old));

    assert_eq!(house.transport.replay(QUEUE, Replay::One(old)).await.unwrap(), replayed(1));
    house.expect_effects([2, 1]).await;
    house.close().await;
}

async fn a_reason_is_cut_to_what_can_be_carried(house: House) {
    house.relay();
    // More than a frame of RabbitMQ holds; the 1024th byte is in the middle of a character.
    house.consume(|_| Err(HandlerError::Poison(format!("a{}", "é".repeat(200_000)))));

    house.publish([1]).await;

    assert_eq!(parked(&house, 1).await[0].reason, format!("a{}", "é".repeat(511)));
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
        let n = soon("an event begins", begins.recv()).await.unwrap();
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
