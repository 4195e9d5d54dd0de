//! How long an answer takes at a constant rate, counted from when the request was due: one that could not be sent because
//! the one before it hung has waited too.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bench::figures::{Spread, quantile};
use bench::servers::Server;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::BODY;

use crate::tokens::Tokens;

const CONNECTIONS: u32 = 64;
const ROUNDS: usize = 11;
const WARM_UP: Duration = Duration::from_millis(200);
const TIME: Duration = Duration::from_secs(1);
/// Where the upstream asked directly has a p99.9 above this, in microseconds, others had the machine.
const QUIET: f64 = 5_000.0;
/// A request that takes longer than this is an error.
const PATIENCE: Duration = Duration::from_secs(5);

struct Connection {
    stream: TcpStream,
    /// When the next request is due.
    due: Instant,
    /// When the one that is under way was due.
    under_way: Option<Instant>,
    answer: Vec<u8>,
}

/// `rate` requests a second to each of `servers`, the first of which is the upstream itself, in interleaved rounds.
pub(crate) fn measure(servers: &[&Server], path: &str, tokens: &Tokens, rate: f64) -> anyhow::Result<String> {
    eprintln!("bench: latency at {rate:.0} requests a second: {ROUNDS} rounds of {} s each", TIME.as_secs());
    // Otherwise the kernel lets every wait last 50 µs longer.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let tokens = tokens.read()?;
    let mut half: Vec<Vec<f64>> = servers.iter().map(|_| Vec::new()).collect();
    let mut tail = half.clone();
    for round in 0..ROUNDS {
        for place in 0..servers.len() {
            let index = (place + round) % servers.len();
            let server = servers[index];
            server.empty_log()?;
            let requests: Vec<_> = tokens
                .iter()
                .map(|token| {
                    format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\r\n", server.address)
                })
                .collect();
            let times = run(server, &requests, rate).with_context(|| server.name.clone())?;
            half[index].push(quantile(&times, 0.5));
            tail[index].push(quantile(&times, 0.999));
        }
    }
    let mut text = format!(
        "### Latency at half load\n\n{rate:.0} requests a second, at a constant rate over {CONNECTIONS} connections: half \
         of what the slowest of the three took. From when each was due; {ROUNDS} rounds of {} s, each in another order. \
         Medians of the rounds, in parentheses the quartiles, in µs; added: above the upstream asked directly in the same round.\n\n\
         | server | p50 | p50 added | p99.9 | p99.9 added |\n|---|---|---|---|---|\n",
        TIME.as_secs()
    );
    for (index, server) in servers.iter().enumerate() {
        let added = |times: &[Vec<f64>]| shown(times[index].iter().zip(&times[0]).map(|(all, direct)| all - direct));
        let all = |times: &[Vec<f64>]| shown(times[index].iter().copied());
        let name = if index == 0 { "(none: the upstream)" } else { &server.name };
        writeln!(text, "| {name} | {} | {} | {} | {} |", all(&half), added(&half), all(&tail), added(&tail))?;
    }
    let noise = Spread::of(tail[0].iter().copied()).median;
    if noise > QUIET {
        writeln!(
            text,
            "\n**This table is VOID**: the upstream alone has a p99.9 of {noise:.0} µs, so others had the machine; that of \
             a quiet one is below {QUIET:.0}."
        )?;
    }
    Ok(text)
}

fn shown(times: impl Iterator<Item = f64>) -> String {
    let Spread { lower, median, upper } = Spread::of(times);
    format!("{median:.0} ({lower:.0} to {upper:.0})")
}

/// The time of every answer, sorted.
fn run(server: &Server, requests: &[String], rate: f64) -> anyhow::Result<Vec<Duration>> {
    let interval = Duration::from_secs_f64(f64::from(CONNECTIONS) / rate);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(server.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        connections.push(Connection { stream, due: Instant::now(), under_way: None, answer: Vec::new() });
    }
    let start = Instant::now();
    for (number, connection) in (0_u32..).zip(&mut connections) {
        connection.due = start + interval * number / CONNECTIONS;
    }
    let (counts_from, end) = (start + WARM_UP, start + WARM_UP + TIME);
    let mut times = Vec::new();
    let mut requests = requests.iter().cycle();
    loop {
        let now = Instant::now();
        for connection in &mut connections {
            if connection.under_way.is_none() && connection.due <= now && connection.due < end {
                let request = requests.next().context("there is no request")?;
                // It fits into an empty socket buffer.
                connection.stream.write_all(request.as_bytes())?;
                connection.under_way = Some(connection.due);
                connection.due += interval;
            }
        }
        let next = connections.iter().filter(|it| it.under_way.is_none()).map(|it| it.due).min().unwrap_or(end);
        if connections.iter().all(|it| it.under_way.is_none()) && next >= end {
            break;
        }
        ensure!(now < end + PATIENCE, "an answer took longer than {} s", PATIENCE.as_secs());
        let readable = wait(&connections, next.saturating_duration_since(Instant::now()))?;
        for index in readable {
            let connection = &mut connections[index];
            let is_complete = read(connection)?;
            if let (true, Some(due)) = (is_complete, connection.under_way) {
                connection.under_way = None;
                if due >= counts_from {
                    times.push(due.elapsed());
                }
            }
        }
    }
    times.sort_unstable();
    ensure!(!times.is_empty(), "there was no answer");
    Ok(times)
}

/// The connections that have something to read, as soon as there is one, or none when `most` is over.
fn wait(connections: &[Connection], most: Duration) -> anyhow::Result<Vec<usize>> {
    let most = most.min(Duration::from_millis(100));
    let mut fds: Vec<_> = connections.iter().map(|it| PollFd::new(&it.stream, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: most.subsec_nanos().into() };
    poll(&mut fds, Some(&timeout))?;
    Ok(fds.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty()).map(|(index, _)| index).collect())
}

/// Whether the answer is complete: every one ends in the same body.
fn read(connection: &mut Connection) -> anyhow::Result<bool> {
    let mut buffer = [0; 4096];
    match connection.stream.read(&mut buffer) {
        Ok(0) => anyhow::bail!("the server closed a connection"),
        Ok(size) => connection.answer.extend_from_slice(&buffer[..size]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(error.into()),
    }
    if !connection.answer.ends_with(BODY.as_bytes()) {
        return Ok(false);
    }
    let answer = &connection.answer;
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "answered {}", String::from_utf8_lossy(answer));
    connection.answer.clear();
    Ok(true)
}
