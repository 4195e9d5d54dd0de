//! The tables of the schema `auth`. A connection in, domain types out.

pub(crate) mod invitations;
pub(crate) mod mails;
pub(crate) mod sessions;
pub(crate) mod signing_keys;
pub(crate) mod tickets;
pub(crate) mod totp;
pub(crate) mod trust;
pub(crate) mod users;
