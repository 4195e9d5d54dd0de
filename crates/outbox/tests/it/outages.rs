//! For each dependency, what happens when it is taken away.

use std::sync::atomic::{AtomicBool, Ordering};

use diesel_async::{AsyncPgConnection, RunQueryDsl};
use events::Envelope;
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueueDeleteOptions};
use outbox::{Handler, HandlerError, Retries};
use serde_json::json;
use testkit::{Postgres, RabbitMq, eventually};
use tokio::sync::mpsc;

use crate::house::{self, House, OTHER_QUEUE, QUEUE, fine, sink, soon, try_commit};

on_both_transports!(
    an_outage_of_the_database_parks_nothing,
    an_inbox_that_is_missing_parks_nothing,
    lost_connections_are_made_anew,
);

/// The first time it is in the middle of a query, and takes what becomes of that for the event's fault.
struct Blame {
    begun: mpsc::UnboundedSender<()>,
    is_first: AtomicBool,
}

impl Handler for Blame {
    async fn handle(&self, conn: &mut AsyncPgConnection, envelope: &Envelope) -> Result<(), HandlerError> {
        if self.is_first.swap(false, Ordering::SeqCst) {
            self.begun.send(()).unwrap();
            let query = diesel::sql_query("SELECT pg_sleep(60)").execute(conn).await;
            return query.map(drop).map_err(|error| HandlerError::Poison(error.to_string()));
        }
        house::Record(fine).handle(conn, envelope).await
    }
}

async fn an_outage_of_the_database_parks_nothing(mut house: House) {
    let postgres = Postgres::private().await;
    let elsewhere = testkit::database_on(&postgres.url()).await;
    house.sink = sink(&elsewhere).await;
    let (begun, mut begins) = mpsc::unbounded_channel();
    house.relay();
    // Parked at the first failure that counts.
    let retries = Retries { tries: 1, ..Retries::default() };
    let mut health = house.consume_with_retries(Blame { begun, is_first: AtomicBool::new(true) }, retries).health;

    house.publish([1, 2]).await;
    soon("an event begins", begins.recv()).await.unwrap();
    postgres.kill().await;
    soon("the consumer has a problem", health.wait_for(|health| health.problem.is_some())).await.unwrap();
    house.publish([3]).await;
    house.expect_all_published().await;
    postgres.start().await;

    soon("the consumer recovers", health.wait_for(|health| health.problem.is_none())).await.unwrap();
    house.expect_effects([1, 2, 3]).await;
    assert_eq!(house.transport.parked(None).await.unwrap(), []);
    house.close().await;
}

async fn an_inbox_that_is_missing_parks_nothing(house: House) {
    house::execute(&house.sink, "ALTER TABLE inbox RENAME TO inbox_elsewhere").await;
    house.relay();
    let retries = Retries { tries: 1, ..Retries::default() };
    let mut health = house.consume_with_retries(house::Record(fine), retries).health;

    house.publish([1]).await;
    soon("the consumer has a problem", health.wait_for(|health| health.problem.is_some())).await.unwrap();
    house::execute(&house.sink, "ALTER TABLE inbox_elsewhere RENAME TO inbox").await;

    house.expect_effects([1]).await;
    assert_eq!(house.transport.parked(None).await.unwrap(), []);
    house.close().await;
}

async fn lost_connections_are_made_anew(house: House) {
    house.relay();
    house.consume(fine);
    house.publish([1]).await;
    house.expect_effects([1]).await;

    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    house::execute(&house.source, cut).await;

    eventually("a commit", async || try_commit(&house.source, 2).await.ok()).await;
    let effects = eventually("the second effect", async || {
        house::try_effects(&house.sink).await.ok().filter(|effects| effects.len() == 2)
    })
    .await;
    assert_eq!(effects, [1, 2]);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_is_away_events_wait_and_readiness_can_say_so() {
    let rabbitmq = RabbitMq::private().await;
    let transport = house::amqp(&rabbitmq.url(), "amphi");
    let house = House::new(testkit::database().await, async |_| transport).await;
    let mut relay = house.relay();
    let mut consumer = house.consume(fine).health;
    house.publish([1]).await;
    house.expect_effects([1]).await;

    rabbitmq.kill().await;
    house.publish([2, 3]).await;
    soon("the relay has a problem", relay.wait_for(|health| health.problem.is_some() && health.waiting == 2))
        .await
        .unwrap();
    assert!(relay.borrow().oldest_waiting.is_some());
    soon("the consumer has a problem", consumer.wait_for(|health| health.problem.is_some())).await.unwrap();
    rabbitmq.start().await;

    house.expect_effects([1, 2, 3]).await;
    soon("the relay recovers", relay.wait_for(|health| health.problem.is_none() && health.waiting == 0)).await.unwrap();
    assert_eq!(relay.borrow().oldest_waiting, None);
    soon("the consumer recovers", consumer.wait_for(|health| health.problem.is_none())).await.unwrap();
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_holds_nothing_up_for_ever() {
    let rabbitmq = RabbitMq::private().await;
    let transport = house::amqp(&rabbitmq.url(), "amphi");
    let house = House::new(testkit::database().await, async |_| transport).await;
    let mut relay = house.relay();
    house.consume(fine);
    house.publish([1]).await;
    house.expect_effects([1]).await;

    rabbitmq.pause().await;
    house.publish([2, 3]).await;
    soon("the relay has a problem", relay.wait_for(|health| health.problem.is_some())).await.unwrap();
    rabbitmq.resume().await;

    // What was sent before it hung may arrive as well as what was sent again.
    house.expect_effects([1, 2, 3]).await;
    house.expect_all_published().await;
    house.publish([4]).await;
    house.expect_effects([1, 2, 3, 4]).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_was_deleted_is_made_anew_before_an_event_is_lost() {
    let house = House::with_rabbitmq().await;
    house.relay();
    house.publish([1]).await;
    house.expect_all_published().await;

    let channel = house.channel().await;
    for queue in [QUEUE, OTHER_QUEUE] {
        channel.queue_delete(name(&house, queue).into(), QueueDeleteOptions::default()).await.unwrap();
    }
    house.publish([2]).await;
    house.consume(fine);

    house.expect_effects([2]).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_outlives_its_queue() {
    let house = House::with_rabbitmq().await;
    house.relay();
    house.consume(fine);
    house.publish([1]).await;
    house.expect_effects([1]).await;

    let options = QueueDeleteOptions::default();
    house.channel().await.queue_delete(name(&house, QUEUE).into(), options).await.unwrap();
    let mut n = 1;
    eventually("an event through the new queue", async || {
        n += 1;
        house.publish([n]).await;
        (house::effects(&house.sink).await.len() > 1).then_some(())
    })
    .await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_an_event_is_parked() {
    let house = House::with_rabbitmq().await;
    house.relay();
    house.consume(fine);
    house.publish([1]).await;
    house.expect_effects([1]).await;

    let body = b"<not an event>";
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let queue = name(&house, QUEUE).into();
    house.channel().await.basic_publish("".into(), queue, options, body, properties).await.unwrap().await.unwrap();
    house.publish([2]).await;

    house.expect_effects([1, 2]).await;
    let parked = house.transport.parked(Some(QUEUE)).await.unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].event_id, parked[0].name.as_deref()), (None, None));
    assert!(parked[0].reason.starts_with("it is not an event"), "{}", parked[0].reason);
    assert_eq!(parked[0].body, json!("<not an event>"));
    house.close().await;
}

fn name(house: &House, queue: &str) -> String {
    format!("{}.{queue}", house.namespace.as_ref().unwrap().name)
}
