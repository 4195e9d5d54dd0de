//! What the measurements share.

pub mod figures;
pub mod http;
pub mod postgres;
pub mod servers;
pub mod wrk;
