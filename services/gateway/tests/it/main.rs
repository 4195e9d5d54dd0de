//! The gateway as its users find it: HTTP to a running gateway, with stubs for the services behind it.
#![cfg(test)]

mod access;
mod bodies;
mod connections;
mod docs;
mod documented;
mod headers;
mod http_1_0;
mod limits;
mod log;
mod origins;
mod pages;
mod rates;
mod retries;
mod revocation;
mod routes;
mod shared_rates;
mod smuggling;
mod stickiness;
mod support;
mod tickets;
mod tls;
mod upgrades;
mod upstreams;
