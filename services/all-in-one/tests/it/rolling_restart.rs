//! Every gateway and every instance of a service is restarted, one after the other, and no client notices.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{interval, timeout};

use crate::house::folder;
use crate::instances::{Instance, Instances, Servers, read_head, sql};

/// The most requests a second that are sent, all clients together.
const RATE: u32 = 1000;
const CLIENTS: u32 = 50;
/// Each client makes a stream with every so many-th request.
const POST_EVERY: u32 = 20;
/// How often a load balancer looks at each gateway. Well below the notice that they give.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a load balancer does: it knows which gateways take requests.
struct Balancer {
    gateways: Vec<(String, AtomicBool)>,
    next: AtomicUsize,
}

impl Balancer {
    /// Looks at every gateway, for ever.
    async fn keep_watch(&self) {
        let mut ticks = interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            for (address, is_up) in &self.gateways {
                let request = "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                let look = async { exchange(&mut TcpStream::connect(address).await.ok()?, request).await.ok() };
                let status = timeout(Duration::from_secs(1), look).await.ok().flatten();
                is_up.store(status == Some(200), Ordering::Relaxed);
            }
        }
    }

    /// Which gateway gets the next request: in turn, of those that take any.
    fn choose(&self) -> usize {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed) % self.gateways.len();
            // Of two gateways only one is ever taken out.
            if self.gateways[index].1.load(Ordering::Relaxed)
                || self.gateways.iter().all(|it| !it.1.load(Ordering::Relaxed))
            {
                return index;
            }
        }
    }
}

/// What clients met.
#[derive(Default)]
struct Tally {
    answered: usize,
    /// Titles of streams that were answered with 201.
    created: usize,
    failed: Vec<String>,
}

/// Sends `request`, and reads the answer whole. Its status.
async fn exchange(stream: &mut TcpStream, request: &str) -> Result<u16, String> {
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("not sent: {error}"))?;
    let mut buffer = Vec::new();
    let head = read_head(stream, &mut buffer).await.ok_or("closed without an answer")?;
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(Ok(0), str::parse).map_err(|error| format!("{error}"))?;
    let is_chunked = lower.contains("\r\ntransfer-encoding: chunked\r\n");
    while if is_chunked { !buffer.ends_with(b"0\r\n\r\n") } else { buffer.len() < length } {
        if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
            return Err("broken off".to_owned());
        }
    }
    head[9..12].parse().map_err(|error| format!("{error}"))
}

/// One client: keeps a connection to each gateway, and sends a request each `pace`, until it is stopped.
async fn client(
    number: u32,
    balancer: Arc<Balancer>,
    token: String,
    is_over: Arc<AtomicBool>,
    tally: Rc<RefCell<Tally>>,
) {
    let mut connections: Vec<Option<TcpStream>> = balancer.gateways.iter().map(|_| None).collect();
    let mut pace = interval(Duration::from_secs(1) * CLIENTS / RATE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count = number;
    while !is_over.load(Ordering::Relaxed) {
        pace.tick().await;
        count += 1;
        let is_post = count.is_multiple_of(POST_EVERY);
        let request = if is_post {
            let body = json!({"title": format!("{number}-{count}")}).to_string();
            format!(
                "POST /api/v1/streams HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        } else {
            "GET /api/v1/streams?limit=1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()
        };
        let index = balancer.choose();
        let connection = &mut connections[index];
        let is_new = connection.is_none();
        let sent = async {
            if connection.is_none() {
                let stream = TcpStream::connect(&balancer.gateways[index].0).await;
                let stream = stream.map_err(|error| format!("refused: {error}"))?;
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                *connection = Some(stream);
            }
            exchange(connection.as_mut().ok_or("no connection")?, &request).await
        };
        let outcome = timeout(PATIENCE, sent).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let mut tally = tally.borrow_mut();
        match (outcome, is_post) {
            (Ok(200), false) => tally.answered += 1,
            (Ok(201), true) => {
                tally.answered += 1;
                tally.created += 1;
            }
            (outcome, _) => {
                *connection = None;
                let kind = if is_post { "POST" } else { "GET" };
                tally.failed.push(format!("{kind} at gateway {index}, connection new: {is_new}: {outcome:?}"));
            }
        }
        // What a gateway that was taken out still holds is let go, as balancers do.
        for (connection, (_, is_up)) in connections.iter_mut().zip(&balancer.gateways) {
            if !is_up.load(Ordering::Relaxed) {
                *connection = None;
            }
        }
    }
}

#[tokio::test]
async fn of_requests_during_a_rolling_restart_none_fails_and_none_is_done_twice() {
    let mut house =
        Instances::start(Servers::default(), &[("SHUTDOWN_NOTICE", "3s".to_owned()), ("LOG_LEVEL", "warn".to_owned())])
            .await;
    let token = house.register("ana@example.org").await.token;
    let address = |url: &str| url.strip_prefix("http://").unwrap().to_owned();
    let gateways = house.gateway.iter().map(|it| (address(&it.url), AtomicBool::new(true))).collect();
    let balancer = Arc::new(Balancer { gateways, next: AtomicUsize::new(0) });
    let tally = Rc::new(RefCell::new(Tally::default()));
    let is_over = Arc::new(AtomicBool::new(false));

    let local = LocalSet::new();
    for number in 0..CLIENTS {
        let (balancer, token) = (Arc::clone(&balancer), token.clone());
        local.spawn_local(client(number, balancer, token, Arc::clone(&is_over), Rc::clone(&tally)));
    }
    let watched = Arc::clone(&balancer);
    let restarts = async {
        let began = Instant::now();
        for _ in 0..2 {
            for index in 0..2 {
                // One of each at a time, as an operator's tool does that waits until the new one is ready.
                house.stream[index].stop().await;
                house.stream[index].start().await;
                house.gateway[index].stop().await;
                house.gateway[index].start().await;
                let is_up = || watched.gateways[index].1.load(Ordering::Relaxed);
                eventually("the balancer has seen it", async || is_up().then_some(())).await;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        began.elapsed()
    };
    let took = local
        .run_until(async {
            tokio::select! {
                took = restarts => took,
                () = watched.keep_watch() => unreachable!("it watches for ever"),
            }
        })
        .await;
    // The requests in hand are answered.
    local.await;

    let tally = tally.take();
    let rate = tally.answered as f64 / took.as_secs_f64();
    println!("{} requests in {took:.1?}, {rate:.0} a second, {} of them made a stream", tally.answered, tally.created);
    assert_eq!(tally.failed, Vec::<String>::new(), "of {}", tally.answered);
    assert!(tally.answered > 1000 && tally.created > 50, "{} and {}", tally.answered, tally.created);
    let streams = sql(&house.database.url, "select count(*) || '/' || count(distinct title) from stream.streams").await;
    assert_eq!(streams, format!("{0}/{0}", tally.created));
    // Nobody is left for whom they would have to give notice.
    house.all().for_each(Instance::kill);
}

#[tokio::test]
async fn a_gateway_that_can_verify_nobody_yet_lets_the_balancer_send_its_requests_elsewhere() {
    let data = folder();
    let mut gateway = Instance::new(
        "gateway",
        &vec![
            ("AMPHI_DATA_DIR", data.path().display().to_string()),
            // Nobody listens there.
            ("AUTH_URL", "http://127.0.0.1:1".to_owned()),
        ],
    );
    gateway.spawn();

    let client = testkit::client();
    let first =
        eventually("it listens", async || client.get(format!("{}/healthz", gateway.url)).send().await.ok()).await;

    assert_eq!(first.status(), 503);
}
