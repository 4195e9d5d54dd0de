//! How soon whoever listens hears of what a media server has told.

use std::fmt::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bench::figures::{Spread, quantile};
use bench::http::Connection;
use bench::servers::Server;
use serde_json::Value;

use crate::calls::Caller;
use crate::{Part, Target, joined, milliseconds, wait_until};

const PATH: &str = "/api/v1/streams/events";
const LISTENERS: usize = 20;
const CALLERS: usize = 10;
const STREAMS: usize = 50;
/// Between two callbacks: a hundred a second.
const BETWEEN: Duration = Duration::from_millis(10);
/// How often every stream goes live and ends. The first time is not counted.
const CYCLES: usize = 11;
/// How long the last may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most that the p99 may be, in microseconds.
const MOST: f64 = 50_000.0;

/// In their order: all streams go live, one after the other, and then end.
const KINDS: [&str; 2] = ["live", "ended"];
const ALL: usize = CYCLES * KINDS.len() * STREAMS;

/// What came out at one server.
struct Heard {
    /// From when the callback was due until each listener heard of it, with the cycle.
    told: Vec<(usize, Duration)>,
    /// Until the callback was answered.
    answered: Vec<Duration>,
}

pub(crate) fn measure(servers: &[(&str, &Server)], secret: &str) -> anyhow::Result<Part> {
    let seconds = BETWEEN.as_secs_f64() * ALL as f64;
    eprintln!("bench: from a callback to whoever listens: {} runs of {seconds:.0} s", servers.len());
    let mut text = format!(
        "{:.0} callbacks a second at a constant rate (`publish` and `publish_done` of {STREAMS} streams in turn, \
         `RECONNECT_GRACE=0s`), and {LISTENERS} clients of `GET {PATH}`, which each hear all; {seconds:.0} s, of which the first \
         is not counted. From when the callback was due. On a machine that others use, seconds differ: the median of \
         their p99s tells more of what was measured, and the p99 of all more of what somebody has waited.\n\n\
         | | events heard | p50 | p99 | p99 of each second, median (quartiles), ms | the last | the callback's answer, p50 | p99 |\n|---|---|---|---|---|---|---|---|\n",
        1.0 / BETWEEN.as_secs_f64()
    );
    let mut targets = Vec::new();
    for (place, (what, server)) in servers.iter().enumerate() {
        // Streams of its own, none of which is live otherwise.
        let first = u32::try_from(1 + place * STREAMS)?;
        let Heard { told, mut answered } = listen(server, first, secret).with_context(|| (*what).to_owned())?;
        let in_order = |of: &dyn Fn(usize) -> bool| {
            let mut times: Vec<_> = told.iter().filter(|(cycle, _)| of(*cycle)).map(|(_, time)| *time).collect();
            times.sort_unstable();
            times
        };
        let tails = (1..CYCLES).map(|cycle| quantile(&in_order(&|of| of == cycle), 0.99) / 1e3);
        let (tails, told) = (Spread::of(tails), in_order(&|_| true));
        answered.sort_unstable();
        let (half, tail) = (quantile(&told, 0.5), quantile(&told, 0.99));
        let last =
            [quantile(&told, 1.0), quantile(&answered, 0.5), quantile(&answered, 0.99)].map(milliseconds).join(" | ");
        let (half, shown) = (milliseconds(half), milliseconds(tail));
        writeln!(text, "| {what} | {} | {half} | {shown} | {tails} | {last} |", told.len())?;
        targets.push(Target {
            what: if place == 0 {
                "from a callback to whoever listens, p99"
            } else {
                "the same, both through the gateway"
            },
            aim: "< 50 ms",
            figure: shown,
            is_met: tail < MOST,
        });
    }
    Ok(Part { text, targets, is_valid: true })
}

fn listen(server: &Server, first: u32, secret: &str) -> anyhow::Result<Heard> {
    let request = format!("GET {PATH} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n", server.address);
    let listeners: Vec<_> = (0..LISTENERS)
        .map(|_| Connection::open(server.address)?.follow(&request).context(PATH))
        .collect::<Result<_, _>>()?;
    let (sockets, listeners): (Vec<TcpStream>, Vec<_>) = listeners.into_iter().unzip();
    // The greeting of the last may still be under way.
    let start = Instant::now() + Duration::from_millis(200);
    let due = |cycle: usize, kind: usize, stream: usize| {
        let number = (cycle * KINDS.len() + kind) * STREAMS + stream;
        start + BETWEEN.mul_f64(number as f64)
    };
    let count = AtomicUsize::new(0);

    // Ends when the socket is shut.
    let hear = |lines: &mut dyn Iterator<Item = std::io::Result<String>>| {
        let mut times = Vec::new();
        let mut seen = [[0; STREAMS]; KINDS.len()];
        let mut kind = None;
        for line in lines.map_while(Result::ok) {
            if let Some(event) = line.strip_prefix("event: ") {
                kind = KINDS.iter().position(|kind| *kind == event);
            }
            let (Some(kind), Some(data)) = (kind, line.strip_prefix("data: ")) else { continue };
            let now = Instant::now();
            let data: Value = serde_json::from_str(data).context("an event's data")?;
            let id = data["streamId"].as_u64().context("an event without a stream")?;
            let stream = id.checked_sub(first.into()).and_then(|stream| usize::try_from(stream).ok());
            let Some(stream) = stream.filter(|stream| *stream < STREAMS) else { continue };
            let cycle = seen[kind][stream];
            seen[kind][stream] += 1;
            ensure!(cycle < CYCLES, "stream {id} was told of too often");
            if cycle > 0 {
                times.push((cycle, now.saturating_duration_since(due(cycle, kind, stream))));
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(times)
    };
    // Each has its own streams, so that what is said of one arrives in its order.
    let tell = |caller: usize| {
        let mut connection = Caller::open(server.address, secret)?;
        let mut times = Vec::new();
        for cycle in 0..CYCLES {
            for kind in 0..KINDS.len() {
                for stream in (caller..STREAMS).step_by(CALLERS) {
                    let due = due(cycle, kind, stream);
                    let (id, client) = (first + u32::try_from(stream)?, format!("{}", 1000 + cycle));
                    wait_until(due);
                    if kind == 0 {
                        connection.publish(id, &client)?
                    } else {
                        connection.done(id, &client)?
                    }
                    if cycle > 0 {
                        times.push(due.elapsed());
                    }
                }
            }
        }
        anyhow::Ok(times)
    };

    let (told, answered) = thread::scope(|scope| {
        let hear = &hear;
        let hearing: Vec<_> = listeners.into_iter().map(|mut lines| scope.spawn(move || hear(&mut lines))).collect();
        let telling: Vec<_> = (0..CALLERS).map(|caller| scope.spawn(move || tell(caller))).collect();
        let answered: Vec<_> = telling.into_iter().map(joined).collect();
        let end = Instant::now() + PATIENCE;
        while answered.iter().all(Result::is_ok)
            && count.load(Ordering::Relaxed) < LISTENERS * ALL
            && Instant::now() < end
        {
            thread::sleep(Duration::from_millis(20));
        }
        for socket in &sockets {
            let _ = socket.shutdown(Shutdown::Both); // The server may have closed it.
        }
        let told: Vec<_> = hearing.into_iter().map(joined).collect();
        (told, answered)
    });
    let answered = answered.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    let told = told.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    let heard = count.load(Ordering::Relaxed);
    ensure!(
        heard == LISTENERS * ALL,
        "{heard} of {} events were heard within {} s",
        LISTENERS * ALL,
        PATIENCE.as_secs()
    );
    Ok(Heard { told, answered })
}
