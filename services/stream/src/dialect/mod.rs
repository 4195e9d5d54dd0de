//! What media servers send, each in its own dialect, as the one [`Call`] that the rest of the service understands.

mod nginx_rtmp;

use crate::call::Call;

/// Why a body is no call of a media server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoCall {
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{0}` has control characters")]
    ControlCharacters(&'static str),
}

/// Reads what a media server has sent. `None`: nothing follows from it.
pub(crate) fn read(body: &[u8]) -> Result<Option<Call>, NoCall> {
    nginx_rtmp::read(body)
}
