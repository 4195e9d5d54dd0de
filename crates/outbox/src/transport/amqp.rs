//! RabbitMQ.
//!
//! ```text
//! exchange <namespace>.events (topic) ─► queue <namespace>.<queue> ─► queue <namespace>.<queue>.parked
//! ```
//!
//! Everything is durable and replicated (quorum queues). Every process declares all of it on every connection, and
//! every relay once a minute besides, so no order of starting, and no broker that lost its data, loses an event.
//! Declaring with other arguments than before fails: a queue whose arguments must change gets a new name.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use common::{Clock, Secret, SystemClock};
use events::{Envelope, Subscription};
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    ANSWER_WITHIN, Content, DELIVERY_LIMIT, LIST_AT_MOST, Parked, Replay, Replayed, TAIL_AT_MOST, TransportError,
};
use crate::trace::TRACEPARENT;

/// A broker that says nothing for twice this long is gone.
const HEARTBEAT_SECONDS: u16 = 10;

/// How often a relay declares everything again. The broker confirms an event that one queue takes although another
/// that should take it is gone, so nothing but looking tells that a queue is missing.
const DECLARE_EVERY: Duration = Duration::from_secs(60);

/// How long a new connection waits before it publishes into what it declared.
///
/// RabbitMQ writes down within a second where the log of a new queue is. Killed before that, it would come back with
/// the queue and without the events that it confirmed, and accept no more.
const SETTLE: Duration = Duration::from_millis(1500);

/// The most events that may be parked in one queue. Then parking fails, and the consumer waits with the event at
/// hand until an operator has made room: nothing is dropped.
const PARKED_AT_MOST: u32 = 100_000;

/// Looking at parked events counts as delivering them. This limit is never reached; without it, RabbitMQ 4 would
/// drop what was looked at 20 times.
const LOOK_AT_MOST: u32 = 1_000_000_000;

const REASON: &str = "x-reason";
const ATTEMPTS: &str = "x-attempts";
const PARKED_AT: &str = "x-parked-at";

/// What RabbitMQ needs to know of us, and we of it.
#[derive(Debug, Clone)]
pub struct AmqpOptions {
    /// `amqp://` or `amqps://`, with the credentials.
    pub url: Secret,
    /// What names of exchanges and queues begin with, so that installations can share a broker. `amphi` by default;
    /// at most 100 bytes.
    pub namespace: String,
    /// How the process is called in the broker's list of connections.
    pub process: String,
    /// Every queue, also those of other services.
    pub subscriptions: &'static [Subscription],
}

/// Events through RabbitMQ 3.10 or later. It connects when it is used, and again when the connection was lost.
#[derive(Clone)]
pub struct Amqp(Arc<Inner>);

struct Inner {
    uri: AMQPUri,
    options: AmqpOptions,
    /// Publishing has a connection of its own: a broker short of memory stops reading from those that publish, and
    /// consumers must still be able to acknowledge.
    publishing: Link,
    consuming: Link,
}

/// One of the two connections, made anew when it was lost.
struct Link {
    /// For the broker's list of connections.
    purpose: &'static str,
    /// How long it waits after declaring, before it is used.
    settle: Duration,
    connection: Mutex<Option<Connection>>,
    /// Set when a queue may be gone: then a new connection makes it anew, and waits until it has settled.
    is_suspect: AtomicBool,
}

impl Link {
    fn new(purpose: &'static str, settle: Duration) -> Self {
        Self { purpose, settle, connection: Mutex::default(), is_suspect: AtomicBool::default() }
    }
}

impl Amqp {
    /// Fails when the address cannot be read. Does not connect.
    pub fn new(options: AmqpOptions) -> Result<Self, TransportError> {
        // What the parser says is left out: it may be the address itself, with the password.
        let Ok(mut uri) = AMQPUri::from_str(options.url.expose()) else { return Err(TransportError::Address) };
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let publishing = Link::new("publishing", SETTLE);
        let consuming = Link::new("consuming", Duration::ZERO);
        Ok(Self(Arc::new(Inner { uri, options, publishing, consuming })))
    }

    pub(super) fn subscriptions(&self) -> &'static [Subscription] {
        self.0.options.subscriptions
    }

    pub(super) fn publisher(&self) -> AmqpPublisher {
        AmqpPublisher { amqp: self.clone(), channel: None, declared_at: Instant::now(), declare_every: DECLARE_EVERY }
    }

    pub(super) async fn subscribe(&self, queue: &str) -> Result<AmqpDeliveries, TransportError> {
        let channel = self.channel(&self.0.consuming).await?;
        // One at a time: only the event that brings a consumer down comes nearer to the delivery limit.
        answered(channel.basic_qos(1, BasicQosOptions::default())).await?;
        let (name, tag) = (self.queue(queue).into(), ShortString::default());
        let consume = channel.basic_consume(name, tag, BasicConsumeOptions::default(), FieldTable::default());
        let consumer = answered(consume).await?;
        Ok(AmqpDeliveries {
            channel,
            consumer,
            parked: self.parked_queue(queue),
            queue: queue.to_owned(),
            publisher: self.publisher(),
            at_hand: None,
        })
    }

    pub(super) async fn parked(&self, queue: &str) -> Result<Vec<Parked>, TransportError> {
        let channel = self.channel(&self.0.consuming).await?;
        let mut parked = Vec::new();
        while parked.len() < LIST_AT_MOST
            && let Some(message) =
                channel.basic_get(self.parked_queue(queue).into(), BasicGetOptions::default()).await?
        {
            parked.push(describe(queue, &message.delivery));
        }
        give_back(&channel).await?;
        Ok(parked)
    }

    pub(super) async fn replay(&self, queue: &str, which: Replay) -> Result<Replayed, TransportError> {
        let channel = self.channel(&self.0.consuming).await?;
        let publishing = self.confirming_channel().await?;
        let not_before = which.not_before();
        let mut replayed = Replayed::default();
        let mut left = None;
        while left != Some(0)
            && let Some(message) =
                channel.basic_get(self.parked_queue(queue).into(), BasicGetOptions::default()).await?
        {
            // As many as there are now: what is parked again meanwhile is left for the next replay.
            left = Some(left.map_or(message.message_count, |left| left - 1));
            let Delivery { data, properties, .. } = &message.delivery;
            let parked = describe(queue, &message.delivery);
            if !which.takes(parked.event_id) {
                continue;
            }
            // One that does not say when it was parked counts as old: None is less than any time.
            if parked.parked_at < not_before {
                replayed.too_old += 1;
            } else {
                let properties = properties.clone().with_headers(only_traceparent(properties));
                let target = Target { exchange: String::new(), routing_key: self.queue(queue), mandatory: true };
                publish(&publishing, &target, data, properties, Instant::now() + ANSWER_WITHIN).await?;
                message.delivery.ack(BasicAckOptions::default()).await?;
                replayed.count += 1;
            }
        }
        give_back(&channel).await?;
        Ok(replayed)
    }

    pub(super) async fn tail(&self, pattern: &str) -> Result<AmqpTail, TransportError> {
        let channel = self.channel(&self.0.consuming).await?;
        let options = QueueDeclareOptions::exclusive().auto_delete();
        let bound = arguments([("x-max-length", AMQPValue::LongUInt(TAIL_AT_MOST))]);
        let queue = channel.queue_declare(ShortString::default(), options, bound).await?;
        let exchange = self.exchange().into();
        let bind = QueueBindOptions::default();
        channel.queue_bind(queue.name().clone(), exchange, pattern.into(), bind, FieldTable::default()).await?;
        let consumer = channel
            .basic_consume(
                queue.name().clone(),
                ShortString::default(),
                BasicConsumeOptions { no_ack: true, ..Default::default() },
                FieldTable::default(),
            )
            .await?;
        Ok(AmqpTail { consumer, pattern: pattern.to_owned() })
    }

    /// A new channel, on a new connection if the last one was lost. Everything is declared when this returns, also
    /// what somebody has deleted meanwhile.
    async fn channel(&self, link: &Link) -> Result<Channel, TransportError> {
        let mut slot = link.connection.lock().await;
        let is_suspect = link.is_suspect.swap(false, Ordering::Relaxed);
        if let Some(connection) = &*slot
            && connection.status().connected()
            && !is_suspect
            && let Ok(channel) = answered(connection.create_channel()).await
        {
            self.declare(&channel).await?;
            return Ok(channel);
        }
        *slot = None;
        let name = format!("{} ({})", self.0.options.process, link.purpose);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connection = answered(Connection::connect_uri(self.0.uri.clone(), properties)).await?;
        let channel = answered(connection.create_channel()).await?;
        self.declare(&channel).await?;
        sleep(link.settle).await;
        *slot = Some(connection);
        Ok(channel)
    }

    async fn confirming_channel(&self) -> Result<Channel, TransportError> {
        let channel = self.channel(&self.0.publishing).await?;
        answered(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    /// Declare everything. A repeat changes nothing.
    async fn declare(&self, channel: &Channel) -> Result<(), TransportError> {
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let declare = async {
            channel
                .exchange_declare(self.exchange().into(), ExchangeKind::Topic, durable, FieldTable::default())
                .await?;
            for subscription in self.subscriptions() {
                self.declare_queue(channel, subscription).await?;
            }
            Ok(())
        };
        answered(declare).await
    }

    async fn declare_queue(&self, channel: &Channel, subscription: &Subscription) -> lapin::Result<()> {
        let parked = self.parked_queue(subscription.queue);
        let quorum = ("x-queue-type", AMQPValue::LongString("quorum".into()));
        // Rejecting is what lets the broker wait for the parked queue instead of dropping what it dead-letters.
        let reject = ("x-overflow", AMQPValue::LongString("reject-publish".into()));
        let options = QueueDeclareOptions::durable();
        channel
            .queue_declare(
                parked.as_str().into(),
                options,
                arguments([
                    quorum.clone(),
                    reject.clone(),
                    ("x-max-length", AMQPValue::LongUInt(PARKED_AT_MOST)),
                    ("x-delivery-limit", AMQPValue::LongUInt(LOOK_AT_MOST)),
                ]),
            )
            .await?;
        let queue = self.queue(subscription.queue);
        channel
            .queue_declare(
                queue.as_str().into(),
                options,
                arguments([
                    quorum,
                    reject,
                    // Several processes of a consumer take turns, so that the order holds.
                    ("x-single-active-consumer", AMQPValue::Boolean(true)),
                    ("x-delivery-limit", AMQPValue::LongUInt(DELIVERY_LIMIT)),
                    ("x-dead-letter-exchange", AMQPValue::LongString("".into())),
                    ("x-dead-letter-routing-key", AMQPValue::LongString(parked.into())),
                    ("x-dead-letter-strategy", AMQPValue::LongString("at-least-once".into())),
                ]),
            )
            .await?;
        for pattern in subscription.patterns {
            let bind = QueueBindOptions::default();
            channel
                .queue_bind(
                    queue.as_str().into(),
                    self.exchange().into(),
                    (*pattern).into(),
                    bind,
                    FieldTable::default(),
                )
                .await?;
        }
        Ok(())
    }

    /// Whether a queue takes events of this name.
    fn is_subscribed(&self, name: &str) -> bool {
        self.subscriptions().iter().any(|subscription| subscription.takes(name))
    }

    fn exchange(&self) -> String {
        format!("{}.events", self.0.options.namespace)
    }

    fn queue(&self, queue: &str) -> String {
        format!("{}.{queue}", self.0.options.namespace)
    }

    fn parked_queue(&self, queue: &str) -> String {
        format!("{}.{queue}.parked", self.0.options.namespace)
    }
}

/// One channel with confirms, opened again after every failure: a confirm that comes late is for nobody.
pub(crate) struct AmqpPublisher {
    amqp: Amqp,
    channel: Option<Channel>,
    /// When everything was last declared on the channel.
    declared_at: Instant,
    declare_every: Duration,
}

impl AmqpPublisher {
    /// Have a channel, and everything declared a minute ago at most.
    pub(super) async fn connect(&mut self) -> Result<(), TransportError> {
        let channel = match self.channel.take().filter(|channel| channel.status().connected()) {
            Some(channel) if self.declared_at.elapsed() < self.declare_every => channel,
            Some(channel) => {
                self.amqp.declare(&channel).await?;
                self.declared_at = Instant::now();
                channel
            }
            None => {
                let channel = self.amqp.confirming_channel().await?;
                self.declared_at = Instant::now();
                channel
            }
        };
        self.channel = Some(channel);
        Ok(())
    }

    /// Each is confirmed before the next is sent, so that one which is refused is not overtaken.
    pub(super) async fn publish_in_order(&mut self, envelopes: &[Envelope]) -> (usize, Option<TransportError>) {
        let deadline = Instant::now() + ANSWER_WITHIN;
        for (published, envelope) in envelopes.iter().enumerate() {
            if let Err(error) = self.publish_event(envelope, deadline).await {
                return (published, Some(error));
            }
        }
        (envelopes.len(), None)
    }

    async fn publish_event(&mut self, envelope: &Envelope, deadline: Instant) -> Result<(), TransportError> {
        let mut headers = FieldTable::default();
        if let Some(traceparent) = &envelope.traceparent {
            headers.insert(TRACEPARENT.into(), AMQPValue::LongString(traceparent.as_str().into()));
        }
        let properties = durable(headers)
            .with_message_id(envelope.event_id.to_string().into())
            .with_type(envelope.name.as_str().into())
            .with_timestamp(envelope.occurred_at.timestamp().unsigned_abs());
        let target = Target {
            exchange: self.amqp.exchange(),
            routing_key: envelope.name.clone(),
            mandatory: self.amqp.is_subscribed(&envelope.name),
        };
        self.publish(&target, &serde_json::to_vec(envelope)?, properties, deadline).await
    }

    /// Needs [`AmqpPublisher::connect`] before: to connect takes longer than a publish may.
    async fn publish(
        &mut self,
        target: &Target,
        body: &[u8],
        properties: BasicProperties,
        deadline: Instant,
    ) -> Result<(), TransportError> {
        // Out of its place: only a publish that worked puts it back.
        let channel = self.channel.take().ok_or(TransportError::NotConnected)?;
        let published = publish(&channel, target, body, properties, deadline).await;
        match &published {
            Ok(()) => self.channel = Some(channel),
            Err(TransportError::Refused(_)) => self.amqp.0.publishing.is_suspect.store(true, Ordering::Relaxed),
            Err(_) => {}
        }
        published
    }
}

/// What a queue gives to this process while it is the active one.
pub(crate) struct AmqpDeliveries {
    channel: Channel,
    consumer: lapin::Consumer,
    queue: String,
    parked: String,
    publisher: AmqpPublisher,
    at_hand: Option<Delivery>,
}

impl AmqpDeliveries {
    pub(super) async fn next(&mut self) -> Result<Content, TransportError> {
        let Some(delivery) = self.consumer.next().await else {
            return Err(TransportError::Unsubscribed(self.queue.clone()));
        };
        let content = serde_json::from_slice(&delivery.as_ref().map_err(Clone::clone)?.data);
        self.at_hand = Some(delivery?);
        Ok(content.map_err(|error| error.to_string()))
    }

    pub(super) async fn ack(&mut self) -> Result<(), TransportError> {
        match self.at_hand.take() {
            Some(delivery) if delivery.ack(BasicAckOptions::default()).await? => Ok(()),
            _ => Err(TransportError::Unsubscribed(self.queue.clone())),
        }
    }

    pub(super) async fn park(&mut self, reason: &str, attempts: u32) -> Result<(), TransportError> {
        let Some(delivery) = &self.at_hand else {
            return Err(TransportError::Unsubscribed(self.queue.clone()));
        };
        self.publisher.connect().await?;
        let now = SystemClock.now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut headers = only_traceparent(&delivery.properties);
        headers.insert(REASON.into(), AMQPValue::LongString(reason.into()));
        headers.insert(ATTEMPTS.into(), AMQPValue::LongUInt(attempts));
        headers.insert(PARKED_AT.into(), AMQPValue::LongString(now.into()));
        let properties = delivery.properties.clone().with_headers(headers).with_delivery_mode(PERSISTENT);
        let target = Target { exchange: String::new(), routing_key: self.parked.clone(), mandatory: true };
        self.publisher.publish(&target, &delivery.data, properties, Instant::now() + ANSWER_WITHIN).await?;
        self.ack().await
    }
}

impl Drop for AmqpDeliveries {
    /// Close the channel at once. A consumer that is dropped alone would be cancelled first, and the next one would
    /// be given later events before the one at hand is given back.
    fn drop(&mut self) {
        // Sending it is all that can be done here; that the broker answers changes nothing.
        let _ = self.channel.close(SUCCESS, "done".into()).now_or_never();
    }
}

/// What is published, for somebody who watches.
pub(crate) struct AmqpTail {
    consumer: lapin::Consumer,
    pattern: String,
}

impl AmqpTail {
    pub(super) async fn next(&mut self) -> Result<Envelope, TransportError> {
        match self.consumer.next().await {
            Some(delivery) => Ok(serde_json::from_slice(&delivery?.data)?),
            None => Err(TransportError::Unsubscribed(self.pattern.clone())),
        }
    }
}

/// Where a message goes.
struct Target {
    /// Empty for straight into the queue that the routing key names.
    exchange: String,
    routing_key: String,
    /// Whether reaching no queue is a refusal.
    mandatory: bool,
}

const PERSISTENT: u8 = 2;

/// What AMQP closes with when nothing is wrong.
const SUCCESS: u16 = 200;

/// Everything that was fetched and not acknowledged.
const ALL: u64 = 0;

fn durable(headers: FieldTable) -> BasicProperties {
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers)
}

/// Ok means that the broker has it: only a positive confirm without a returned message says so.
async fn publish(
    channel: &Channel,
    target: &Target,
    body: &[u8],
    properties: BasicProperties,
    deadline: Instant,
) -> Result<(), TransportError> {
    let options = BasicPublishOptions { mandatory: target.mandatory, ..Default::default() };
    let exchange = target.exchange.as_str().into();
    let routing_key = target.routing_key.as_str().into();
    let confirmed = async { channel.basic_publish(exchange, routing_key, options, body, properties).await?.await };
    match timeout_at(deadline, confirmed).await {
        Ok(Ok(Confirmation::Ack(None))) => Ok(()),
        Ok(Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)))) => {
            Err(TransportError::Refused(format!("{} reached no queue: {}", target.routing_key, returned.reply_text)))
        }
        Ok(Ok(Confirmation::Nack(None))) => {
            Err(TransportError::Refused(format!("a queue did not take {}", target.routing_key)))
        }
        Ok(Ok(Confirmation::NotRequested)) => Err(TransportError::Refused("it was not asked to confirm".to_owned())),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(TransportError::Timeout(ANSWER_WITHIN.as_secs())),
    }
}

/// Put back what was fetched and not acknowledged. It is there again when this returns.
async fn give_back(channel: &Channel) -> lapin::Result<()> {
    channel.basic_nack(ALL, BasicNackOptions { multiple: true, requeue: true }).await?;
    channel.close(SUCCESS, "done".into()).await
}

/// The answer, in bounded time.
async fn answered<T>(answer: impl Future<Output = lapin::Result<T>>) -> Result<T, TransportError> {
    match timeout(ANSWER_WITHIN, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(TransportError::Timeout(ANSWER_WITHIN.as_secs())),
    }
}

fn arguments<const N: usize>(pairs: [(&str, AMQPValue); N]) -> FieldTable {
    pairs.into_iter().map(|(name, value)| (name.into(), value)).collect::<BTreeMap<_, _>>().into()
}

/// What an event is sent on with: its trace, and nothing of what happened to it in a queue.
fn only_traceparent(properties: &BasicProperties) -> FieldTable {
    let mut headers = FieldTable::default();
    if let Some(traceparent) = header(properties, TRACEPARENT) {
        headers.insert(TRACEPARENT.into(), traceparent.clone());
    }
    headers
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

/// A message of a parked queue, as an operator sees it.
fn describe(queue: &str, message: &Delivery) -> Parked {
    let envelope: Option<Envelope> = serde_json::from_slice(&message.data).ok();
    let text = |name| header(&message.properties, name).and_then(AMQPValue::as_long_string).map(ToString::to_string);
    let death = Death::of(&message.properties);
    Parked {
        queue: queue.to_owned(),
        event_id: envelope.as_ref().map(|envelope| envelope.event_id),
        name: envelope.map(|envelope| envelope.name),
        reason: text(REASON).or_else(|| death.as_ref().map(Death::reason)).unwrap_or_default(),
        attempts: match header(&message.properties, ATTEMPTS) {
            Some(AMQPValue::LongUInt(attempts)) => *attempts,
            _ => death.as_ref().map_or(0, |_| DELIVERY_LIMIT),
        },
        parked_at: match text(PARKED_AT) {
            Some(at) => DateTime::parse_from_rfc3339(&at).ok().map(|at| at.to_utc()),
            None => death.and_then(|death| death.at),
        },
        body: serde_json::from_slice(&message.data)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&message.data).into_owned())),
    }
}

/// What the broker writes on a message that it parks by itself.
struct Death {
    reason: String,
    at: Option<DateTime<Utc>>,
}

impl Death {
    fn of(properties: &BasicProperties) -> Option<Self> {
        let AMQPValue::FieldArray(deaths) = header(properties, "x-death")? else { return None };
        let AMQPValue::FieldTable(last) = deaths.as_slice().first()? else { return None };
        let last = last.inner();
        Some(Self {
            reason: last.get("reason")?.as_long_string()?.to_string(),
            at: match last.get("time") {
                Some(AMQPValue::Timestamp(seconds)) => DateTime::from_timestamp(i64::try_from(*seconds).ok()?, 0),
                _ => None,
            },
        })
    }

    fn reason(&self) -> String {
        match self.reason.as_str() {
            "delivery_limit" => super::delivery_limit_reason(),
            other => format!("the broker parked it: {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use common::EventId;
    use lapin::options::QueueDeleteOptions;

    use super::*;

    const QUEUES: [&str; 2] = ["one.things", "other.things"];

    const SUBSCRIPTIONS: &[Subscription] = &[
        Subscription { queue: QUEUES[0], patterns: &["test.#"], purpose: "It is deleted." },
        Subscription { queue: QUEUES[1], patterns: &["test.#"], purpose: "It stays." },
    ];

    fn amqp(url: &str, namespace: &str) -> Result<Amqp, TransportError> {
        let (url, namespace) = (Secret::new(url), namespace.to_owned());
        Amqp::new(AmqpOptions { url, namespace, process: "test".to_owned(), subscriptions: SUBSCRIPTIONS })
    }

    #[test]
    fn an_address_that_cannot_be_read_is_not_repeated() {
        for url in ["amqp:ana:hunter2@broker:5672/amphi", "http://ana:hunter2@broker", "ana:hunter2@broker", "hunter2"]
        {
            let error = amqp(url, "amphi").err().unwrap();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
            assert!(error.to_string().contains("amqp://user:password@host:port/vhost"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_queue_is_made_anew_although_another_takes_its_events() {
        let namespace = testkit::amqp_namespace(&QUEUES);
        let amqp = amqp(&namespace.url, &namespace.name).unwrap();
        let mut publisher = AmqpPublisher { declare_every: Duration::ZERO, ..amqp.publisher() };
        let envelope = Envelope {
            event_id: EventId::new(),
            name: "test.thing.counted.v1".to_owned(),
            occurred_at: DateTime::UNIX_EPOCH,
            traceparent: None,
            data: Value::Null,
        };
        publisher.connect().await.unwrap();
        let channel = publisher.channel.clone().unwrap();
        channel.queue_delete(amqp.queue(QUEUES[0]).into(), QueueDeleteOptions::default()).await.unwrap();

        publisher.connect().await.unwrap();
        assert_eq!(publisher.publish_in_order(std::slice::from_ref(&envelope)).await.0, 1);

        for queue in QUEUES {
            let mut deliveries = amqp.subscribe(queue).await.unwrap();
            let content =
                timeout(ANSWER_WITHIN, deliveries.next()).await.unwrap_or_else(|_| panic!("{queue} is empty"));
            assert_eq!(content.unwrap().unwrap().event_id, envelope.event_id);
        }
    }
}
