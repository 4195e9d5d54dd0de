//! `amphi-auth`: the auth service alone.

fn main() -> std::process::ExitCode {
    chassis::cli::main("amphi-auth", &[auth::SERVICE])
}
