//! Everything is killed at any point, and every committed event takes effect exactly once, in order.
//!
//! The processes are real: this test binary, started again as [`worker`]. They are killed with SIGKILL at random
//! moments; so is the broker, or where there is none the database.

use std::process::Stdio;
use std::time::Duration;

use outbox::{Consumer, Local, Relay, Transport};
use serde::{Deserialize, Serialize};
use testkit::{Postgres, RabbitMq, TestDatabase, eventually};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::house::{self, QUEUE, Record, SUBSCRIPTIONS, fine, try_commit, try_effects, try_numbers, waiting};

/// How long things are killed.
const FAULTS_FOR: Duration = Duration::from_secs(15);

/// Processes: half of them relay, half consume, so that each kind has one at work and one standing by.
const WORKERS: usize = 4;

const NAMESPACE: &str = "amphi";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_relays_consumers_and_rabbitmq_loses_and_repeats_nothing() {
    let rabbitmq = RabbitMq::private().await;
    let database = testkit::database().await;
    let amqp_url = rabbitmq.url();
    // RabbitMQ 3.10 writes down that a queue exists only some time after it has said so (Ra's directory, a dets table).
    // Killed before that, it never answers a publish to this queue again: everything waits in the outbox, and nothing
    // is lost, but nothing moves. A broker that was stopped once in good order is past that.
    house::amqp(&amqp_url, NAMESPACE).parked(None).await.unwrap();
    rabbitmq.stop().await;
    rabbitmq.start().await;
    let workers = Workers::new(&database, Some(amqp_url.clone()));
    // Each takes 3 s to come back.
    let breaks = async |n| {
        if n % 16 == 8 {
            rabbitmq.kill().await;
            rabbitmq.start().await;
        }
    };
    run(&database, house::amqp(&amqp_url, NAMESPACE), workers, breaks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_relays_consumers_and_postgresql_loses_and_repeats_nothing() {
    let postgres = Postgres::private().await;
    let database = testkit::database_on(&postgres.url()).await;
    let transport = house::local(&database).await;
    let workers = Workers::new(&database, None);
    let breaks = async |n| {
        if n % 8 == 4 {
            postgres.kill().await;
            postgres.start().await;
        }
    };
    run(&database, transport, workers, breaks).await;
}

/// Commit changes while workers are killed and `breaks` does its worst, then see that each took effect.
async fn run(database: &TestDatabase, transport: Transport, mut workers: Workers, breaks: impl AsyncFn(u32)) {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
    eprintln!("seed {seed}");
    fastrand::seed(seed);
    let (source, sink) = (house::source(database).await, house::sink(database).await);
    workers.start_all();
    let deadline = Instant::now() + FAULTS_FOR;

    let produce = async {
        let mut n = 0;
        let mut failed = 0;
        while Instant::now() < deadline {
            n += 1;
            failed += u32::from(try_commit(&source, n).await.is_err());
            sleep(Duration::from_millis(fastrand::u64(0..10))).await;
        }
        failed
    };
    let destroy = async {
        let mut killed = 0;
        while Instant::now() < deadline {
            sleep_until(Instant::now() + Duration::from_millis(fastrand::u64(20..400))).await;
            workers.replace(fastrand::usize(0..WORKERS)).await;
            killed += 1;
            breaks(killed).await;
        }
        killed
    };
    let (failed_commits, killed) = tokio::join!(produce, destroy);

    let committed =
        eventually("the changes", async || try_numbers(&source, "SELECT n FROM changes ORDER BY n").await.ok()).await;
    // A busy machine may take long for all of them; what counts is that it goes on.
    let mut effects = 0;
    while effects < committed.len() {
        effects = eventually(&format!("more than {effects} effects of {} changes", committed.len()), async || {
            try_effects(&sink).await.ok().map(|effects| effects.len()).filter(|seen| *seen > effects)
        })
        .await;
    }
    eventually("an empty outbox", async || (waiting(&source).await == 0).then_some(())).await;
    eprintln!("{} changes, {failed_commits} failed commits, {killed} processes killed", committed.len());
    assert_eq!(house::effects(&sink).await, committed);
    assert_eq!(transport.parked(None).await.unwrap(), []);
    assert!(killed > 10 && committed.len() > 100, "too little happened for a result");
}

/// The processes that move events.
struct Workers {
    task: Task,
    children: Vec<Child>,
}

/// What a process is to do: one of them relays, the next consumes.
#[derive(Clone, Serialize, Deserialize)]
struct Task {
    relays: bool,
    source_url: String,
    sink_url: String,
    broker_url: String,
    /// None for the in-process transport.
    amqp_url: Option<String>,
}

/// Tells a process its task.
const TASK: &str = "OUTBOX_TEST_WORKER";

impl Workers {
    fn new(database: &TestDatabase, amqp_url: Option<String>) -> Self {
        let [source_url, sink_url, broker_url] =
            ["source", "sink", "broker"].map(|schema| database.url_for_schema(schema));
        Self { task: Task { relays: true, source_url, sink_url, broker_url, amqp_url }, children: Vec::new() }
    }

    fn start_all(&mut self) {
        self.children = (0..WORKERS).map(|n| self.start(n)).collect();
    }

    async fn replace(&mut self, n: usize) {
        self.children[n].kill().await.unwrap();
        self.children[n] = self.start(n);
    }

    fn start(&self, n: usize) -> Child {
        let task = Task { relays: n.is_multiple_of(2), ..self.task.clone() };
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faults::worker", "--ignored"])
            .env(TASK, serde_json::to_string(&task).unwrap())
            // It ends when this closes, also if we are killed ourselves.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }
}

/// Not a test: the process that [`Workers`] start.
#[tokio::test]
#[ignore = "it is a process of the tests above"]
async fn worker() {
    let Some(task) = task() else { return };
    let transport = match &task.amqp_url {
        Some(amqp_url) => house::amqp(amqp_url, NAMESPACE),
        None => Transport::Local(Local::new(testkit::pool(&task.broker_url), SUBSCRIPTIONS)),
    };
    let work = async {
        let never = CancellationToken::new();
        if task.relays {
            Relay::new(testkit::pool(&task.source_url), transport).run(never).await;
        } else {
            Consumer::new(QUEUE, testkit::pool(&task.sink_url), transport, Record(fine)).run(never).await;
        }
    };
    let mut stdin = tokio::io::stdin();
    tokio::select! {
        () = work => {}
        _ = stdin.read_u8() => {}
    }
}

#[expect(clippy::disallowed_methods, reason = "the process has no configuration but this")]
fn task() -> Option<Task> {
    serde_json::from_str(&std::env::var(TASK).ok()?).ok()
}
