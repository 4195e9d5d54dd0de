//! How fast messages may come, by user and by room, as this instance counts them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chassis::env::Rate;
use common::{RoomId, UserId};
use tokio::time::Instant;

use crate::error::ChatError;

/// How often a user may begin and stop typing; what is beyond is told to nobody.
const TYPING: Rate = Rate { limit: 20, per: Duration::from_secs(10) };
/// Who is not running ahead of the rate any more is forgotten, when there are this many and more.
const MANY: usize = 1024;

pub(crate) struct Rates {
    users: Limiter<UserId>,
    rooms: Limiter<RoomId>,
    typing: Limiter<UserId>,
}

impl Rates {
    pub(crate) fn new(per_user: Rate, per_room: Rate) -> Self {
        Self { users: Limiter::new(per_user), rooms: Limiter::new(per_room), typing: Limiter::new(TYPING) }
    }

    /// Counts a message of the user.
    pub(crate) fn user(&self, user_id: UserId) -> Result<(), ChatError> {
        self.users.count(user_id, Instant::now()).map_err(ChatError::TooFast)
    }

    /// Counts a message in the room.
    pub(crate) fn room(&self, room_id: RoomId) -> Result<(), ChatError> {
        self.rooms.count(room_id, Instant::now()).map_err(ChatError::TooFast)
    }

    /// Counts that the user begins or stops typing. `false`: too often.
    pub(crate) fn typing(&self, user_id: UserId) -> bool {
        self.typing.count(user_id, Instant::now()).is_ok()
    }
}

/// Lets as many through at once as the rate has; they are replaced one by one, evenly over its time.
struct Limiter<K> {
    rate: Rate,
    state: Mutex<State<K>>,
}

struct State<K> {
    /// When each has all of its rate again.
    full_at: HashMap<K, Instant>,
    prune_at: usize,
}

impl<K: Eq + Hash> Limiter<K> {
    fn new(rate: Rate) -> Self {
        Self { rate, state: Mutex::new(State { full_at: HashMap::new(), prune_at: MANY }) }
    }

    /// Counts one; or how long to wait, and then nothing is counted.
    fn count(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.full_at.len() >= state.prune_at {
            state.full_at.retain(|_, full_at| *full_at > now);
            state.prune_at = MANY.max(2 * state.full_at.len());
        }
        let full_at = state.full_at.entry(key).or_insert(now);
        let next = (*full_at).max(now) + self.rate.per / self.rate.limit;
        match (next - now).checked_sub(self.rate.per) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                *full_at = next;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_then_one_by_one() {
        let limiter = Limiter::new(Rate { limit: 5, per: 10 * SECOND });
        let begin = Instant::now();
        for _ in 0..5 {
            assert_eq!(limiter.count("ana", begin), Ok(()));
        }
        assert_eq!(limiter.count("ana", begin), Err(2 * SECOND));
        assert_eq!(limiter.count("ana", begin + SECOND), Err(SECOND), "what is refused does not count");
        assert_eq!(limiter.count("ben", begin), Ok(()));
        assert_eq!(limiter.count("ana", begin + 2 * SECOND), Ok(()));
        assert_eq!(limiter.count("ana", begin + 2 * SECOND), Err(2 * SECOND));
        for _ in 0..5 {
            assert_eq!(limiter.count("ana", begin + 60 * SECOND), Ok(()), "no more is saved up than the rate");
        }
        assert!(limiter.count("ana", begin + 60 * SECOND).is_err());
    }

    #[test]
    fn who_is_quiet_is_forgotten() {
        let limiter = Limiter::new(Rate { limit: 5, per: SECOND });
        let begin = Instant::now();
        for n in 0..20 * u32::try_from(MANY).unwrap() {
            limiter.count(n, begin + SECOND * n).unwrap();
        }
        assert!(limiter.state.lock().unwrap().full_at.len() <= MANY);
    }
}
