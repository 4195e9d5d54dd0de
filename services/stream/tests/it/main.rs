//! Stream as streamers, viewers and media servers see it: the real program on a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect fails")]

mod broadcasts;
mod callbacks;
mod deleted_users;
mod dialects;
mod faults;
mod media_servers;
mod news;
mod reconnects;
mod streams;
mod support;

mod announcements;
mod caching;
mod changes;
mod channels;
mod history;
mod keys;
mod lists;
mod schedules;
mod viewers;
mod visibility;
mod webhook_calls;
mod webhook_proof;
