//! Hearing what other instances publish.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Redis confirms in less, or is away: then the channel is joined when it is back.
const PATIENCE: Duration = Duration::from_millis(500);
/// Before Redis is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// No more messages than these wait to be taken: beyond, the oldest are lost, which is told as a gap.
const MOST_WAITING: usize = 100_000;

/// What a listener hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Message {
        channel: String,
        payload: Vec<u8>,
    },
    /// Something may have been missed: Redis was away, or more came than was taken.
    Gap,
}

/// Hears the channels that it has joined. In a process alone nobody else publishes, so nothing is ever heard.
///
/// Nothing here is reliable: a message may be lost, and then usually but not always a gap is told.
pub struct Listener {
    shared: Option<Remote>,
}

struct Remote {
    joined: Arc<Mutex<HashSet<String>>>,
    orders: mpsc::UnboundedSender<Order>,
    heard: tokio::sync::Mutex<mpsc::Receiver<Heard>>,
    prefix: String,
}

enum Order {
    Join(Vec<String>, oneshot::Sender<()>),
    Leave(String),
}

impl Listener {
    pub(crate) fn alone() -> Self {
        Self { shared: None }
    }

    pub(crate) fn remote(client: redis::Client, prefix: String) -> (Self, impl Future<Output = ()> + Send) {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (told, heard) = mpsc::channel(MOST_WAITING);
        let joined = Arc::new(Mutex::new(HashSet::new()));
        let work = follow(client, Arc::clone(&joined), ordered, told);
        (Self { shared: Some(Remote { joined, orders, heard: tokio::sync::Mutex::new(heard), prefix }) }, work)
    }

    /// Joins channels: what is published there after this returns is heard, if Redis is there.
    pub async fn join(&self, channels: impl IntoIterator<Item = String>) {
        let Some(remote) = &self.shared else { return };
        let channels = channels.into_iter().map(|channel| format!("{}:{channel}", remote.prefix));
        let new: Vec<_> = {
            let mut joined = lock(&remote.joined);
            channels.filter(|channel| joined.insert(channel.clone())).collect()
        };
        if new.is_empty() {
            return;
        }
        let (confirm, confirmed) = oneshot::channel();
        if remote.orders.send(Order::Join(new, confirm)).is_ok() {
            let _ = timeout(PATIENCE, confirmed).await;
        }
    }

    /// Leaves a channel.
    pub fn leave(&self, channel: &str) {
        let Some(remote) = &self.shared else { return };
        let channel = format!("{}:{channel}", remote.prefix);
        if lock(&remote.joined).remove(&channel) {
            let _ = remote.orders.send(Order::Leave(channel)); // Fails only when nothing is followed any more.
        }
    }

    /// What is heard next. Safe to drop.
    pub async fn next(&self) -> Heard {
        let Some(remote) = &self.shared else { return std::future::pending().await };
        match remote.heard.lock().await.recv().await {
            Some(Heard::Message { channel, payload }) => {
                let channel = channel.strip_prefix(&*remote.prefix).and_then(|name| name.strip_prefix(':'));
                Heard::Message { channel: channel.unwrap_or_default().to_owned(), payload }
            }
            Some(Heard::Gap) => Heard::Gap,
            None => std::future::pending().await,
        }
    }
}

/// Keeps a connection with what is joined, until the listener is dropped.
async fn follow(
    client: redis::Client,
    joined: Arc<Mutex<HashSet<String>>>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    told: mpsc::Sender<Heard>,
) {
    let mut is_first = true;
    while !told.is_closed() {
        let _ = follow_once(&client, &joined, &mut orders, &told, is_first).await;
        is_first = false;
        // Who joins meanwhile does not wait: the channel is joined with the others when Redis is back.
        let _ = timeout(PAUSE, async {
            while let Some(order) = orders.recv().await {
                if let Order::Join(_, confirm) = order {
                    let _ = confirm.send(());
                }
            }
        })
        .await;
    }
}

async fn follow_once(
    client: &redis::Client,
    joined: &Mutex<HashSet<String>>,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    told: &mpsc::Sender<Heard>,
    is_first: bool,
) -> redis::RedisResult<()> {
    let away = || redis::RedisError::from((redis::ErrorKind::Io, "Redis took too long"));
    let connection = timeout(PATIENCE, client.get_async_pubsub()).await.map_err(|_late| away())??;
    let (mut sink, mut stream) = connection.split();
    let channels: Vec<String> = lock(joined).iter().cloned().collect();
    if !channels.is_empty() {
        sink.subscribe(channels).await?;
    }
    if !is_first {
        let _ = told.try_send(Heard::Gap);
    }
    let mut is_full = false;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Join(channels, confirm)) => {
                    sink.subscribe(channels).await?;
                    let _ = confirm.send(());
                }
                Some(Order::Leave(channel)) => sink.unsubscribe(channel).await?,
                None => return Ok(()),
            },
            message = stream.next() => {
                let Some(message) = message else { return Ok(()) };
                let channel = message.get_channel_name().to_owned();
                let heard = Heard::Message { channel, payload: message.get_payload_bytes().to_vec() };
                if is_full && told.try_send(Heard::Gap).is_ok() {
                    is_full = false;
                }
                is_full |= told.try_send(heard).is_err();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
