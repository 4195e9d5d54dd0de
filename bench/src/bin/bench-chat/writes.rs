//! How many messages are stored, beside the least that PostgreSQL can do for one, and how soon they are acknowledged.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bench::figures::{Spread, quantile};
use bench::postgres::{pgbench, query};
use bench::servers::{self, Server};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::client::{Client, PATIENCE, User};
use crate::fan_out::open_all;
use crate::speech::Speech;
use crate::{Part, ROOMS, Target};

const PGBENCH_CLIENTS: usize = 20;
/// Messages of one sender that are not acknowledged yet, when nobody waits for the clock.
const IN_FLIGHT: usize = 32;
const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(3);
/// How often it is looked which messages are due.
const TICK: Duration = Duration::from_millis(1);
/// The least of pgbench's inserts a second that have to be reached.
const LEAST: f64 = 10.0;
/// Acknowledged later than this is too late.
const MOST_MS: f64 = 15.0;

/// Somebody who is alone in a room, and speaks.
struct Sender {
    client: Rc<Client>,
    room: usize,
    /// When each message was due that is not acknowledged.
    due: Rc<RefCell<VecDeque<Instant>>>,
    listening: JoinHandle<()>,
}

struct Round {
    /// By pgbench, a second; and CPU microseconds of each.
    inserts: f64,
    insert_cost: f64,
    /// Messages a second; and CPU microseconds of each, of both programs.
    rate: f64,
    cost: Vec<f64>,
    /// How late they were acknowledged when so many came: the median and the 99th of hundred, in milliseconds.
    late: [(f64, f64); 2],
}

#[derive(Default)]
struct Acknowledged {
    times: RefCell<Vec<Duration>>,
    broken: Cell<bool>,
    notify: Notify,
}

pub(crate) async fn measure(servers: &[Server], users: &[User], folder: &Path) -> anyhow::Result<Part> {
    let (server, postgres) = (servers::find(servers, "chat")?, servers::find(servers, "postgres")?);
    let script = folder.join("insert.sql");
    let text = "x".repeat(crate::speech::SIZE);
    fs::write(
        &script,
        format!(
            "\\set room random(1, 100)\nINSERT INTO bench.messages (room_id, user_uuid, content, message_created_at) \
             VALUES (:room, '00000000-0000-4000-8000-000000000000', '{text}', now());\n"
        ),
    )?;
    eprintln!("bench: writes: {ROUNDS} rounds of 3 runs of {} s", TIME.as_secs());
    let acknowledged = Rc::<Acknowledged>::default();
    let clients = open_all(server.address, Speech::Rooms, &users[..ROOMS], |user| user % ROOMS + 1).await?;
    let buffer = Rc::<RefCell<Vec<u8>>>::default();
    let senders = clients.into_iter().enumerate().map(|(number, client)| {
        let (client, due) = (Rc::new(client), Rc::<RefCell<VecDeque<Instant>>>::default());
        let (listener, waiting, acknowledged) = (Rc::clone(&client), Rc::clone(&due), Rc::clone(&acknowledged));
        let buffer = Rc::clone(&buffer);
        let listening = tokio::task::spawn_local(async move {
            let ended = listener.listen(&buffer, |frame| {
                // They come in the order of the messages.
                if Speech::is_ack(frame)
                    && let Some(due) = waiting.borrow_mut().pop_front()
                {
                    acknowledged.times.borrow_mut().push(due.elapsed());
                    acknowledged.notify.notify_one();
                }
            });
            let _closed = ended.await;
            acknowledged.broken.set(true);
            acknowledged.notify.notify_one();
        });
        Sender { client, room: number % ROOMS + 1, due, listening }
    });
    let senders: Vec<_> = senders.collect();

    let mut rounds = Vec::new();
    let mut stored = 0;
    flood(&senders, &acknowledged, Duration::from_millis(500)).await?; // connections, prepared statements
    let first = count()?;
    for _ in 0..ROUNDS {
        let before = postgres.cpu()?;
        let inserted = tokio::task::spawn_blocking({
            let script = script.clone();
            move || pgbench(&script, PGBENCH_CLIENTS, TIME, &[], None)
        });
        let inserted = inserted.await??;
        let spent: f64 = postgres.cpu()?.since(&before).iter().sum();
        let (inserts, insert_cost) = (inserted.per_second, spent / inserted.transactions * 1e6);
        let (before, start) = (server.cpu()?, Instant::now());
        let times = flood(&senders, &acknowledged, TIME).await?;
        let messages = times.len() as f64;
        let rate = messages / start.elapsed().as_secs_f64();
        let cost: Vec<_> = server.cpu()?.since(&before).iter().map(|seconds| seconds / messages * 1e6).collect();
        // The first may be more than goes: then the second tells more.
        let paced = [inserts * LEAST / 2.0, rate / 2.0];
        let mut late = [const { (0.0, 0.0) }; 2];
        for (late, paced) in late.iter_mut().zip(paced) {
            let mut times = pace(&senders, &acknowledged, paced).await?;
            stored += times.len();
            times.sort_unstable();
            *late = (quantile(&times, 0.5) / 1e3, quantile(&times, 0.99) / 1e3);
        }
        stored += times.len();
        rounds.push(Round { inserts, insert_cost, rate, cost, late });
    }
    let found = count()? - first;
    ensure!(found == stored, "{stored} messages were acknowledged, {found} are in the table");
    senders.iter().for_each(|sender| sender.listening.abort());

    let median = |of: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(of)).median;
    let ratio = Spread::of(rounds.iter().map(|round| round.rate / round.inserts));
    let mut text = format!(
        "{} senders, each alone in a room with {IN_FLIGHT} messages in flight, beside pgbench (`-M prepared`, {PGBENCH_CLIENTS} \
         connections): one `INSERT` into a table without other indexes, in the same PostgreSQL (`fsync` on). {ROUNDS} rounds of {} s in \
         turn; medians, of ratios also the quartiles. All that were acknowledged were found in the table.\n\n\
         | | a second | ratio to pgbench in the same round | CPU µs each |\n|---|---|---|---|\n",
        senders.len(),
        TIME.as_secs()
    );
    let insert_cost = median(&|round| round.insert_cost);
    writeln!(text, "| `INSERT` | {:.0} | 1 | {insert_cost:.1} |", median(&|round| round.inserts))?;
    let (rate, chat, sql) =
        (median(&|round| round.rate), median(&|round| round.cost[0]), median(&|round| round.cost[1]));
    writeln!(text, "| messages | {rate:.0} | {ratio} | {chat:.1} + {sql:.1} |")?;
    text.push_str("\nCPU: chat + PostgreSQL; of pgbench's, PostgreSQL alone.\n\n| how many a second | acknowledged after, p50, ms | p99, ms |\n|---|---|---|\n");
    for (place, what) in ["five times pgbench's", "half of what goes"].into_iter().enumerate() {
        let half = Spread::of(rounds.iter().map(|round| round.late[place].0));
        let tail = Spread::of(rounds.iter().map(|round| round.late[place].1));
        writeln!(text, "| {what} | {half} | {tail} |")?;
    }
    text.push_str("\nFrom when each was due.\n");
    let p99 = Spread::of(rounds.iter().map(|round| round.late[0].1));
    let targets = vec![
        Target {
            what: "messages stored a second, to inserts by pgbench".to_owned(),
            aim: "≥ 10",
            figure: ratio.to_string(),
            is_met: ratio.median >= LEAST,
        },
        Target {
            what: "acknowledged at five times its rate, p99".to_owned(),
            aim: "< 15 ms",
            figure: format!("{p99} ms"),
            is_met: p99.median < MOST_MS,
        },
    ];
    Ok(Part { text, targets, is_valid: true })
}

fn count() -> anyhow::Result<usize> {
    Ok(query(&format!("SELECT count(*) FROM messages WHERE room_id <= {ROOMS}"))?.parse()?)
}

impl Sender {
    async fn send(&self, count: usize, due: Instant) -> anyhow::Result<()> {
        let mut frames = Vec::new();
        for number in 0..count {
            frames.extend_from_slice(&Speech::Rooms.message(self.room, number));
            self.due.borrow_mut().push_back(due);
        }
        Ok(self.client.say(&frames).await?)
    }
}

/// As much as goes, for a while; returns when all is acknowledged: how late.
async fn flood(senders: &[Sender], acknowledged: &Acknowledged, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        for sender in senders {
            let free = IN_FLIGHT - sender.due.borrow().len();
            // Several at once, as one write.
            if free >= IN_FLIGHT / 4 {
                sender.send(free, Instant::now()).await?;
            }
        }
        wait(acknowledged).await?;
        // What has come meanwhile is heard first.
        tokio::task::yield_now().await;
    }
    settle(senders, acknowledged).await
}

/// So many a second.
async fn pace(senders: &[Sender], acknowledged: &Acknowledged, rate: f64) -> anyhow::Result<Vec<Duration>> {
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < TIME {
        let wanted = (start.elapsed().as_secs_f64() * rate) as usize;
        while sent < wanted {
            let due = start + Duration::from_secs_f64(sent as f64 / rate);
            senders[sent % senders.len()].send(1, due).await?;
            sent += 1;
        }
        sleep(TICK).await;
    }
    settle(senders, acknowledged).await
}

/// Waits until everything is acknowledged.
async fn settle(senders: &[Sender], acknowledged: &Acknowledged) -> anyhow::Result<Vec<Duration>> {
    while senders.iter().any(|sender| !sender.due.borrow().is_empty()) {
        wait(acknowledged).await?;
    }
    Ok(std::mem::take(&mut *acknowledged.times.borrow_mut()))
}

async fn wait(acknowledged: &Acknowledged) -> anyhow::Result<()> {
    ensure!(!acknowledged.broken.get(), "a connection broke off");
    timeout(PATIENCE, acknowledged.notify.notified()).await.context("nothing is acknowledged any more")
}
