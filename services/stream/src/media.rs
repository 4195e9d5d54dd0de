//! Media servers, as far as we ask and order them.

use crate::domain::Connection;

/// The media servers that we can reach.
pub(crate) struct Servers;

impl Servers {
    /// Has the media server disconnect this connection, if we can reach it. Where we cannot, the answer to its next
    /// heartbeat does it.
    pub(crate) async fn send_away(&self, _connection: &Connection) {}
}
