//! The gateway as its users find it: HTTP to a running gateway, with stubs for the services behind it.
#![cfg(test)]

mod access;
mod bodies;
mod connections;
mod docs;
mod headers;
mod http_1_0;
mod log;
mod retries;
mod routes;
mod support;
mod upgrades;
mod upstreams;
