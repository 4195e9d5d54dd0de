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
