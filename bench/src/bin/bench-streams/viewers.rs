//! What it costs that players over HLS say that they play.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bench::http::Connection;
use bench::servers::Server;
use serde_json::Value;

use crate::{LIVE_EVERY, Part, Target, joined, wait_until};
use bench::postgres::query;

const VIEWERS: u32 = 5_000;
/// How many live streams they watch, as many each.
const WATCHED: u32 = 50;
const EVERY: Duration = Duration::from_secs(20);
const THREADS: usize = 8;
/// Everybody has beaten once by then, and counts from the next beat on.
const WARM_UP: Duration = Duration::from_secs(22);
const TIME: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(5);
/// A beat that is sent later than this was not one of a quiet machine.
const LATE: Duration = Duration::from_secs(1);
/// The most of a core that the service may need.
const MOST: f64 = 0.05;

/// What threads found.
#[derive(Default)]
struct Found {
    beats: u32,
    /// Answers to a second or later beat, and how many of them said that the viewer counts.
    later: u32,
    counted: u32,
    latest: Duration,
    /// How many the last answer said watch that stream.
    viewers: u64,
}

pub(crate) fn measure(stream: &Server) -> anyhow::Result<Part> {
    eprintln!("bench: viewers: {} s", (IDLE + WARM_UP + TIME).as_secs());
    let before = stream.cpu()?;
    thread::sleep(IDLE);
    let idle = stream.cpu()?.since(&before)[0] / IDLE.as_secs_f64();

    let found = Mutex::new(Found::default());
    let start = Instant::now();
    let work = |thread: usize| beat(stream, start, thread, &found);
    let (cost, writes) = thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
        let watched = watch(stream, start);
        for thread in threads {
            joined(thread)?;
        }
        watched
    })?;
    let Found { beats, later, counted, latest, viewers } =
        found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    ensure!(
        f64::from(counted) >= 0.99 * f64::from(later),
        "{counted} of {later} viewers counted from their second beat on"
    );

    let [service, postgres, ..] = cost[..] else { bail!("two programs do the work") };
    let per_second = 1.0 / EVERY.as_secs_f64() * f64::from(VIEWERS);
    let text = format!(
        "{VIEWERS} viewers of {WATCHED} streams, each beating every {} s (`POST /api/v1/streams/{{id}}/view`), so {per_second:.0} beats a \
         second at a constant rate, over {THREADS} connections, asked of the stream service itself. {} s, from when all have \
         beaten once.\n\n\
         | | |\n|---|---|\n\
         | CPU of the stream service | {:.1} % of a core ({:.0} µs a beat); idle before: {:.1} % |\n\
         | CPU of PostgreSQL | {:.1} % of a core |\n\
         | rows written | {:.1} a second; {:.3} a beat |\n\
         | beats sent | {beats} |\n\
         | viewers of a stream, as the last answer says | {viewers} |\n",
        EVERY.as_secs(),
        TIME.as_secs(),
        service * 100.0,
        service / per_second * 1e6,
        idle * 100.0,
        postgres * 100.0,
        writes,
        writes / per_second,
    );
    let target = Target {
        what: "5,000 viewers over HLS, CPU of the stream service",
        aim: "< 5 % of a core",
        figure: format!("{:.1} %", service * 100.0),
        is_met: service < MOST,
    };
    ensure!(latest < LATE, "the machine was too busy: beats were sent up to {} ms late", latest.as_millis());
    Ok(Part { text, targets: vec![target], is_valid: true })
}

/// The CPU of each program, as a share of a core, and rows written a second, in the time that counts.
fn watch(stream: &Server, start: Instant) -> anyhow::Result<(Vec<f64>, f64)> {
    let written = || -> anyhow::Result<f64> {
        let statement =
            "SELECT tup_inserted + tup_updated + tup_deleted FROM pg_stat_database WHERE datname = current_database()";
        Ok(query(statement)?.parse()?)
    };
    wait_until(start + WARM_UP);
    let (cpu, rows) = (stream.cpu()?, written()?);
    wait_until(start + WARM_UP + TIME);
    let seconds = TIME.as_secs_f64();
    let cost = stream.cpu()?.since(&cpu).iter().map(|spent| spent / seconds).collect();
    Ok((cost, (written()? - rows) / seconds))
}

/// Every so many of all beats.
fn beat(stream: &Server, start: Instant, thread: usize, found: &Mutex<Found>) -> anyhow::Result<()> {
    let between = EVERY / VIEWERS;
    let mut connection = Connection::open(stream.address)?;
    for number in (u32::try_from(thread)?..).step_by(THREADS) {
        let due = start + between * number;
        if due >= start + WARM_UP + TIME {
            break;
        }
        let (viewer, earlier) = (number % VIEWERS, number / VIEWERS);
        let id = (viewer % WATCHED + 1) * LIVE_EVERY;
        let position = f64::from(earlier + 1) * EVERY.as_secs_f64();
        let body = format!("{{\"session\":\"bench-viewer-{viewer:08}\",\"position\":{position}}}");
        let request = format!(
            "POST /api/v1/streams/{id}/view HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            stream.address,
            body.len()
        );
        wait_until(due);
        let late = due.elapsed();
        let answer = connection.send(&request)?;
        let text = || String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 200, "a beat of stream {id} was answered {}: {}", answer.status, text());
        let body: Value = serde_json::from_slice(&answer.body).with_context(|| text().into_owned())?;
        let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        found.beats += 1;
        found.latest = found.latest.max(late);
        found.viewers = body["viewers"].as_u64().with_context(|| text().into_owned())?;
        if earlier > 0 {
            found.later += 1;
            found.counted += u32::from(body["isCounted"] == true);
        }
    }
    Ok(())
}
