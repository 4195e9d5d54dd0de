//! The idle connections of one worker to one instance.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;

/// How long a connection may lie idle. It is well below the 75 seconds after which our services close one, so that
/// a request is not sent just as the other side hangs up.
const IDLE: Duration = Duration::from_secs(30);
/// The most idle connections kept, above the number of requests that one worker has in flight.
const MAX_IDLE: usize = 1024;

/// Idle connections, the one used last at the back.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: RefCell<VecDeque<Connection>>,
    trust: Cell<Trust>,
}

impl Pool {
    /// The connection used last that is still good. Older ones so come to rest, and expire.
    ///
    /// `is_delicate`: it is for a request that cannot be sent again if the instance closes the connection just then. Such
    /// a request gets none that has been idle for longer than this instance is known to keep them.
    pub(super) fn take(&self, is_delicate: bool) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        drop_expired(&mut idle, now);
        let mut trust = self.trust.get();
        let mut taken = None;
        while let Some(connection) = idle.pop_back() {
            let age = now - connection.idle_since;
            if !connection.is_quiet() {
                trust.lose(age, now);
            } else if is_delicate && !trust.covers(age) {
                idle.push_back(connection);
                break;
            } else {
                taken = Some(connection);
                break;
            }
        }
        if is_delicate {
            learn(&mut idle, &mut trust, now);
        }
        self.trust.set(trust);
        taken
    }

    /// Keep a connection whose exchange is complete in both directions.
    pub(super) fn put(&self, mut connection: Connection) {
        let now = Instant::now();
        connection.is_reused = true;
        connection.idle_since = now;
        connection.timer.stop();
        let mut idle = self.idle.borrow_mut();
        drop_expired(&mut idle, now);
        // The oldest stay: what is learnt of an instance is learnt from them.
        if idle.len() < MAX_IDLE {
            idle.push_back(connection);
        }
    }
}

fn drop_expired(idle: &mut VecDeque<Connection>, now: Instant) {
    while idle.front().is_some_and(|oldest| now - oldest.idle_since > IDLE) {
        idle.pop_front();
    }
}

/// Sees what has become of the oldest connections.
fn learn(idle: &mut VecDeque<Connection>, trust: &mut Trust, now: Instant) {
    while let Some(oldest) = idle.front() {
        let age = now - oldest.idle_since;
        if oldest.is_quiet() {
            trust.gain(age, now);
            return;
        }
        trust.lose(age, now);
        idle.pop_front();
    }
}

/// How long an instance is known to keep idle connections.
///
/// No request can be saved that arrives just before the instance closes: its kernel has taken it and throws it away, and
/// nobody can tell that from a request that was read. It can only be avoided to send one where that may happen. So
/// nothing is believed of an instance until one of its connections has lain idle for [`Trust::EARNED`], and no more than
/// that for longer times. One that closes a connection sooner than it was believed to is not believed for
/// [`Trust::LOST`].
#[derive(Debug, Clone, Copy, Default)]
struct Trust {
    /// The longest that a connection was seen to lie idle and be open.
    kept: Duration,
    lost_until: Option<Instant>,
}

impl Trust {
    /// How long a connection must have been kept before that means anything. By then an instance that closes quickly or
    /// at random has shown it.
    const EARNED: Duration = Duration::from_secs(1);
    const LOST: Duration = Duration::from_secs(10);

    fn covers(&self, age: Duration) -> bool {
        age < self.kept
    }

    fn gain(&mut self, age: Duration, now: Instant) {
        if age >= Self::EARNED && self.lost_until.is_none_or(|until| until <= now) {
            self.kept = self.kept.max(age);
        }
    }

    fn lose(&mut self, age: Duration, now: Instant) {
        if age < self.kept.max(Self::EARNED) {
            *self = Self { kept: Duration::ZERO, lost_until: Some(now + Self::LOST) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_instance_is_believed_to_keep_connections_as_long_as_it_was_seen_to() {
        let now = Instant::now();
        let mut trust = Trust::default();
        trust.gain(SECOND / 2, now);
        assert!(!trust.covers(Duration::ZERO));
        trust.gain(5 * SECOND, now);
        trust.gain(2 * SECOND, now);
        assert!(trust.covers(4 * SECOND) && !trust.covers(5 * SECOND));
        // It closes them after some time, and we have not waited for longer anyway.
        trust.lose(6 * SECOND, now);
        assert!(trust.covers(4 * SECOND));
    }

    #[test]
    fn one_that_closes_sooner_is_not_believed_for_a_while() {
        let now = Instant::now();
        for closed_after in [Duration::ZERO, SECOND / 2, 4 * SECOND] {
            let mut trust = Trust::default();
            trust.gain(5 * SECOND, now);
            trust.lose(closed_after, now);
            trust.gain(5 * SECOND, now + 9 * SECOND);
            assert!(!trust.covers(Duration::ZERO));
            trust.gain(5 * SECOND, now + 10 * SECOND);
            assert!(trust.covers(SECOND));
        }
    }
}
