//! What it costs that somebody comes and goes over Socket.IO.

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bench::figures::Spread;
use bench::servers::{self, Server};
use futures_util::future::try_join_all;

use crate::client::{Client, User};
use crate::speech::Speech;
use crate::{Part, ROOMS, Target};

const CLIENTS: usize = 32;
const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_millis(1500);
const LEAST: f64 = 5.0;

struct Run {
    per_second: f64,
    cost: Vec<f64>,
}

pub(crate) async fn measure(servers: &[Server], users: &[User]) -> anyhow::Result<Part> {
    eprintln!("bench: sessions of Socket.IO: {ROUNDS} rounds of 4 runs of {:.1} s", TIME.as_secs_f64());
    let cases = [
        ("npm `socket.io`: connect", "socket_io", false),
        ("**amphi-chat**: connect", "chat", false),
        ("npm `socket.io`: connect, join", "socket_io", true),
        ("**amphi-chat**: connect, join", "chat", true),
    ];
    let mut runs = [const { Vec::new() }; 4];
    for round in 0..=ROUNDS {
        for turn in 0..cases.len() {
            let index = (turn + round) % cases.len();
            let (what, name, joins) = cases[index];
            let run = run(servers::find(servers, name)?, users, joins).await.context(what)?;
            // The first round is to warm up.
            if round > 0 {
                runs[index].push(run);
            }
        }
    }
    let mut text = format!(
        "{CLIENTS} clients, each of which opens a WebSocket, connects with its token, joins a room or does not, breaks off and comes \
         again. npm `socket.io` looks at no token and stores no rooms. {ROUNDS} rounds of {:.1} s; medians, of ratios also the quartiles.\n\n\
         | | sessions a second | CPU µs each | sessions a CPU second, to npm's |\n|---|---|---|---|\n",
        TIME.as_secs_f64()
    );
    let mut targets = Vec::new();
    for (index, (what, ..)) in cases.iter().enumerate() {
        let parts = runs[index][0].cost.len();
        let part = |part: usize| Spread::of(runs[index].iter().map(|run: &Run| run.cost[part] * 1e6)).median;
        let parts: Vec<_> = (0..parts).map(|index| format!("{:.0}", part(index))).collect();
        let total = |run: &Run| run.cost.iter().sum::<f64>();
        let gain = Spread::of(runs[index].iter().zip(&runs[index & !1]).map(|(run, npm)| total(npm) / total(run)));
        let rate = Spread::of(runs[index].iter().map(|run| run.per_second)).median;
        writeln!(text, "| {what} | {rate:.0} | {} | {gain} |", parts.join(" + "))?;
        if index == 1 {
            targets.push(Target {
                what: "Socket.IO sessions a CPU second, to npm `socket.io`'s".to_owned(),
                aim: "≥ 5",
                figure: gain.to_string(),
                is_met: gain.median >= LEAST,
            });
        }
    }
    text.push_str("\nOf ours: chat + PostgreSQL.\n");
    Ok(Part { text, targets, is_valid: true })
}

async fn run(server: &Server, users: &[User], joins: bool) -> anyhow::Result<Run> {
    let (before, start) = (server.cpu()?, Instant::now());
    let next = Cell::new(0);
    let clients = (0..CLIENTS).map(async |_| {
        while start.elapsed() < TIME {
            let user = &users[next.get() % users.len()];
            next.set(next.get() + 1);
            let room = user.number % ROOMS + 1;
            match joins {
                true => drop(Client::join(server.address, Speech::SocketIo, user, room, None).await?),
                false => drop(Client::open(server.address, Speech::SocketIo, user, room).await?),
            }
        }
        anyhow::Ok(())
    });
    try_join_all(clients).await?;
    let count = f64::from(next.get() as u32);
    let per_second = count / start.elapsed().as_secs_f64();
    let cost = server.cpu()?.since(&before).iter().map(|seconds| seconds / count).collect();
    Ok(Run { per_second, cost })
}
