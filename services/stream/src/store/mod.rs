//! The tables of the schema `stream`. A connection in, domain types out.

pub(crate) mod broadcasts;
pub(crate) mod feed;
pub(crate) mod keys;
pub(crate) mod players;
pub(crate) mod recordings;
pub(crate) mod situations;
pub(crate) mod streams;
pub(crate) mod thumbnails;
pub(crate) mod users;
pub(crate) mod webhook_calls;

pub(crate) mod audience;
pub(crate) mod follows;
pub(crate) mod notices;
pub(crate) mod schedules;
