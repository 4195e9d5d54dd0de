//! Names of the test's own on a shared RabbitMQ.

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};

use crate::{block_on_aside, services};

/// A namespace that nobody else uses. What was declared in it goes with this value.
#[derive(Debug)]
pub struct AmqpNamespace {
    pub url: String,
    pub name: String,
    queues: Vec<String>,
}

/// A namespace on the shared RabbitMQ, for a transport with these queues.
#[must_use]
pub fn amqp_namespace(queues: &[&str]) -> AmqpNamespace {
    let name = format!("test-{}", uuid::Uuid::now_v7().simple());
    let queues =
        queues.iter().flat_map(|queue| [format!("{name}.{queue}"), format!("{name}.{queue}.parked")]).collect();
    AmqpNamespace { url: services().amqp_url.clone(), name, queues }
}

impl Drop for AmqpNamespace {
    fn drop(&mut self) {
        let (url, exchange, queues) = (self.url.clone(), format!("{}.events", self.name), self.queues.clone());
        block_on_aside(async move || {
            if let Err(error) = delete(&url, &exchange, &queues).await {
                eprintln!("{exchange} and its queues stay: {error}");
            }
        });
    }
}

async fn delete(url: &str, exchange: &str, queues: &[String]) -> lapin::Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    for queue in queues {
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
    }
    channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await?;
    connection.close(200, "done".into()).await
}
