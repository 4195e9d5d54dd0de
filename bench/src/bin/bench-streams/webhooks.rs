//! How many callbacks are settled, beside the least that PostgreSQL can do for one: an UPDATE of a row by its key.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bench::figures::Spread;
use bench::servers::Server;

use crate::calls::Caller;
use crate::{LIVE, LIVE_EVERY, Part, Target, joined};
use bench::postgres::{pgbench, query};

const CLIENTS: u32 = 20;
const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(3);
/// Streams that each client lets go live and end, in turn.
const STREAMS: u32 = 50;
/// The first of them; none is live otherwise.
const FIRST: u32 = 1001;
/// From one client's first stream to the next one's.
const STEP: u32 = 100;
/// The least of pgbench's transactions a second that callbacks have to reach.
const LEAST: f64 = 1.0;

/// One case in one round.
struct Run {
    per_second: f64,
    /// CPU seconds each: of the service and of PostgreSQL, or of PostgreSQL alone.
    cost: Vec<f64>,
}

pub(crate) fn measure(stream: &Server, postgres: &Server, folder: &Path, secret: &str) -> anyhow::Result<Part> {
    let script = folder.join("update.sql");
    fs::write(&script, "\\set id random(1, 100000)\nUPDATE bench.counters SET n = n + 1 WHERE id = :id;\n")?;
    query(
        "CREATE SCHEMA bench;
         CREATE TABLE bench.counters (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0);
         INSERT INTO bench.counters SELECT generate_series(1, 100000);",
    )?;
    query("VACUUM ANALYZE bench.counters")?;
    eprintln!("bench: how many callbacks: {ROUNDS} rounds of 3 runs of {} s", TIME.as_secs());

    let heartbeats = || run(stream, |client, calls| heartbeat(stream, client, calls, secret));
    let cycles = || run(stream, |client, calls| cycle(stream, client, calls, secret));
    let updates = || {
        let before = postgres.cpu()?;
        let measured = pgbench(&script, CLIENTS.try_into()?, TIME, &[], None)?;
        let cost = postgres.cpu()?.since(&before).iter().map(|seconds| seconds / measured.transactions).collect();
        anyhow::Ok(Run { per_second: measured.per_second, cost })
    };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let heartbeats = heartbeats().context("heartbeats")?;
        let updates = updates()?;
        rounds.push((heartbeats, cycles().context("going live and ending")?, updates));
    }

    let mut text = format!(
        "{CLIENTS} clients, one callback after the other each, asked of the stream service itself; pgbench (`-M prepared`, \
         {CLIENTS} connections): `UPDATE` of one of 100,000 rows by its primary key, in the same PostgreSQL (`fsync` on). {ROUNDS} \
         rounds of {} s in turn; medians, of ratios also the quartiles.\n\n\
         | | a second | ratio to pgbench in the same round | CPU µs each |\n|---|---|---|---|\n",
        TIME.as_secs()
    );
    let mut row = |what: &str, of: &dyn Fn(&(Run, Run, Run)) -> &Run| {
        let median = |of: &dyn Fn(&(Run, Run, Run)) -> f64| Spread::of(rounds.iter().map(of)).median;
        let ratio = Spread::of(rounds.iter().map(|round| of(round).per_second / round.2.per_second));
        let parts = of(&rounds[0]).cost.len();
        let part = |part: usize| format!("{:.0}", median(&|round| of(round).cost[part]) * 1e6);
        let parts: Vec<_> = (0..parts).map(part).collect();
        let rate = median(&|round| of(round).per_second);
        writeln!(text, "| {what} | {rate:.0} | {ratio} | {} |", parts.join(" + "))?;
        anyhow::Ok(ratio.median)
    };
    let of_heartbeats = row(&format!("`update_publish` of {LIVE} live streams"), &|round| &round.0)?;
    let of_cycles = row("`publish` and `publish_done` in turn", &|round| &round.1)?;
    row("`UPDATE`", &|round| &round.2)?;
    text.push_str("\nCPU: the stream service + PostgreSQL; of pgbench's, PostgreSQL alone.\n");
    let target =
        |what, ratio: f64| Target { what, aim: "≥ 1", figure: format!("{ratio:.2}"), is_met: ratio >= LEAST };
    let targets = vec![
        target("heartbeats a second, to updates of a row by pgbench", of_heartbeats),
        target("going live or ending, likewise", of_cycles),
    ];
    Ok(Part { text, targets, is_valid: true })
}

/// Until when to call, and how often it was done.
struct Calls {
    until: Instant,
    count: u32,
}

impl Calls {
    fn go_on(&mut self) -> bool {
        let goes_on = Instant::now() < self.until;
        self.count += u32::from(goes_on);
        goes_on
    }
}

/// All clients at once, for as long as a run lasts.
fn run(stream: &Server, work: impl Fn(u32, &mut Calls) -> anyhow::Result<()> + Sync) -> anyhow::Result<Run> {
    let before = stream.cpu()?;
    let start = Instant::now();
    let work = |client| {
        let mut calls = Calls { until: start + TIME, count: 0 };
        work(client, &mut calls)?;
        anyhow::Ok(calls.count)
    };
    let counts = thread::scope(|scope| {
        let work = &work;
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || work(client))).collect();
        clients.into_iter().map(joined).collect::<Vec<_>>()
    });
    let count = f64::from(counts.into_iter().sum::<Result<u32, _>>()?);
    let per_second = count / start.elapsed().as_secs_f64();
    let cost = stream.cpu()?.since(&before).iter().map(|seconds| seconds / count).collect();
    Ok(Run { per_second, cost })
}

/// The live streams of this client, in turn.
fn heartbeat(stream: &Server, client: u32, calls: &mut Calls, secret: &str) -> anyhow::Result<()> {
    let mut caller = Caller::open(stream.address, secret)?;
    let own = LIVE / CLIENTS;
    for place in (client * own..(client + 1) * own).cycle() {
        if !calls.go_on() {
            break;
        }
        let id = (place + 1) * LIVE_EVERY;
        caller.heartbeat(id, &id.to_string())?;
    }
    Ok(())
}

/// Each stream of this client goes live and ends, in turn. Whatever is live at the end of the time ends after it.
fn cycle(stream: &Server, client: u32, calls: &mut Calls, secret: &str) -> anyhow::Result<()> {
    let mut caller = Caller::open(stream.address, secret)?;
    let first = FIRST + client * STEP;
    for id in (first..first + STREAMS).cycle() {
        if !calls.go_on() {
            break;
        }
        caller.publish(id, "1000")?;
        calls.go_on();
        caller.done(id, "1000")?;
    }
    Ok(())
}
