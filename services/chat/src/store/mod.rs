//! The tables of the schema `chat`. A connection in, domain types out.

pub(crate) mod members;
pub(crate) mod messages;
pub(crate) mod rooms;
pub(crate) mod streams;
pub(crate) mod users;
