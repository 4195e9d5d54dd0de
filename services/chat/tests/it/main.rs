//! Chat, as clients meet it, on a real database.

#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect fails")]

mod conversation_sockets;
mod conversations;
mod delivery;
mod faults;
mod hardship;
mod instances;
mod names;
mod peers;
mod presence;
mod random_frames;
mod rates;
mod reconnects;
mod revocation;
mod rooms;
mod socket_io;
mod sockets;
mod streams;
mod support;
