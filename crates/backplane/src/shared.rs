//! The backplane in Redis.

use std::future::Future;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands as _, Script};
use tokio::sync::OnceCell;

use crate::{Away, Listener, Pace};

/// A call that takes longer has failed: the caller is quicker without.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest pause before Redis is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A key holds how many tries there were, and when the pause ends. By the clock of Redis, which all instances share.
const ATTEMPT: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wait = 0
for _, key in ipairs(KEYS) do
  wait = math.max(wait, tonumber(redis.call('HGET', key, 'pause_ends') or 0) - now)
end
if wait > 0 then return wait end
for i, key in ipairs(KEYS) do
  local free, first, longest, forget = unpack(ARGV, i * 4 - 3, i * 4)
  local doublings = redis.call('HINCRBY', key, 'count', 1) - free
  if doublings >= 0 then
    local pause = math.min(first * 2 ^ math.min(doublings, 31), tonumber(longest))
    redis.call('HSET', key, 'pause_ends', string.format('%.0f', now + pause))
  end
  redis.call('PEXPIRE', key, forget)
end
return 0";

const TAKE_BACK: &str = "
if tonumber(redis.call('HGET', KEYS[1], 'count') or 0) > 0 then redis.call('HINCRBY', KEYS[1], 'count', -1) end";

/// A hash has the note of each, with when it ends in front, by the clock of Redis.
const NOTE: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local who, action, note, ttl = unpack(ARGV)
if action == 'put' then
  redis.call('HSET', KEYS[1], who, string.format('%.0f:', now + ttl) .. note)
  redis.call('PEXPIRE', KEYS[1], ttl)
elseif action == 'take' then
  redis.call('HDEL', KEYS[1], who)
end
local others = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local ends, of = string.match(all[i + 1], '^(%d+):(.*)$')
  if tonumber(ends) < now then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] ~= who then
    others[#others + 1] = of
  end
end
return others";

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

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

    fn tries(&self, key: &str) -> String {
        format!("{}:tries:{key}", self.prefix)
    }

    pub(crate) async fn attempt(&self, tries: &[(String, Pace)]) -> Result<Option<Duration>, Away> {
        let script = Script::new(ATTEMPT);
        let mut call = script.prepare_invoke();
        for (key, pace) in tries {
            call.key(self.tries(key));
            call.arg(pace.free.max(1)).arg(ms(pace.first)).arg(ms(pace.longest)).arg(ms(pace.forget));
        }
        let wait_ms: u64 = call.invoke_async(&mut self.connection().await?).await?;
        Ok((wait_ms > 0).then(|| Duration::from_millis(wait_ms)))
    }

    pub(crate) async fn take_back(&self, key: &str) -> Result<(), Away> {
        Ok(Script::new(TAKE_BACK).key(self.tries(key)).invoke_async(&mut self.connection().await?).await?)
    }

    pub(crate) async fn forget_tries(&self, key: &str) -> Result<(), Away> {
        Ok(self.connection().await?.del(self.tries(key)).await?)
    }

    pub(crate) async fn note(
        &self,
        board: &str,
        who: &str,
        note: Option<Vec<u8>>,
        ttl: Duration,
    ) -> Result<Vec<Vec<u8>>, Away> {
        let action = if note.is_some() { "put" } else { "take" };
        self.board(board, who, action, note.unwrap_or_default(), ttl).await
    }

    pub(crate) async fn notes(&self, board: &str, who: &str) -> Result<Vec<Vec<u8>>, Away> {
        self.board(board, who, "look", Vec::new(), Duration::ZERO).await
    }

    async fn board(
        &self,
        board: &str,
        who: &str,
        action: &str,
        note: Vec<u8>,
        ttl: Duration,
    ) -> Result<Vec<Vec<u8>>, Away> {
        let script = Script::new(NOTE);
        let mut call = script.key(format!("{}:board:{board}", self.prefix));
        call.arg(who).arg(action).arg(note).arg(ms(ttl));
        Ok(call.invoke_async(&mut self.connection().await?).await?)
    }

    pub(crate) async fn publish(&self, channel: &str, payload: Vec<u8>) -> Result<(), Away> {
        Ok(self.connection().await?.publish(self.key(channel), payload).await?)
    }

    pub(crate) fn listen(&self) -> (Listener, impl Future<Output = ()> + Send + use<>) {
        Listener::remote(self.client.clone(), self.prefix.clone())
    }

    pub(crate) async fn ping(&self) -> Result<(), Away> {
        Ok(self.connection().await?.ping().await?)
    }
}
