//! `amphi-stream`: the stream service alone.

fn main() -> std::process::ExitCode {
    chassis::cli::main("amphi-stream", &[stream::SERVICE])
}
