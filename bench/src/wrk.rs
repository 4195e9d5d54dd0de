//! As much load as one request after the other on each connection makes: wrk.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::servers::Server;

pub const CONNECTIONS: usize = 64;
pub const SECONDS: usize = 1;

/// What one run came to.
#[derive(Debug, Clone)]
pub struct Run {
    pub per_second: f64,
    /// CPU seconds a request, of each program that does the work.
    pub cost: Vec<f64>,
}

impl Run {
    #[must_use]
    pub fn total(&self) -> f64 {
        self.cost.iter().sum()
    }
}

/// Asks `server` for `path`, with the tokens in `tokens` in turn. `script` is `bench/wrk.lua`.
pub fn run(script: &Path, server: &Server, path: &str, tokens: Option<&Path>) -> anyhow::Result<Run> {
    server.empty_log()?;
    let before = server.cpu()?;
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{SECONDS}s"), "-s"])
        .arg(script)
        .arg(format!("http://{}{path}", server.address))
        .arg("--")
        .args(tokens)
        .output()
        .context("wrk")?;
    let after = server.cpu()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = text.lines().find_map(|line| line.strip_prefix("figures "));
    let figures = figures.with_context(|| format!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    let figures: Vec<f64> = figures.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [requests, microseconds, failed] = figures[..] else {
        anyhow::bail!("wrk.lua printed {figures:?}");
    };
    ensure!(failed == 0.0 && requests > 0.0, "{}: {failed} of {requests} requests failed", server.name);
    let cost = after.since(&before).iter().map(|seconds| seconds / requests).collect();
    Ok(Run { per_second: requests / microseconds * 1e6, cost })
}
