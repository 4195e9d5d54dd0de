//! `amphi`: every service in one process, or those that `--target` names.

use std::process::ExitCode;

use chassis::Service;

/// The gateway comes last: it starts when the others serve, and stops before they close.
const SERVICES: &[Service] = &[auth::SERVICE, stream::SERVICE, chat::SERVICE, gateway::SERVICE];

fn main() -> ExitCode {
    chassis::cli::main("amphi", SERVICES)
}
