//! The whole house, as a newcomer and an operator run it.

#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect fails")]

mod api;
mod architecture;
mod clients;
mod command_line;
mod embedded;
mod followers;
mod house;
mod instances;
mod main_job;
mod news;
mod outages;
mod own_programs;
mod readme;
mod revocation;
mod rolling_restart;
mod telemetry;
mod tokens;
