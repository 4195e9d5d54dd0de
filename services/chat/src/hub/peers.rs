//! Which instances are gone without having said so: what they have noted of who is there counts no more.
//!
//! Each instance counts up where the others see it. One that no longer does was killed, hangs or has lost its network. That is
//! one call an instance every few seconds, whatever there are of rooms.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::presence::Where;
use super::{Hub, lock};

/// How often an instance counts up.
const BEAT_EVERY: Duration = Duration::from_secs(3);
/// One that has not done so for this time is gone: longer than a process stands still that is merely busy. Less than three
/// beats, so that the third look finds it.
const GONE_AFTER: Duration = Duration::from_secs(8);
/// How long a count can be seen: longer than what its instance has noted of rooms, which must not outlive it.
const LASTS: Duration = Duration::from_secs(90);
/// Where they count.
const BOARD: &str = "chat:instances";

/// The other instances.
#[derive(Default)]
pub(super) struct Peers {
    /// What this one has counted up to.
    beats: AtomicU64,
    others: Mutex<HashMap<u64, Peer>>,
}

#[derive(Clone, Copy)]
struct Peer {
    count: u64,
    /// It was there then, as far as could be seen.
    seen_at: Instant,
    is_gone: bool,
}

impl Peers {
    pub(super) fn is_gone(&self, instance: u64) -> bool {
        lock(&self.others).get(&instance).is_some_and(|peer| peer.is_gone)
    }

    /// What the others have counted up to; `None`: it cannot be seen. Returns whether one has gone, or come back.
    fn see(&self, counts: Option<&[(u64, u64)]>, now: Instant) -> bool {
        let mut others = lock(&self.others);
        let Some(counts) = counts else {
            // Nobody is gone because we see nothing.
            others.values_mut().for_each(|peer| peer.seen_at = now);
            return false;
        };
        // What was noted by one whose count is gone is gone too.
        others.retain(|instance, _| counts.iter().any(|(other, _)| other == instance));
        let mut is_news = false;
        for (instance, count) in counts {
            let as_seen = Peer { count: *count, seen_at: now, is_gone: false };
            let peer = others.entry(*instance).or_insert(as_seen);
            if peer.count != *count {
                is_news |= peer.is_gone;
                *peer = as_seen;
            } else if !peer.is_gone && now.duration_since(peer.seen_at) >= GONE_AFTER {
                peer.is_gone = true;
                is_news = true;
            }
        }
        is_news
    }
}

impl Hub {
    /// Counts up, and looks who else does.
    async fn beat(&self) {
        let count = self.peers.beats.fetch_add(1, Ordering::Relaxed);
        let note = [self.instance.to_be_bytes(), count.to_be_bytes()].concat();
        let notes = self.backplane.note(BOARD, &self.name(), Some(note), LASTS).await.ok();
        let counts = notes.map(|notes| notes.iter().filter_map(|note| read(note)).collect::<Vec<_>>());
        if self.peers.see(counts.as_deref(), Instant::now()) {
            for room in self.open_rooms() {
                self.stir(room.place.room_id, Where::Elsewhere);
            }
        }
    }
}

/// Counts up every few seconds, until `shutdown`. By itself, so that nothing else that waits for Redis makes it look dead.
pub(crate) async fn beat(hub: Arc<Hub>, shutdown: CancellationToken) {
    if !hub.backplane.is_remote() {
        return;
    }
    let mut beat = tokio::time::interval(BEAT_EVERY);
    loop {
        tokio::select! {
            _ = beat.tick() => hub.beat().await,
            () = shutdown.cancelled() => return,
        }
    }
}

fn read(note: &[u8]) -> Option<(u64, u64)> {
    let (instance, count) = note.split_first_chunk()?;
    Some((u64::from_be_bytes(*instance), u64::from_be_bytes(count.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn an_instance_that_counts_no_more_is_gone_until_it_does() {
        let (peers, start) = (Peers::default(), Instant::now());
        assert!(!peers.see(Some(&[(1, 7), (2, 1)]), start));
        assert!(!peers.see(Some(&[(1, 7), (2, 2)]), start + seconds(3)));
        assert!(peers.see(Some(&[(1, 7), (2, 3)]), start + seconds(9)));
        assert!(peers.is_gone(1) && !peers.is_gone(2) && !peers.is_gone(3));
        assert!(!peers.see(Some(&[(1, 7), (2, 4)]), start + seconds(12)), "that is known already");
        assert!(peers.see(Some(&[(1, 8), (2, 5)]), start + seconds(15)));
        assert!(!peers.is_gone(1));
    }

    #[test]
    fn nobody_is_gone_because_redis_was_away() {
        let (peers, start) = (Peers::default(), Instant::now());
        peers.see(Some(&[(1, 1), (2, 1)]), start);
        peers.see(Some(&[(1, 2), (2, 1)]), start + seconds(9));
        assert!(!peers.see(None, start + seconds(30)));
        assert!(!peers.see(Some(&[(1, 2), (2, 1)]), start + seconds(33)));
        assert!(peers.is_gone(2) && !peers.is_gone(1), "who was gone before still is");
        assert!(peers.see(Some(&[(1, 2), (2, 1)]), start + seconds(39)));
        assert!(peers.is_gone(1));
    }

    #[test]
    fn one_whose_count_is_gone_is_forgotten() {
        let (peers, start) = (Peers::default(), Instant::now());
        peers.see(Some(&[(1, 1)]), start);
        assert!(!peers.see(Some(&[]), start + seconds(60)));
        assert!(!peers.see(Some(&[(1, 1)]), start + seconds(63)));
        assert!(!peers.is_gone(1));
    }
}
