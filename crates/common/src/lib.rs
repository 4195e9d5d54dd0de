//! What the services must agree on.
//!
//! - [`ids`]: typed identifiers, so that a stream id is never taken for a user id.
//! - [`problem`]: the one error format on the wire, RFC 9457.
//! - [`token`]: access tokens, and the [`Caller`] extractor. [`verifier`]: how they are verified without I/O.
//! - [`trust`]: what auth tells every process so that it can: keys, and sessions that have ended.
//! - [`trace`]: the trace that a request belongs to.
//! - [`json`]: bodies of requests. [`page`]: pages of lists, and their bounds.
//! - [`clock`]: time, taken from outside.
//! - [`secret`]: text that must not be printed.
//!
//! It holds no table, no route and no business rule.

pub mod clock;
pub mod ids;
pub mod json;
pub mod page;
pub mod problem;
pub mod secret;
pub mod token;
pub mod trace;
pub mod trust;
pub mod verifier;

mod remembered;

pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use ids::{BroadcastId, ConversationId, EventId, InvitationId, MessageId, RoomId, SessionId, StreamId, UserId};
pub use json::Json;
pub use page::{Page, PageQuery};
pub use problem::{Invalid, Kind, Problem};
pub use secret::Secret;
pub use token::{Caller, Claims, Role};
pub use trace::Trace;
pub use verifier::{SessionWatch, Verified, Verifier};
