//! Tokens that were verified, so that each is verified once and not with every request.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::token::Claims;

/// Parts that are locked one by one, so that threads seldom wait for each other.
const SHARDS: usize = 16;
/// How many tokens a generation of a shard holds. Two generations of all shards are 64 Ki tokens, some 50 MB at the worst.
const MOST: usize = 2048;
/// How much of a token's end finds it. The end is the signature, which nobody can choose, so a few bytes tell tokens apart
/// as well as all would; the rest is compared.
const TAIL: usize = 16;

/// Tokens with what they say. Bounded: when a generation is full it becomes the old one, and what nobody asks for again
/// goes with the next.
#[derive(Default)]
pub(crate) struct Remembered {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    young: HashMap<Tail, Entry, BuildHasherDefault<TailHasher>>,
    old: HashMap<Tail, Entry, BuildHasherDefault<TailHasher>>,
}

/// Hashes the end of a signature, which is as good as random: only its bits need to be spread.
#[derive(Default)]
struct TailHasher(u64);

impl Hasher for TailHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0 ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Tail = [u8; TAIL];

struct Entry {
    token: Box<str>,
    claims: Arc<Claims>,
    /// The revision of what auth has told that the claims were checked against.
    checked_at: u64,
}

impl Remembered {
    /// What `token` says, and at which revision that was checked.
    pub(crate) fn find(&self, token: &str) -> Option<(Arc<Claims>, u64)> {
        let tail = *token.as_bytes().last_chunk()?;
        let mut shard = self.shard(&tail);
        if let Some(entry) = shard.young.get(&tail) {
            return entry.found(token);
        }
        // Asked for again, so it outlives its generation.
        let entry = shard.old.remove(&tail)?;
        let found = entry.found(token);
        shard.insert(tail, entry);
        found
    }

    /// Keeps what `token` says, checked at `revision`.
    pub(crate) fn keep(&self, token: &str, claims: &Arc<Claims>, revision: u64) {
        let Some(&tail) = token.as_bytes().last_chunk() else { return };
        let mut shard = self.shard(&tail);
        match shard.young.get_mut(&tail) {
            Some(entry) if *entry.token == *token => {
                // Another thread may have checked a newer one.
                if entry.checked_at < revision {
                    entry.claims = Arc::clone(claims);
                    entry.checked_at = revision;
                }
            }
            _ => shard.insert(tail, Entry { token: token.into(), claims: Arc::clone(claims), checked_at: revision }),
        }
    }

    fn shard(&self, tail: &Tail) -> MutexGuard<'_, Shard> {
        // The last character of a base64 text carries fewer bits than the others.
        lock(&self.shards[usize::from(tail[TAIL / 2]) % SHARDS])
    }
}

impl Shard {
    fn insert(&mut self, tail: Tail, entry: Entry) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(tail, entry);
    }
}

impl Entry {
    fn found(&self, token: &str) -> Option<(Arc<Claims>, u64)> {
        (*self.token == *token).then(|| (Arc::clone(&self.claims), self.checked_at))
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{AUDIENCE, Role};
    use crate::{SessionId, UserId};

    fn claims() -> Arc<Claims> {
        Arc::new(Claims {
            iss: "amphi".to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: UserId::new(),
            name: "Ana".to_owned(),
            role: Role::Member,
            sid: SessionId::new(),
            iat: 0,
            nbf: None,
            exp: 1,
        })
    }

    #[test]
    fn a_token_is_found_by_all_of_it() {
        let remembered = Remembered::default();
        let claims = claims();
        remembered.keep("header.claims.0123456789abcdef", &claims, 7);
        assert_eq!(remembered.find("header.claims.0123456789abcdef"), Some((claims, 7)));
        assert_eq!(remembered.find("header.others.0123456789abcdef"), None);
        assert_eq!(remembered.find("short"), None);
    }

    #[test]
    fn it_never_holds_more_than_two_generations_and_keeps_what_is_used() {
        let remembered = Remembered::default();
        let claims = claims();
        let token = |n: usize| format!("header.claims.{n:016}");
        for n in 0..10 * SHARDS * MOST {
            remembered.keep(&token(n), &claims, 0);
            assert!(remembered.find(&token(0)).is_some());
        }
        let sizes = remembered.shards.iter().map(|shard| {
            let shard = lock(shard);
            shard.young.len() + shard.old.len()
        });
        let held: usize = sizes.sum();
        assert!(held <= 2 * SHARDS * MOST);
    }
}
