//! The backplane of a single process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::pace::Pace;
use crate::presence::{Attendance, Beat, Groups, Lasting};
use crate::recent::Recent;

/// More values than this are never kept, nor more bytes of them: then what has expired goes, and if that is not
/// enough, all values do. They can all be made again.
const MOST: usize = 10_000;
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// So many counters, and so many keys that something was tried under. Beyond, those go that were not used for longest.
const MOST_COUNTERS: usize = 100_000;

#[derive(Clone, Default)]
pub(crate) struct Memory {
    entries: Arc<Mutex<Entries>>,
    /// By itself, so that a beat never waits for the cache.
    groups: Arc<Mutex<Groups>>,
}

struct Entries {
    values: HashMap<String, Value>,
    /// Of all values, keys included.
    bytes: usize,
    counters: Recent<Counter>,
    tries: Recent<Tries>,
}

impl Default for Entries {
    fn default() -> Self {
        Self {
            values: HashMap::new(),
            bytes: 0,
            counters: Recent::new(MOST_COUNTERS),
            tries: Recent::new(MOST_COUNTERS),
        }
    }
}

struct Value {
    bytes: Vec<u8>,
    expires: Instant,
}

struct Counter {
    count: i64,
    expires: Instant,
}

struct Tries {
    count: u32,
    /// No other try before.
    pause_ends: Instant,
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
        let expires = now + ttl;
        match entries.counters.get(key) {
            Some(counter) if counter.expires > now => {
                *counter = Counter { count: counter.count.saturating_add(by), expires };
                counter.count
            }
            _ => {
                entries.counters.put(key.to_owned(), Counter { count: by, expires });
                by
            }
        }
    }

    pub(crate) fn count(&self, key: &str) -> i64 {
        let mut entries = self.lock();
        entries.counters.get(key).filter(|counter| counter.expires > Instant::now()).map_or(0, |counter| counter.count)
    }

    pub(crate) fn attempt(&self, tries: &[(String, Pace)]) -> Option<Duration> {
        let mut entries = self.lock();
        let now = Instant::now();
        let waits = tries.iter().filter_map(|(key, _)| {
            let known = entries.tries.get(key).filter(|tries| tries.expires > now)?;
            Some(known.pause_ends.saturating_duration_since(now))
        });
        let wait = waits.max().unwrap_or_default();
        if !wait.is_zero() {
            return Some(wait);
        }
        for (key, pace) in tries {
            let known = entries.tries.get(key).filter(|tries| tries.expires > now);
            let count = known.map_or(0, |tries| tries.count).saturating_add(1);
            let pause_ends = now + pace.pause(count).unwrap_or_default();
            entries.tries.put(key.clone(), Tries { count, pause_ends, expires: now + pace.forget });
        }
        None
    }

    pub(crate) fn take_back(&self, key: &str) {
        if let Some(tries) = self.lock().tries.get(key) {
            tries.count = tries.count.saturating_sub(1);
        }
    }

    pub(crate) fn forget_tries(&self, key: &str) {
        self.lock().tries.remove(key);
    }

    pub(crate) fn beat(&self, group: &str, member: &str, position_ms: u64, lasting: Lasting) -> Beat {
        self.groups().beat(group, member, position_ms, lasting, Instant::now())
    }

    pub(crate) fn attendance(&self, groups: &[String], lasting: Lasting) -> Vec<Attendance> {
        self.groups().attendance(groups, lasting, Instant::now())
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert_eq!(memory.add("counter", 1, HOUR), 1);
    }

    #[test]
    fn counters_have_a_bound_and_those_in_use_stay() {
        let memory = Memory::default();
        for n in 0..2 * MOST_COUNTERS {
            memory.add(&format!("once {n}"), 1, HOUR);
            if n % 1000 == 0 {
                memory.add("often", 1, HOUR);
            }
        }
        assert!(memory.lock().counters.len() <= MOST_COUNTERS);
        assert_eq!(memory.count("often"), 200);
    }

    #[test]
    fn tries_have_a_bound_and_are_forgotten_in_time() {
        let memory = Memory::default();
        let pace = Pace { free: 1, first: HOUR, longest: HOUR, forget: Duration::ZERO };
        for n in 0..2 * MOST_COUNTERS {
            assert_eq!(memory.attempt(&[(format!("key {n}"), pace)]), None);
        }
        assert!(memory.lock().tries.len() <= MOST_COUNTERS);
        assert_eq!(memory.attempt(&[(format!("key {}", 2 * MOST_COUNTERS - 1), pace)]), None, "it was forgotten");
    }
}
