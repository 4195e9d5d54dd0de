//! What auth tells every process, so that each verifies tokens by itself: the keys, and what has changed since tokens were
//! minted.
//!
//! It travels as a feed that never ends, `GET /internal/trust` of auth: one JSON object a line. The first is a
//! [`Trust::Snapshot`]; then come changes as they commit, and a [`Trust::Beat`] at least every [`BEAT_EVERY`], so that a
//! reader soon notices a feed that has gone quiet. A change may come twice, and each says all there is to know: applying it
//! again changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{SessionId, UserId};
use crate::token::{Jwk, Role};

/// The path of the feed. The gateway does not lead there.
pub const PATH: &str = "/internal/trust";
/// A feed is silent for no longer than this.
pub const BEAT_EVERY: Duration = Duration::from_millis(250);

/// One line of the feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Trust {
    /// Everything there is to know now; what was known before and is not in it is forgotten.
    Snapshot { keys: Vec<Jwk>, ended: Vec<EndedSession>, roles: Vec<UserRole> },
    /// All public keys, instead of those before.
    Keys { keys: Vec<Jwk> },
    /// Sessions that have ended before their time.
    Ended { ended: Vec<EndedSession> },
    /// The roles of users that were changed.
    Roles { roles: Vec<UserRole> },
    /// Nothing has changed.
    Beat,
}

/// A session that was ended: by logging out, by its user elsewhere, by a changed password, by an administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedSession {
    pub sid: SessionId,
    /// When the last token of the session expires, in seconds since 1970: from then on nobody needs to know.
    pub until: i64,
}

/// The role of a user, whatever an older token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRole {
    pub sub: UserId,
    pub role: Role,
    /// When the last token that may say otherwise expires, in seconds since 1970.
    pub until: i64,
}
