//! Every event and its routing key: the contract that services share.
//!
//! - [`auth`], [`stream`]: the events, one file per service that publishes them.
//! - [`envelope`]: what every event travels in.
//! - [`subscriptions`]: which queue receives which events, and why.
//! - [`pattern`]: how a subscription's patterns are read.
//! - [`asyncapi`]: the same, as a document for people and tools.
//!
//! Events are past tense and carry ids and facts, never rows, secrets or profiles. Fields are only ever added;
//! a change that an old consumer could not read is a `.v2` beside the `.v1`.

pub mod asyncapi;
pub mod auth;
pub mod envelope;
pub mod pattern;
pub mod stream;
pub mod subscriptions;

use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

pub use asyncapi::asyncapi;
pub use auth::{UserDeleted, UserEmailChanged, UserRegistered, UserReinstated, UserRoleChanged, UserSuspended};
pub use envelope::{Envelope, OpenError};
pub use pattern::matches;
pub use stream::{
    EndReason, RecordingReady, StreamAnnounced, StreamDeleted, StreamEnded, StreamScheduledSoon, StreamWentLive,
};
pub use subscriptions::{SUBSCRIPTIONS, Subscription};

/// Something that happened, as other services learn of it.
pub trait Event: Serialize + DeserializeOwned + ToSchema + Send + Sync {
    /// The routing key and the name in the document: `<service>.<thing>.<what happened>.v<N>`, lower case,
    /// at most 255 bytes. It never changes.
    const NAME: &'static str;

    /// What happened, in one sentence, for readers of the document.
    const SUMMARY: &'static str;

    /// One occurrence, for the document. It is fixed, so that a change on the wire shows as a difference.
    fn example() -> Self;
}
