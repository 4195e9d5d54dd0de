//! What `bench/chat` measures with. That script starts the servers and fills the database; this program is started by it
//! twice:
//!
//! - `bench-chat stub FOLDER`: the keys of tokens. Writes the users into `FOLDER/users`, and their tokens into
//!   `FOLDER/tokens`.
//! - `bench-chat measure FOLDER [PART...]`: the measurements, or those that are named, on the servers that
//!   `FOLDER/servers` lists. [`fan_out`]: everybody in a room hears a message. [`writes`]: how many are stored. [`idle`]:
//!   memory. [`storm`]: everybody comes back. [`sessions`]: of Socket.IO. [`client`] and [`speech`] are what they speak
//!   with; [`service`] is a chat service of one measurement alone.
//!
//! Exits with 1 when something could not be measured, or when the control was not 1.00 ± 0.10.

mod client;
mod fan_out;
mod idle;
mod service;
mod sessions;
mod speech;
mod storm;
mod writes;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use anyhow::Context as _;
use bench::servers;
use common::UserId;
use tokio::task::LocalSet;

use crate::client::User;

/// How many users there are, and in how many rooms they are, one in each.
const USERS: usize = 5_000;
const ROOMS: usize = 100;
/// Memory first: what a server has needed once it keeps for later.
const PARTS: [&str; 5] = ["idle", "fan-out", "writes", "storm", "socket-io"];

/// What a measurement found.
struct Part {
    /// As Markdown.
    text: String,
    targets: Vec<Target>,
    /// Whether the machine was quiet enough for the figures to count.
    is_valid: bool,
}

/// What was aimed at.
struct Target {
    what: String,
    aim: &'static str,
    figure: String,
    is_met: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["stub", folder] => stub(Path::new(folder)),
        ["measure", folder, ref parts @ ..] if parts.iter().all(|part| PARTS.contains(part)) => {
            measure(Path::new(folder), if parts.is_empty() { &PARTS } else { parts })
        }
        _ => Err(anyhow::anyhow!("usage: bench-chat stub|measure FOLDER [{}]...", PARTS.join("|"))),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-chat: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until it is ended.
fn stub(folder: &Path) -> anyhow::Result<bool> {
    let issuer = testkit::Issuer::start();
    let (mut users, mut tokens) = (String::new(), String::new());
    for number in 0..USERS {
        let id = UserId::new();
        writeln!(users, "{number} {id}")?;
        writeln!(tokens, "{}", issuer.token(id, &format!("User number {number}")))?;
    }
    fs::write(folder.join("users"), users)?;
    fs::write(folder.join("tokens"), tokens)?;
    let port = issuer.url.rsplit(':').next().context("an address ends with a port")?;
    // The script looks for the file, so it must appear whole.
    fs::write(folder.join("stub.new"), port)?;
    fs::rename(folder.join("stub.new"), folder.join("stub"))?;
    loop {
        thread::park();
    }
}

/// Measures `parts`, and prints what comes out as Markdown. Whether all of it was measured, and counts.
fn measure(folder: &Path, parts: &[&str]) -> anyhow::Result<bool> {
    let servers = servers::read(&folder.join("servers"))?;
    let tokens = fs::read_to_string(folder.join("tokens")).context("the tokens of the stub")?;
    let users = tokens.lines().enumerate().map(|(number, token)| User { number, token: token.to_owned() });
    let users: Vec<_> = users.collect();

    let mut targets = Vec::new();
    let mut is_whole = true;
    for part in parts {
        // One thread: the other core is the servers'.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (title, measured) = LocalSet::new().block_on(&runtime, async {
            match *part {
                "fan-out" => ("Everybody hears it", fan_out::measure(&servers, &users).await),
                "writes" => ("Messages stored", writes::measure(&servers, &users, folder).await),
                "idle" => ("Memory", idle::measure(&servers, &users, folder).await),
                "storm" => ("Everybody comes back", storm::measure(&servers, &users, folder).await),
                _ => ("Sessions of Socket.IO", sessions::measure(&servers, &users).await),
            }
        });
        println!("### {title}\n");
        match measured {
            Ok(part) => {
                println!("{}", part.text);
                targets.extend(part.targets);
                is_whole &= part.is_valid;
            }
            // The others count all the same.
            Err(error) => {
                println!("**Not measured**: {error:#}\n");
                is_whole = false;
            }
        }
    }

    println!("### Targets\n\n| what | target | measured | |\n|---|---|---|---|");
    for Target { what, aim, figure, is_met } in targets {
        println!("| {what} | {aim} | {figure} | {} |", if is_met { "met" } else { "**missed**" });
    }
    Ok(is_whole)
}
