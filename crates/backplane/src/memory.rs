//! The backplane of a single process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More values than this are never kept, nor more bytes of them: then what has expired goes, and if that is not
/// enough, all values do. They can all be made again.
const MOST: usize = 10_000;
const MOST_BYTES: usize = 64 * 1024 * 1024;

#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    values: HashMap<String, Value>,
    /// Of all values, keys included.
    bytes: usize,
    /// Counters are few, small, and not to be made again: only time takes them.
    counters: HashMap<String, Counter>,
}

struct Value {
    bytes: Vec<u8>,
    expires: Instant,
}

struct Counter {
    count: i64,
    expires: Instant,
}

impl Memory {
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let entries = self.lock();
        let value = entries.values.get(key).filter(|value| value.expires > Instant::now())?;
        Some(value.bytes.clone())
    }

    pub(crate) fn set(&self, key: &str, bytes: Vec<u8>, ttl: Duration) {
        let mut entries = self.lock();
        entries.remove(key);
        let size = key.len() + bytes.len();
        if size > MOST_BYTES {
            return;
        }
        if entries.is_too_full_for(size) {
            entries.sweep();
        }
        if entries.is_too_full_for(size) {
            entries.values.clear();
            entries.bytes = 0;
        }
        entries.bytes += size;
        entries.values.insert(key.to_owned(), Value { bytes, expires: Instant::now() + ttl });
    }

    pub(crate) fn add(&self, key: &str, by: i64, ttl: Duration) -> i64 {
        let mut entries = self.lock();
        let now = Instant::now();
        entries.counters.retain(|_, counter| counter.expires > now);
        let counter = entries.counters.entry(key.to_owned()).or_insert(Counter { count: 0, expires: now });
        counter.count = counter.count.saturating_add(by);
        counter.expires = now + ttl;
        counter.count
    }

    pub(crate) fn count(&self, key: &str) -> i64 {
        let entries = self.lock();
        entries.counters.get(key).filter(|counter| counter.expires > Instant::now()).map_or(0, |counter| counter.count)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn is_too_full_for(&self, size: usize) -> bool {
        self.values.len() >= MOST || self.bytes + size > MOST_BYTES
    }

    fn remove(&mut self, key: &str) {
        if let Some(value) = self.values.remove(key) {
            self.bytes -= key.len() + value.bytes.len();
        }
    }

    /// Lets go of what has expired.
    fn sweep(&mut self) {
        let now = Instant::now();
        self.values.retain(|_, value| value.expires > now);
        self.bytes = self.values.iter().map(|(key, value)| key.len() + value.bytes.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn it_never_holds_more_than_its_bound_and_never_loses_a_counter() {
        let memory = Memory::default();
        memory.add("generation", 1, HOUR);
        for n in 0..200 {
            memory.set(&format!("key {n}"), vec![0; 1024 * 1024], HOUR);
            let entries = memory.lock();
            let held: usize = entries.values.iter().map(|(key, value)| key.len() + value.bytes.len()).sum();
            assert!(held <= MOST_BYTES);
            assert_eq!(entries.bytes, held);
        }
        assert!(memory.get("key 199").is_some());
        assert_eq!(memory.count("generation"), 1);
    }

    #[test]
    fn what_has_expired_is_gone() {
        let memory = Memory::default();
        memory.set("key", vec![1], Duration::ZERO);
        assert_eq!(memory.get("key"), None);
        memory.add("counter", 1, Duration::ZERO);
        assert_eq!(memory.count("counter"), 0);
    }
}
