//! Events that commit with their change, arrive in order and take effect once.
//!
//! ```text
//! service: change + enqueue ─ one transaction ─► outbox ─ Relay ─► Transport ─► queue ─► Consumer
//!                                                                              Handler + inbox ─ one transaction
//! ```
//!
//! - [`enqueue`]: write an event in the transaction of the change that it tells of.
//! - [`relay`]: publish what was committed, oldest first, and forget what the broker confirmed.
//! - [`transport`]: RabbitMQ, or a broker kept in PostgreSQL; both keep the same promises.
//! - [`consumer`]: handle each event once, retry with back-off, put aside what cannot be handled.
//!
//! What may happen in between (a process, the broker or the database killed at any point) delays an event and may
//! carry it twice; it never loses it, and the inbox sees to it that the second copy does nothing.
//!
//! Events of one service are published in the order of their `seq`. Transactions that run side by side may commit
//! in another order than they enqueued; whoever needs an order between two changes locks a row that both change.
//!
//! A queue has no limit and no expiry, so a consumer that is away for months misses nothing. The queue of a service
//! that is not deployed therefore grows for as long as others publish what it takes; when the broker's disk is full,
//! events wait in the outboxes. To throw away what it holds, purge it: with RabbitMQ
//! `rabbitmqctl purge_queue <namespace>.<queue>`, in-process
//! `DELETE FROM broker.messages WHERE queue = '<queue>' AND parked_at IS NULL`. To be rid of the queue, first deploy a
//! version without its subscription everywhere, as every process makes it anew; then delete `<namespace>.<queue>` and
//! `<namespace>.<queue>.parked`.

mod backoff;
mod enqueue;
mod inbox;
mod listen;
mod trace;

pub mod consumer;
pub mod relay;
pub mod transport;

use diesel_async::AsyncPgConnection;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};

pub use consumer::{Consumer, ConsumerHealth, Handler, HandlerError, Retries};
pub use enqueue::{Pending, enqueue, enqueue_all};
pub use listen::NoConnection;
pub use relay::{Relay, RelayHealth};
pub use transport::{Amqp, AmqpOptions, Local, Parked, Replay, Replayed, Tail, Transport, TransportError};

/// The tables `outbox` and `inbox`. They belong into the schema of every service that publishes or consumes.
pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/outbox");

/// The tables of the in-process transport. They belong into a schema of their own, `broker`.
pub const BROKER_MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/broker");

/// Connections to one schema: each has a `search_path` that names that schema alone.
pub type Pool = diesel_async::pooled_connection::deadpool::Pool<AsyncPgConnection>;
