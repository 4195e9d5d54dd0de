//! What instances of a service share in memory: a cache, counters and tries, in Redis or in this process alone.
//!
//! Nothing here is the truth: PostgreSQL is. Any call may fail when Redis is away, and any value may vanish;
//! callers go on without it. What each caller stores has a time to live.

mod listen;
mod memory;
mod pace;
mod recent;
mod shared;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use crate::listen::{Heard, Listener};
use crate::memory::Memory;
pub use crate::pace::Pace;
use crate::shared::Shared;

/// Redis is away, or answered something else than was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the backplane is away")]
pub struct Away(#[from] redis::RedisError);

/// Shared memory of all instances. Clones are the same memory.
#[derive(Clone)]
pub struct Backplane(Kind);

#[derive(Clone)]
enum Kind {
    Memory(Memory),
    Redis(Shared),
}

impl Backplane {
    /// The memory of this process: for a single instance.
    #[must_use]
    pub fn in_process() -> Self {
        Self(Kind::Memory(Memory::default()))
    }

    /// Redis at `url`; every key begins with `prefix`, so that installations can share one server.
    ///
    /// Does not wait for Redis: calls fail until it is there. Fails when `url` cannot be read.
    pub fn redis(url: &str, prefix: &str) -> Result<Self, Away> {
        Ok(Self(Kind::Redis(Shared::new(url, prefix)?)))
    }

    /// The value of `key`, if it is still there.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Away> {
        match &self.0 {
            Kind::Memory(memory) => Ok(memory.get(key)),
            Kind::Redis(redis) => redis.get(key).await,
        }
    }

    /// Keeps `value` under `key` for `ttl` at most.
    pub async fn set(&self, key: &str, value: Vec<u8>, ttl: Duration) -> Result<(), Away> {
        match &self.0 {
            Kind::Memory(memory) => {
                memory.set(key, value, ttl);
                Ok(())
            }
            Kind::Redis(redis) => redis.set(key, value, ttl).await,
        }
    }

    /// Adds one to the counter `key` and returns it. A counter that is not there counts as 0; it goes `ttl` after
    /// its last increment.
    pub async fn increment(&self, key: &str, ttl: Duration) -> Result<i64, Away> {
        match &self.0 {
            Kind::Memory(memory) => Ok(memory.add(key, 1, ttl)),
            Kind::Redis(redis) => redis.increment(key, ttl).await,
        }
    }

    /// Adds to several counters at once, each by its own number, and returns what they have come to, in order.
    pub async fn add_all(&self, counts: &[(String, i64)], ttl: Duration) -> Result<Vec<i64>, Away> {
        match &self.0 {
            Kind::Memory(memory) => Ok(counts.iter().map(|(key, by)| memory.add(key, *by, ttl)).collect()),
            Kind::Redis(redis) => redis.add_all(counts, ttl).await,
        }
    }

    /// The counter `key`; 0 if it is not there. Counters and values have names of their own.
    pub async fn count(&self, key: &str) -> Result<i64, Away> {
        match &self.0 {
            Kind::Memory(memory) => Ok(memory.count(key)),
            Kind::Redis(redis) => redis.count(key).await,
        }
    }

    /// Counts a try under each of these keys, each at its own pace. If one of them has to wait nothing is counted, and the
    /// answer is how long. One step: of tries that come at once, none is too many.
    pub async fn attempt(&self, tries: &[(String, Pace)]) -> Result<Option<Duration>, Away> {
        match &self.0 {
            Kind::Memory(memory) => Ok(memory.attempt(tries)),
            Kind::Redis(redis) => redis.attempt(tries).await,
        }
    }

    /// Counts one try under `key` less, as it was a good one. A pause that it began stays.
    pub async fn take_back(&self, key: &str) -> Result<(), Away> {
        match &self.0 {
            Kind::Memory(memory) => {
                memory.take_back(key);
                Ok(())
            }
            Kind::Redis(redis) => redis.take_back(key).await,
        }
    }

    /// Forgets all tries under `key`, and its pause.
    pub async fn forget_tries(&self, key: &str) -> Result<(), Away> {
        match &self.0 {
            Kind::Memory(memory) => {
                memory.forget_tries(key);
                Ok(())
            }
            Kind::Redis(redis) => redis.forget_tries(key).await,
        }
    }

    /// Puts up the note of `who` on `board` for `ttl`, in place of the one before, or takes it away; returns those of all
    /// others. One step: of two who do so at once, one sees the other's. A process alone has no others.
    pub async fn note(
        &self,
        board: &str,
        who: &str,
        note: Option<Vec<u8>>,
        ttl: Duration,
    ) -> Result<Vec<Vec<u8>>, Away> {
        match &self.0 {
            Kind::Memory(_) => Ok(Vec::new()),
            Kind::Redis(redis) => redis.note(board, who, note, ttl).await,
        }
    }

    /// The notes on `board` of all but `who`.
    pub async fn notes(&self, board: &str, who: &str) -> Result<Vec<Vec<u8>>, Away> {
        match &self.0 {
            Kind::Memory(_) => Ok(Vec::new()),
            Kind::Redis(redis) => redis.notes(board, who).await,
        }
    }

    /// Tells all instances that listen to `channel`. Whoever is away does not hear of it.
    pub async fn publish(&self, channel: &str, payload: Vec<u8>) -> Result<(), Away> {
        match &self.0 {
            Kind::Memory(_) => Ok(()),
            Kind::Redis(redis) => redis.publish(channel, payload).await,
        }
    }

    /// A listener, which has joined no channel yet, and its work, to be run beside it: that ends when the listener is dropped.
    #[must_use]
    pub fn listen(&self) -> (Listener, Pin<Box<dyn Future<Output = ()> + Send>>) {
        match &self.0 {
            Kind::Memory(_) => (Listener::alone(), Box::pin(std::future::ready(()))),
            Kind::Redis(redis) => {
                let (listener, work) = redis.listen();
                (listener, Box::pin(work))
            }
        }
    }

    /// Whether the memory answers.
    pub async fn probe(&self) -> Result<(), Away> {
        match &self.0 {
            Kind::Memory(_) => Ok(()),
            Kind::Redis(redis) => redis.ping().await,
        }
    }

    /// Whether it is a server of its own, that can be away.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self.0, Kind::Redis(_))
    }
}
