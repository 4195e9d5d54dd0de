//! What it costs that everybody in a room hears a message, and how soon they do.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bench::figures::{Spread, quantile};
use bench::servers::{self, Server};
use futures_util::future::try_join_all;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::client::{Client, PATIENCE, User};
use crate::speech::Speech;
use crate::{Part, Target};

pub(crate) const LISTENERS: usize = 500;
const IN_FLIGHT: [usize; 2] = [1, 16];
const ROUNDS: usize = 7;
const TIME: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_millis(300);
/// How many WebSockets are opened at once.
pub(crate) const AT_ONCE: usize = 50;
/// What is told of who has come is told by then.
const SETTLE: Duration = Duration::from_millis(500);
/// The room that all are in, and the one where Socket.IO is spoken.
const ROOM: usize = 101;
const ROOM_OF_SOCKET_IO: usize = 102;

/// One server, and everybody who listens there.
struct Case<'a> {
    what: &'static str,
    server: &'a Server,
    hall: Hall,
    runs: [Vec<Run>; IN_FLIGHT.len()],
}

/// What one run came to.
struct Run {
    per_second: f64,
    /// CPU seconds a delivery, of each program that does the work.
    cost: Vec<f64>,
    p50: f64,
    p99: f64,
}

impl Run {
    fn total(&self) -> f64 {
        self.cost.iter().sum()
    }
}

/// Clients that listen in one room; any of them speaks.
pub(crate) struct Hall {
    speech: Speech,
    room: usize,
    clients: Vec<Rc<Client>>,
    heard: Rc<RefCell<Heard>>,
    delivered: Rc<Notify>,
    listening: Vec<JoinHandle<()>>,
}

/// Which messages were heard, by how many, and how late.
#[derive(Default)]
struct Heard {
    sent_at: Vec<Instant>,
    by: Vec<usize>,
    times: Vec<Duration>,
    whole: usize,
    broken: Option<String>,
}

impl Hall {
    pub(crate) async fn open(address: SocketAddr, speech: Speech, room: usize, users: &[User]) -> anyhow::Result<Self> {
        let clients = open_all(address, speech, users, |_| room).await?;
        sleep(SETTLE).await;
        let (heard, delivered) = (Rc::<RefCell<Heard>>::default(), Rc::new(Notify::new()));
        let buffer = Rc::<RefCell<Vec<u8>>>::default();
        let clients: Vec<_> = clients.into_iter().map(Rc::new).collect();
        let count = clients.len();
        let listening = clients.iter().map(|client| {
            let (client, heard, delivered) = (Rc::clone(client), Rc::clone(&heard), Rc::clone(&delivered));
            let buffer = Rc::clone(&buffer);
            tokio::task::spawn_local(async move {
                let ended = client.listen(&buffer, |frame| {
                    let Some(number) = Speech::number(frame) else { return };
                    let mut heard = heard.borrow_mut();
                    let Some(sent_at) = heard.sent_at.get(number).copied() else { return };
                    heard.times.push(sent_at.elapsed());
                    heard.by[number] += 1;
                    if heard.by[number] == count {
                        heard.whole += 1;
                        delivered.notify_one();
                    }
                });
                if let Err(error) = ended.await {
                    heard.borrow_mut().broken = Some(format!("{error:#}"));
                    delivered.notify_one();
                }
            })
        });
        let listening = listening.collect();
        Ok(Self { speech, room, clients, heard, delivered, listening })
    }

    /// Says so many things at once, and the next ones as soon as everybody has heard, for a while. Returns when
    /// everybody has heard everything: how often somebody heard something, and how late.
    pub(crate) async fn talk(&self, in_flight: usize, time: Duration) -> anyhow::Result<Vec<Duration>> {
        let end = Instant::now() + time;
        {
            let mut heard = self.heard.borrow_mut();
            let broken = heard.broken.take();
            *heard = Heard { broken, ..Heard::default() };
        }
        let mut sent = 0;
        loop {
            let goes_on = Instant::now() < end && self.heard.borrow().broken.is_none();
            while goes_on && sent < self.heard.borrow().whole + in_flight {
                let message = self.speech.message(self.room, sent);
                {
                    let mut heard = self.heard.borrow_mut();
                    heard.sent_at.push(Instant::now());
                    heard.by.push(0);
                }
                self.clients[sent % in_flight].say(&message).await?;
                sent += 1;
            }
            {
                let heard = self.heard.borrow();
                ensure!(heard.broken.is_none(), "{}", heard.broken.as_deref().unwrap_or_default());
                if !goes_on && heard.whole == sent {
                    break;
                }
            }
            timeout(PATIENCE, self.delivered.notified()).await.context("a message was not heard by all")?;
        }
        let times = std::mem::take(&mut self.heard.borrow_mut().times);
        ensure!(times.len() == sent * self.clients.len(), "{} deliveries of {sent} messages", times.len());
        Ok(times)
    }
}

impl Drop for Hall {
    fn drop(&mut self) {
        self.listening.iter().for_each(JoinHandle::abort);
    }
}

/// Opens a WebSocket for each of `users`, each in its room.
pub(crate) async fn open_all(
    address: SocketAddr,
    speech: Speech,
    users: &[User],
    room: impl Fn(usize) -> usize,
) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(users.len());
    for users in users.chunks(AT_ONCE) {
        clients.extend(
            try_join_all(users.iter().map(|user| Client::join(address, speech, user, room(user.number), None))).await?,
        );
    }
    Ok(clients)
}

pub(crate) async fn measure(servers: &[Server], users: &[User]) -> anyhow::Result<Part> {
    eprintln!("bench: fan-out: {ROUNDS} rounds of {} s with 6 servers, {IN_FLIGHT:?} in flight", TIME.as_secs());
    let mut cases = Vec::new();
    for (what, name, speech, room) in [
        ("nchan", "nchan", Speech::Plain, ROOM),
        ("control: nchan again", "control", Speech::Plain, ROOM),
        ("npm `ws`", "ws", Speech::Plain, ROOM),
        ("npm `socket.io`", "socket_io", Speech::SocketIo, ROOM),
        ("**amphi-chat**, rooms", "chat", Speech::Rooms, ROOM),
        ("**amphi-chat**, Socket.IO", "chat", Speech::SocketIo, ROOM_OF_SOCKET_IO),
    ] {
        let server = servers::find(servers, name)?;
        let hall = Hall::open(server.address, speech, room, &users[..LISTENERS]).await.context(what)?;
        for in_flight in IN_FLIGHT {
            hall.talk(in_flight, WARM_UP).await.context(what)?;
        }
        cases.push(Case { what, server, hall, runs: [const { Vec::new() }; IN_FLIGHT.len()] });
    }
    for round in 0..ROUNDS {
        for (place, in_flight) in IN_FLIGHT.into_iter().enumerate() {
            for turn in 0..cases.len() {
                let index = (turn + round) % cases.len();
                let case = &mut cases[index];
                let run =
                    run(case, in_flight).await.with_context(|| format!("{}, {in_flight} in flight", case.what))?;
                case.runs[place].push(run);
            }
        }
    }

    let mut text = format!(
        "{LISTENERS} listeners in a room, messages of {SIZE} bytes, each sent by one of them when all have heard the one before \
         (1 in flight) or the sixteenth before (16). {ROUNDS} rounds of {} s, each in another order; medians, of ratios also the \
         quartiles. What ours say is authenticated, ordered and committed first, and is several times as long: the document has \
         the text in it twice.\n",
        TIME.as_secs(),
        SIZE = crate::speech::SIZE,
    );
    let mut targets = Vec::new();
    let mut is_valid = true;
    for (place, in_flight) in IN_FLIGHT.into_iter().enumerate() {
        writeln!(
            text,
            "\n| {in_flight} in flight | deliveries a second | p50, ms | p99, ms | CPU µs a delivery | ratio to nchan |\n|---|---|---|---|---|---|"
        )?;
        let median = |case: &Case<'_>, of: &dyn Fn(&Run) -> f64| Spread::of(case.runs[place].iter().map(of)).median;
        let ratio = |case: &Case<'_>, of: &dyn Fn(&Run) -> f64| {
            Spread::of(case.runs[place].iter().zip(&cases[0].runs[place]).map(|(run, nchan)| of(run) / nchan.total()))
        };
        for case in &cases {
            let parts = (0..case.runs[place][0].cost.len()).map(|part| median(case, &|run| run.cost[part]) * 1e6);
            let parts: Vec<_> = parts.map(|part| format!("{part:.2}")).collect();
            let parts = if parts.len() > 1 { format!(" ({})", parts.join(" + ")) } else { String::new() };
            writeln!(
                text,
                "| {} | {:.0} | {:.1} | {:.1} | {:.2}{parts} | {} |",
                case.what,
                median(case, &|run| run.per_second),
                median(case, &|run| run.p50) / 1e3,
                median(case, &|run| run.p99) / 1e3,
                median(case, &Run::total) * 1e6,
                ratio(case, &Run::total)
            )?;
        }
        let control = ratio(&cases[1], &Run::total).median;
        if !(0.9..=1.1).contains(&control) {
            is_valid = false;
            writeln!(
                text,
                "\n**VOID**: the control is {control:.2}, not 1.00 ± 0.10. The machine was too busy: measure again."
            )?;
        }
        let ours = &cases[4];
        let (alone, all) = (ratio(ours, &|run| run.cost[0]), ratio(ours, &Run::total));
        let (aim, most) = if in_flight == 1 { ("≤ 1", 1.0) } else { ("≤ 0.33", 1.0 / 3.0) };
        for (whose, ratio) in [("of chat", alone), ("of chat and PostgreSQL", all)] {
            targets.push(Target {
                what: format!("fan-out, {in_flight} in flight: CPU a delivery {whose}, to nchan's"),
                aim,
                figure: ratio.to_string(),
                is_met: ratio.median <= most,
            });
        }
        if in_flight > 1 {
            let p99 = Spread::of(ours.runs[place].iter().map(|run| run.p99 / 1e3));
            targets.push(Target {
                what: format!("fan-out, {in_flight} in flight: p99"),
                aim: "≤ 25 ms",
                figure: p99.to_string(),
                is_met: p99.median <= 25.0,
            });
            let theirs = cases[3].runs[place].iter().map(Run::total);
            let gain = Spread::of(cases[5].runs[place].iter().zip(theirs).map(|(run, theirs)| theirs / run.total()));
            targets.push(Target {
                what: format!("Socket.IO, {in_flight} in flight: deliveries a CPU second, to npm `socket.io`'s"),
                aim: "≥ 5",
                figure: gain.to_string(),
                is_met: gain.median >= 5.0,
            });
        }
    }
    text.push_str("\nIn parentheses: chat + PostgreSQL.\n");
    Ok(Part { text, targets, is_valid })
}

async fn run(case: &Case<'_>, in_flight: usize) -> anyhow::Result<Run> {
    let (before, start) = (case.server.cpu()?, Instant::now());
    let mut times = case.hall.talk(in_flight, TIME).await?;
    let (took, after) = (start.elapsed(), case.server.cpu()?);
    let count = times.len() as f64;
    times.sort_unstable();
    Ok(Run {
        per_second: count / took.as_secs_f64(),
        cost: after.since(&before).iter().map(|seconds| seconds / count).collect(),
        p50: quantile(&times, 0.5),
        p99: quantile(&times, 0.99),
    })
}
