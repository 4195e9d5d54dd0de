//! `amphi-chat`: the chat service alone.

fn main() -> std::process::ExitCode {
    chassis::cli::main("amphi-chat", &[chat::SERVICE])
}
