//! Auth as a client, an operator and another service see it: the real program on a real PostgreSQL.

mod accounts;
mod bad_input;
mod faults;
mod operators;
mod support;
