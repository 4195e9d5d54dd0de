//! CPU seconds a request, under as much load as one connection after the other takes: wrk on 64 connections.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::servers::Server;
use crate::tokens::Tokens;

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 5;
const SECONDS: usize = 2;

/// What is asked of whom.
pub(crate) struct Case<'a> {
    what: &'static str,
    pub(crate) server: &'a Server,
    pub(crate) path: &'static str,
    pub(crate) tokens: Tokens,
}

impl<'a> Case<'a> {
    pub(crate) fn new(what: &'static str, server: &'a Server, path: &'static str, tokens: &Tokens) -> Self {
        Self { what, server, path, tokens: tokens.clone() }
    }
}

/// One case in one round.
struct Run {
    per_second: f64,
    /// CPU seconds a request, of each program that does the work.
    cost: Vec<f64>,
}

impl Run {
    fn total(&self) -> f64 {
        self.cost.iter().sum()
    }
}

/// What came out: the runs of each case, in the order of the rounds.
pub(crate) struct Load<'a> {
    cases: &'a [Case<'a>],
    runs: Vec<Vec<Run>>,
}

/// Rounds of all cases, each round in another order, so that whoever else uses the machine disturbs all alike.
pub(crate) fn measure<'a>(cases: &'a [Case<'a>], script: &Path) -> anyhow::Result<Load<'a>> {
    eprintln!(
        "bench: CPU a request: {} cases, {ROUNDS} rounds of {SECONDS} s each: {} s",
        cases.len(),
        cases.len() * ROUNDS * SECONDS
    );
    for case in cases {
        run(case, script, 1)?; // connections to upstreams, caches, lazily made things
    }
    let mut runs: Vec<Vec<Run>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        for place in 0..cases.len() {
            // Forwards and backwards in turn, from another one each time.
            let step = (place + round * 3) % cases.len();
            let index = if round % 2 == 0 { step } else { cases.len() - 1 - step };
            runs[index].push(run(&cases[index], script, SECONDS)?);
        }
        eprintln!("bench: round {} of {ROUNDS} done", round + 1);
    }
    Ok(Load { cases, runs })
}

fn run(case: &Case<'_>, script: &Path, seconds: usize) -> anyhow::Result<Run> {
    case.server.empty_log()?;
    let before = case.server.cpu()?;
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{seconds}s"), "-s"])
        .arg(script)
        .arg(format!("http://{}{}", case.server.address, case.path))
        .arg("--")
        .arg(&case.tokens.file)
        .output()
        .context("wrk")?;
    let after = case.server.cpu()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = text.lines().find_map(|line| line.strip_prefix("figures "));
    let figures = figures.with_context(|| format!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    let figures: Vec<f64> = figures.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [requests, microseconds, failed] = figures[..] else {
        anyhow::bail!("wrk.lua printed {figures:?}");
    };
    ensure!(failed == 0.0 && requests > 0.0, "{}: {failed} of {requests} requests failed", case.what);
    let cost = after.since(&before).iter().map(|seconds| seconds / requests).collect();
    Ok(Run { per_second: requests / microseconds * 1e6, cost })
}

impl Load<'_> {
    /// The cost of `case` against that of nginx in the same round; the mean of all rounds.
    pub(crate) fn control(&self) -> f64 {
        self.ratios(1).mean
    }

    /// The requests a second that the slowest of these servers took, in the mean.
    pub(crate) fn slowest(&self, names: &[&str]) -> f64 {
        let of = |name: &&str| {
            let index = self.cases.iter().position(|case| case.server.name == **name)?;
            Some(Spread::of(self.runs[index].iter().map(|run| run.per_second)).mean)
        };
        names.iter().filter_map(of).fold(f64::INFINITY, f64::min)
    }

    fn ratios(&self, case: usize) -> Spread {
        Spread::of(self.runs[case].iter().zip(&self.runs[0]).map(|(run, nginx)| run.total() / nginx.total()))
    }

    fn row(&self, of: impl Fn(&Case<'_>) -> bool) -> Option<usize> {
        self.cases.iter().position(of)
    }

    /// What the token check costs: the share of a request with a token that one without does not have.
    fn token_share(&self, what: &str) -> Option<Spread> {
        let with = self.row(|case| case.what.contains(what))?;
        let without = self.row(|case| case.path == crate::PUBLIC_PATH)?;
        let pairs = self.runs[with].iter().zip(&self.runs[without]);
        Some(Spread::of(pairs.map(|(with, without)| 1.0 - without.total() / with.total())))
    }

    fn against(&self, name: &str, other: &str) -> Option<Spread> {
        let (one, other) = (self.row(|case| case.server.name == name)?, self.row(|case| case.server.name == other)?);
        Some(Spread::of(self.runs[one].iter().zip(&self.runs[other]).map(|(one, other)| one.total() / other.total())))
    }
}

impl fmt::Display for Load<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### CPU of the server a request\n")?;
        writeln!(
            f,
            "64-byte JSON, keep-alive, {CONNECTIONS} connections of wrk, one worker each; {ROUNDS} rounds of {SECONDS} s, \
             interleaved. The ratio is to nginx in the same round: mean, least to most.\n"
        )?;
        writeln!(f, "| server | CPU µs a request | ratio to nginx | requests a second |")?;
        writeln!(f, "|---|---|---|---|")?;
        for (index, (case, runs)) in self.cases.iter().zip(&self.runs).enumerate() {
            let cost = Spread::of(runs.iter().map(Run::total)).mean * 1e6;
            let rate = Spread::of(runs.iter().map(|run| run.per_second)).mean;
            let mut parts = String::new();
            if runs[0].cost.len() > 1 {
                let part = |part| Spread::of(runs.iter().map(|run| run.cost[part])).mean * 1e6;
                let all: Vec<_> = (0..runs[0].cost.len()).map(|index| format!("{:.1}", part(index))).collect();
                parts = format!(" ({})", all.join(" + "));
            }
            writeln!(f, "| {} | {cost:.2}{parts} | {} | {rate:.0} |", case.what, self.ratios(index))?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "The sum at `auth_request` is nginx + amphi-auth + its PostgreSQL: each request asks amphi-auth's \
             `GET {}` with the token of one user, which looks the session up. \
             nginx opens a connection for each check, as it does wherever the answer has a body. Its own share alone: the \
             check is a 204 from memory over kept connections, and who answers it is not counted.",
            crate::TOKEN_PATH
        )?;
        if let Some(spread) = self.against("amphi", "auth_request") {
            writeln!(f, "amphi-gateway against that: {spread}.")?;
        }
        for what in ["10,000 tokens", "one token"] {
            if let Some(share) = self.token_share(what) {
                let percent = |share: f64| share * 100.0;
                writeln!(
                    f,
                    "The token check, {what}: {:.1} % of the gateway's CPU a request ({:.1} to {:.1}).",
                    percent(share.mean),
                    percent(share.least),
                    percent(share.most)
                )?;
            }
        }
        Ok(())
    }
}

/// Figures of several rounds, at least one. The median is the upper one of two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) mean: f64,
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<_> = figures.collect();
        figures.sort_by(f64::total_cmp);
        Self {
            mean: figures.iter().sum::<f64>() / figures.len() as f64,
            median: figures[figures.len() / 2],
            least: figures[0],
            most: figures[figures.len() - 1],
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mean, least, most, .. } = self;
        write!(f, "{mean:.2} ({least:.2} to {most:.2})")
    }
}
