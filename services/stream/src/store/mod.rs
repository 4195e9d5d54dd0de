//! The tables of the schema `stream`. A connection in, domain types out.

pub(crate) mod broadcasts;
pub(crate) mod recordings;
pub(crate) mod streams;
pub(crate) mod users;
pub(crate) mod viewers;
