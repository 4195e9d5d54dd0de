//! Which queue receives which events, and why.
//!
//! This is part of the shared contract, not of the consumer's code, because every process declares every queue
//! when it connects: an event published before its consumer's first start waits for it.

use crate::matches;

/// A queue and what it receives. One consumer reads it; several processes of that consumer take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// `<service>.<what for>`, lower case. It never changes: a queue under a new name starts empty.
    pub queue: &'static str,
    /// What it receives, as [`crate::matches`] reads it. A pattern may be added; one taken away stays bound on
    /// brokers that have seen it, so a consumer ignores names that it does not know.
    pub patterns: &'static [&'static str],
    /// Why, in one sentence, for readers of the document.
    pub purpose: &'static str,
}

impl Subscription {
    /// Whether the queue receives the event called `name`.
    #[must_use]
    pub fn takes(&self, name: &str) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, name))
    }
}

/// Every queue of the house.
pub const SUBSCRIPTIONS: &[Subscription] = &[
    Subscription {
        queue: "stream.users",
        patterns: &["auth.user.*.v1"],
        purpose: "Stream keeps the names of users, so that a list of streams shows their owners.",
    },
    Subscription {
        queue: "chat.users",
        patterns: &["auth.user.*.v1"],
        purpose: "Chat keeps the names and e-mail addresses of users, so that messages show who wrote them.",
    },
    Subscription {
        queue: "auth.notices",
        patterns: &["stream.live.announced.v1"],
        purpose: "Auth, which has the addresses, sends followers a mail when a stream goes live.",
    },
    Subscription {
        queue: "chat.streams",
        patterns: &["stream.live.started.v1", "stream.live.ended.v1", "stream.stream.deleted.v1"],
        purpose: "Chat opens a room for a stream that goes on air, closes it when that ends, and deletes it with the stream.",
    },
];
