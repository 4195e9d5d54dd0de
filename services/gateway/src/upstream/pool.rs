//! The idle connections of one worker to one upstream.

use std::{cell::RefCell, collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::connection::Connection;

/// How long a connection may lie idle. It is well below the 75 seconds after which our services close one, so that
/// a request is not sent just as the other side hangs up.
const IDLE: Duration = Duration::from_secs(30);
/// The most idle connections kept, above the number of requests that one worker has in flight. One more closes the
/// one that was idle longest.
const MAX_IDLE: usize = 1024;

/// Idle connections, the one used last at the back.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: RefCell<VecDeque<Connection>>,
}

impl Pool {
    /// The connection used last that is still good. Older ones so come to rest, and expire.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        drop_expired(&mut idle);
        while let Some(connection) = idle.pop_back() {
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keep a connection whose exchange is complete in both directions.
    pub(super) fn put(&self, mut connection: Connection) {
        connection.is_reused = true;
        connection.idle_since = Instant::now();
        connection.timer.stop();
        let mut idle = self.idle.borrow_mut();
        drop_expired(&mut idle);
        if idle.len() == MAX_IDLE {
            idle.pop_front();
        }
        idle.push_back(connection);
    }
}

fn drop_expired(idle: &mut VecDeque<Connection>) {
    while idle.front().is_some_and(|oldest| oldest.idle_since.elapsed() > IDLE) {
        idle.pop_front();
    }
}
