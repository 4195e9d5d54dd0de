//! `amphi-gateway`: the gateway alone.

fn main() -> std::process::ExitCode {
    chassis::cli::main("amphi-gateway", &[gateway::SERVICE])
}
