//! The backplane in Redis.

use std::time::Duration;

use redis::AsyncCommands as _;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::sync::OnceCell;

use crate::Away;

/// A call that takes longer has failed: the caller is quicker without.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest pause before Redis is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Shared {
    client: redis::Client,
    prefix: String,
    /// One connection for all; it reconnects by itself.
    connection: std::sync::Arc<OnceCell<ConnectionManager>>,
}

impl Shared {
    pub(crate) fn new(url: &str, prefix: &str) -> Result<Self, Away> {
        Ok(Self { client: redis::Client::open(url)?, prefix: prefix.to_owned(), connection: Default::default() })
    }

    async fn connection(&self) -> Result<ConnectionManager, Away> {
        let connect = || {
            let config = ConnectionManagerConfig::new()
                .set_response_timeout(Some(PATIENCE))
                .set_connection_timeout(Some(PATIENCE))
                .set_number_of_retries(0)
                .set_max_delay(LONGEST_PAUSE);
            ConnectionManager::new_with_config(self.client.clone(), config)
        };
        Ok(self.connection.get_or_try_init(connect).await?.clone())
    }

    fn key(&self, key: &str) -> String {
        format!("{}:{key}", self.prefix)
    }

    fn counter(&self, key: &str) -> String {
        format!("{}:count:{key}", self.prefix)
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Away> {
        Ok(self.connection().await?.get(self.key(key)).await?)
    }

    pub(crate) async fn set(&self, key: &str, value: Vec<u8>, ttl: Duration) -> Result<(), Away> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        Ok(self.connection().await?.pset_ex(self.key(key), value, ttl_ms).await?)
    }

    pub(crate) async fn count(&self, key: &str) -> Result<i64, Away> {
        let count: Option<i64> = self.connection().await?.get(self.counter(key)).await?;
        Ok(count.unwrap_or(0))
    }

    pub(crate) async fn increment(&self, key: &str, ttl: Duration) -> Result<i64, Away> {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX).max(1);
        let key = self.counter(key);
        let (count,) = redis::pipe()
            .atomic()
            .incr(&key, 1)
            .pexpire(&key, ttl_ms)
            .ignore()
            .query_async(&mut self.connection().await?)
            .await?;
        Ok(count)
    }

    pub(crate) async fn add_all(&self, counts: &[(String, i64)], ttl: Duration) -> Result<Vec<i64>, Away> {
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX).max(1);
        let mut pipe = redis::pipe();
        for (key, by) in counts {
            let key = self.counter(key);
            pipe.incr(&key, *by).pexpire(&key, ttl_ms).ignore();
        }
        Ok(pipe.query_async(&mut self.connection().await?).await?)
    }

    pub(crate) async fn ping(&self) -> Result<(), Away> {
        Ok(self.connection().await?.ping().await?)
    }
}
