//! What `bench/streams` measures with. That script starts the servers and fills the database; this program is started by
//! it twice:
//!
//! - `bench-streams stub FOLDER`: the keys of tokens and what auth tells. Nobody sends a token here, but the gateway and
//!   the stream service ask for them.
//! - `bench-streams measure FOLDER [PART...]`: the measurements, or those that are named, on the servers that
//!   `FOLDER/servers` lists, with the media server's secret in `FOLDER/secret`. [`lists`]: CPU a request. [`uncached`]:
//!   beside the same SQL. [`news`]: from a callback to whoever listens. [`webhooks`]: how many. [`viewers`]: beats of
//!   players. [`calls`]: what they are made of.
//!
//! Exits with 1 when something could not be measured, or when the control was not 1.00 ± 0.05.

mod calls;
mod lists;
mod news;
mod uncached;
mod viewers;
mod webhooks;

use std::fs;
use std::num::NonZeroU64;
use std::path::Path;
use std::process::ExitCode;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bench::servers;

/// Every so many of the streams that `bench/streams.sql` makes is live: their ids are multiples of it.
const LIVE_EVERY: u32 = 200;
/// How many that are.
const LIVE: u32 = 500;
const PATH: &str = "/api/v1/streams";
const PARTS: [&str; 5] = ["lists", "uncached", "news", "webhooks", "viewers"];

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
    what: &'static str,
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
        _ => Err(anyhow::anyhow!("usage: bench-streams stub|measure FOLDER [{}]...", PARTS.join("|"))),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-streams: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until it is ended.
fn stub(folder: &Path) -> anyhow::Result<bool> {
    let issuer = testkit::Issuer::start();
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
    // Otherwise the kernel lets every wait last 50 µs longer. Threads have it from whoever starts them.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let servers = servers::read(&folder.join("servers"))?;
    let server = |name: &str| servers::find(&servers, name);
    let (stream, gateway) = (server("stream")?, server("cached")?);
    let secret = fs::read_to_string(folder.join("secret")).context("the secret of the media server")?;

    let mut targets = Vec::new();
    let mut is_whole = true;
    for part in parts {
        let (title, measured) = match *part {
            "lists" => ("Lists", lists::measure(&servers, &folder.join("wrk.lua"))),
            "uncached" => {
                ("Lists without the cache, beside their SQL", uncached::measure(server("stream_uncached")?, folder))
            }
            "news" => {
                let ways = [("direct", stream), ("through the gateway", gateway)];
                ("From a callback to whoever listens", news::measure(&ways, &secret))
            }
            "webhooks" => ("How many callbacks", webhooks::measure(stream, server("postgres")?, folder, &secret)),
            _ => ("Viewers over HLS", viewers::measure(stream)),
        };
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

/// Waits until `due`, and no longer than a few microseconds.
fn wait_until(due: Instant) {
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// What a thread has returned.
fn joined<T>(thread: ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    thread.join().unwrap_or_else(|_panic| bail!("a thread panicked: see above"))
}

/// As milliseconds, with two places.
fn milliseconds(microseconds: f64) -> String {
    format!("{:.2} ms", Duration::from_secs_f64(microseconds / 1e6).as_secs_f64() * 1e3)
}
