//! The backplane of a single process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More entries than this are never kept: then what has expired goes, and if that is not enough, all of it.
const MOST: usize = 10_000;

#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<HashMap<String, Entry>>>);

struct Entry {
    value: Vec<u8>,
    expires: Instant,
}

impl Memory {
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        live(&self.lock(), key).map(|entry| entry.value.clone())
    }

    pub(crate) fn set(&self, key: &str, value: Vec<u8>, ttl: Duration) {
        put(&mut self.lock(), key, value, ttl);
    }

    pub(crate) fn increment(&self, key: &str, ttl: Duration) -> i64 {
        let mut entries = self.lock();
        let old = live(&entries, key).and_then(|entry| std::str::from_utf8(&entry.value).ok()?.parse().ok());
        let new = old.unwrap_or(0_i64).saturating_add(1);
        put(&mut entries, key, new.to_string().into_bytes(), ttl);
        new
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn live<'a>(entries: &'a HashMap<String, Entry>, key: &str) -> Option<&'a Entry> {
    entries.get(key).filter(|entry| entry.expires > Instant::now())
}

fn put(entries: &mut HashMap<String, Entry>, key: &str, value: Vec<u8>, ttl: Duration) {
    let now = Instant::now();
    if entries.len() >= MOST && !entries.contains_key(key) {
        entries.retain(|_, entry| entry.expires > now);
        if entries.len() >= MOST {
            entries.clear();
        }
    }
    entries.insert(key.to_owned(), Entry { value, expires: now + ttl });
}
