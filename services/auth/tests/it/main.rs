//! Auth as a client, an operator and another service see it: the real program on a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect fails")]

mod accounts;
mod administration;
mod bad_input;
mod faults;
mod keys;
mod mail;
mod notices;
mod operators;
mod own_account;
mod password_reset;
mod passwords;
mod refresh;
mod registration;
mod sessions;
mod shutdown;
mod smtp;
mod support;
mod throttling;
mod tickets;
mod totp;
mod trust;
mod verification;
