//! One way to be a service.
//!
//! - [`env`]: configuration, read once and described where it is read.
//! - [`service`]: what a service is to the process that runs it, and the settings that all share.
//! - [`run`]: starts services in one process and stops them; [`cli`] is the command line around it.
//! - [`http`] and [`admin`]: the public and the private server; [`health`]: readiness with reasons.
//! - [`db`]: pool and migrations of a schema; [`embedded_postgres`]: the database when none is configured.
//! - [`telemetry`]: logs, traces, metrics. [`access_log`]: a line a request. [`trust`]: what auth tells of tokens. [`tasks`]: tracked tasks.
//! - [`upgrade`]: connections that go on as WebSockets.
//! - [`docs`]: writes the documents that follow from the code.

pub mod access_log;
pub mod admin;
pub mod cli;
pub mod db;
pub mod docs;
pub mod embedded_postgres;
pub mod env;
pub mod health;
pub mod http;
pub mod postgres_binaries;
pub mod run;
pub mod secrets;
pub mod service;
pub mod tasks;
pub mod telemetry;
pub mod trust;
pub mod upgrade;

mod log_sink;

pub use env::{ConfigError, Env, Stage};
pub use service::{App, Command, Context, Core, Order, Service, Start};
pub use tasks::Tasks;
