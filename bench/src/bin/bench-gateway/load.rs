//! CPU seconds a request, under as much load as one connection after the other takes: wrk on 64 connections.

use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use bench::figures::Spread;
use bench::servers::Server;
use bench::wrk::{self, CONNECTIONS, Run, SECONDS};

use crate::tokens::Tokens;

/// Many and short: a disturbance from outside spoils a few, and the median does not mind.
const ROUNDS: usize = 15;
/// How many other cases run between two runs of nginx, which they are compared with.
const BETWEEN: usize = 4;

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
struct Compared {
    run: Run,
    /// Its cost against nginx's: the mean of its run before and of that after.
    ratio: f64,
}

/// What came out: the runs of each case, in the order of the rounds.
pub(crate) struct Load<'a> {
    cases: &'a [Case<'a>],
    runs: Vec<Vec<Compared>>,
}

/// Rounds of all cases, each round in another order, so that whoever else uses the machine disturbs all alike. The first
/// case, nginx, runs before and after every few others.
pub(crate) fn measure<'a>(cases: &'a [Case<'a>], script: &Path) -> anyhow::Result<Load<'a>> {
    let (nginx, others) = cases.split_first().context("there is nothing to measure")?;
    let runs_a_round = others.len() + others.len().div_ceil(BETWEEN);
    eprintln!(
        "bench: CPU a request: {} cases, {ROUNDS} rounds of {runs_a_round} runs of {SECONDS} s: {} s",
        cases.len(),
        ROUNDS * runs_a_round * SECONDS
    );
    for case in cases {
        run(case, script)?; // connections to upstreams, caches, lazily made things
    }
    let mut runs: Vec<Vec<Compared>> = cases.iter().map(|_| Vec::new()).collect();
    let mut before = run(nginx, script)?;
    for round in 0..ROUNDS {
        for places in (0..others.len()).collect::<Vec<_>>().chunks(BETWEEN) {
            let mut group = Vec::new();
            for place in places {
                // Forwards and backwards in turn, from another one each time.
                let step = (place + round * 3) % others.len();
                let index = if round % 2 == 0 { step } else { others.len() - 1 - step };
                group.push((index + 1, run(&others[index], script)?));
            }
            let after = run(nginx, script)?;
            let reference = f64::midpoint(before.total(), after.total());
            for (index, run) in group {
                runs[index].push(Compared { ratio: run.total() / reference, run });
            }
            runs[0].push(Compared { run: std::mem::replace(&mut before, after), ratio: 1.0 });
        }
        eprintln!("bench: round {} of {ROUNDS} done", round + 1);
    }
    Ok(Load { cases, runs })
}

fn run(case: &Case<'_>, script: &Path) -> anyhow::Result<Run> {
    wrk::run(script, case.server, case.path, Some(&case.tokens.file)).context(case.what)
}

impl Load<'_> {
    /// The cost of the second nginx against that of the first.
    pub(crate) fn control(&self) -> f64 {
        self.ratios(1).median
    }

    /// The requests a second that the slowest of these servers took.
    pub(crate) fn slowest(&self, names: &[&str]) -> f64 {
        let of = |name: &&str| {
            let index = self.cases.iter().position(|case| case.server.name == **name)?;
            Some(Spread::of(self.runs[index].iter().map(|one| one.run.per_second)).median)
        };
        names.iter().filter_map(of).fold(f64::INFINITY, f64::min)
    }

    fn ratios(&self, case: usize) -> Spread {
        Spread::of(self.runs[case].iter().map(|one| one.ratio))
    }

    fn row(&self, of: impl Fn(&Case<'_>) -> bool) -> Option<usize> {
        self.cases.iter().position(of)
    }

    /// What the token check costs: the share of a request with a token that one without does not have.
    fn token_share(&self, what: &str) -> Option<Spread> {
        let with = self.row(|case| case.what.contains(what))?;
        let without = self.row(|case| case.path == crate::PUBLIC_PATH)?;
        let pairs = self.runs[with].iter().zip(&self.runs[without]);
        Some(Spread::of(pairs.map(|(with, without)| 1.0 - without.ratio / with.ratio)))
    }

    fn against(&self, name: &str, other: &str) -> Option<Spread> {
        let (one, other) = (self.row(|case| case.server.name == name)?, self.row(|case| case.server.name == other)?);
        Some(Spread::of(self.runs[one].iter().zip(&self.runs[other]).map(|(one, other)| one.ratio / other.ratio)))
    }
}

impl fmt::Display for Load<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### CPU of the server a request\n")?;
        writeln!(
            f,
            "64-byte JSON, keep-alive, {CONNECTIONS} connections of wrk, one worker each; {ROUNDS} runs of {SECONDS} s, \
             each round in another order. The ratio is to the runs of nginx next to it in time. All figures are medians \
             of the runs, in parentheses the quartiles.\n"
        )?;
        writeln!(f, "| server | CPU µs a request | ratio to nginx | requests a second |")?;
        writeln!(f, "|---|---|---|---|")?;
        for (index, (case, runs)) in self.cases.iter().zip(&self.runs).enumerate() {
            let cost = Spread::of(runs.iter().map(|one| one.run.total())).median * 1e6;
            let rate = Spread::of(runs.iter().map(|one| one.run.per_second)).median;
            let mut parts = String::new();
            if runs[0].run.cost.len() > 1 {
                let part = |part| Spread::of(runs.iter().map(|one| one.run.cost[part])).median * 1e6;
                let all: Vec<_> = (0..runs[0].run.cost.len()).map(|index| format!("{:.1}", part(index))).collect();
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
                    percent(share.median),
                    percent(share.lower),
                    percent(share.upper)
                )?;
            }
        }
        Ok(())
    }
}
