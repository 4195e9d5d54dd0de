//! Several instances of a service: who is asked, who is let alone, and what clients see when one fails.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::rt;
use futures_util::future::{BoxFuture, join, join_all};
use gateway::upstream::{Resolve, SystemResolver};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::support::{Answer, NOBODY, Notebook, Peer, Stub, TestGateway, chunk, soon};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const POST: &str = "POST /webhook/stream-event HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";

/// Tries until `holds` does.
async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    soon(async {
        while !holds().await {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// An instance that answers each request with its own address, and can leave, die and come back.
struct Instance {
    address: SocketAddr,
    state: Rc<State>,
    alive: Option<CancellationToken>,
}

#[derive(Default)]
struct State {
    /// What `/healthz` answers; 200 if nothing is set.
    health: Cell<Option<u16>>,
    /// How many requests came, probes not counted.
    asked: Cell<usize>,
    probed: Cell<usize>,
    /// Requests that it has not answered yet.
    in_hand: Cell<usize>,
}

/// What a request for `/streams/held` waits for at any instance.
type Gate = Rc<Semaphore>;

impl Instance {
    async fn start(gate: &Gate) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), gate).await
    }

    async fn start_at(address: SocketAddr, gate: &Gate) -> Self {
        let mut instance = Self { address, state: Rc::default(), alive: None };
        instance.rise(gate).await;
        instance
    }

    /// Listens again, where it did before.
    async fn rise(&mut self, gate: &Gate) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let alive = CancellationToken::new();
        let (state, gate, token) = (Rc::clone(&self.state), Rc::clone(gate), alive.clone());
        rt::spawn(alive.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, address)) = accept(&listener).await {
                rt::spawn(token.clone().run_until_cancelled_owned(serve(
                    Peer::new(stream),
                    address,
                    Rc::clone(&state),
                    Rc::clone(&gate),
                )));
            }
        }));
        self.alive = Some(alive);
    }

    /// Closes everything at once, as a killed process does.
    async fn die(&mut self) {
        self.alive.take().unwrap().cancel();
        // The listener is gone once its task has seen that.
        eventually(async || tokio::net::TcpStream::connect(self.address).await.is_err()).await;
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> usize {
        self.state.asked.get()
    }

    fn says(&self, status: u16) {
        self.state.health.set(Some(status));
    }

    /// Waits until what it says has been heard by the gateway for certain: that probes ended after it was said.
    async fn is_heard(&self) {
        let target = self.state.probed.get() + 3;
        eventually(async || self.state.probed.get() >= target).await;
    }
}

async fn accept(listener: &TcpListener) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    let (stream, _) = listener.accept().await?;
    let address = stream.local_addr()?;
    Ok((stream, address))
}

async fn serve(mut peer: Peer, address: SocketAddr, state: Rc<State>, gate: Gate) {
    while let Some(head) = peer.read_request().await {
        if head.starts_with("GET /healthz ") {
            let status = state.health.get().unwrap_or(200);
            peer.write(format!("HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")).await;
            state.probed.set(state.probed.get() + 1);
            return;
        }
        state.asked.set(state.asked.get() + 1);
        state.in_hand.set(state.in_hand.get() + 1);
        if head.contains("/held ") {
            gate.acquire().await.unwrap().forget();
        }
        let body = address.to_string();
        peer.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        state.in_hand.set(state.in_hand.get() - 1);
    }
}

fn gate() -> Gate {
    Rc::new(Semaphore::new(0))
}

/// Probes that keep tests short.
const QUICK: [(&str, &str); 2] = [("GATEWAY_PROBE_EVERY", "20ms"), ("GATEWAY_RESOLVE_EVERY", "20ms")];

fn before(instances: &[&Instance]) -> TestGateway {
    let urls: Vec<_> = instances.iter().map(|instance| instance.url()).collect();
    TestGateway::with([("STREAM_URL", &*urls.join(","))])
}

fn watching(instances: &[&Instance]) -> TestGateway {
    let urls: Vec<_> = instances.iter().map(|instance| instance.url()).collect();
    TestGateway::watching([("STREAM_URL", &*urls.join(",")), QUICK[0], QUICK[1]], SystemResolver)
}

/// Who answered.
fn who(answer: &Answer) -> SocketAddr {
    assert_eq!(answer.status, 200, "{}", answer.head);
    String::from_utf8_lossy(&answer.body).parse().unwrap()
}

#[actix_web::test]
async fn instances_take_turns() {
    let gate = gate();
    let [a, b, c] = [Instance::start(&gate).await, Instance::start(&gate).await, Instance::start(&gate).await];
    let gateway = before(&[&a, &b, &c]);
    for _ in 0..30 {
        who(&gateway.get("/streams").await);
    }
    assert_eq!([a.asked(), b.asked(), c.asked()], [10, 10, 10]);
}

#[actix_web::test]
async fn the_instance_with_the_least_to_do_is_asked() {
    let gate = gate();
    let [a, b] = [Instance::start(&gate).await, Instance::start(&gate).await];
    let gateway = before(&[&a, &b]);
    let mut busy = gateway.connect().await;
    busy.write("GET /streams/held HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually(async || a.asked() + b.asked() == 1).await;
    let (held, free) = if a.asked() == 1 { (&a, &b) } else { (&b, &a) };

    for _ in 0..10 {
        assert_eq!(who(&gateway.get("/streams").await), free.address);
    }
    gate.add_permits(1);
    assert_eq!(who(&busy.answer(false).await), held.address);
    for _ in 0..10 {
        gateway.get("/streams").await;
    }
    assert_eq!([held.asked(), free.asked()], [6, 15]);
}

#[actix_web::test]
async fn a_websocket_counts_as_long_as_it_is_open() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let stub = || {
        Stub::new(move |mut peer: Peer, notebook: Notebook| async move {
            while let Some(head) = peer.read_request().await {
                let is_handshake = head.contains("upgrade: websocket");
                notebook.note(if is_handshake { "handshake" } else { "request" });
                peer.write(if is_handshake { switch } else { OK }).await;
            }
        })
    };
    let [mut a, mut b] = [stub().await, stub().await];
    let urls = format!("http://{},http://{}", a.address, b.address);
    let gateway = TestGateway::with([("STREAM_URL", &*urls)]);
    let mut socket = gateway.connect().await;
    socket.write("GET /streams/7/live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    socket.read_head().await.unwrap();
    if b.has_heard() {
        std::mem::swap(&mut a, &mut b);
    } else {
        assert_eq!(a.next().await, "handshake");
    }

    for _ in 0..6 {
        gateway.get("/streams").await;
        assert_eq!(b.next().await, "request");
    }
    assert!(!a.has_heard());
}

#[actix_web::test]
async fn while_an_instance_is_dead_no_get_fails_and_it_is_used_again_when_it_is_back() {
    let gate = gate();
    let [a, mut b] = [Instance::start(&gate).await, Instance::start(&gate).await];
    let gateway = watching(&[&a, &b]);
    let ask = async || who(&gateway.get("/streams").await);
    for _ in 0..10 {
        ask().await;
    }
    assert!(b.asked() > 0);

    b.die().await;
    for _ in 0..100 {
        assert_eq!(ask().await, a.address);
    }
    b.rise(&gate).await;

    eventually(async || ask().await == b.address).await;
    let before = b.asked();
    for _ in 0..10 {
        ask().await;
    }
    assert_eq!(b.asked(), before + 5);
}

#[actix_web::test]
async fn while_an_instance_is_dead_no_post_fails_either_even_if_nobody_probes() {
    let gate = gate();
    let [a, mut b] = [Instance::start(&gate).await, Instance::start(&gate).await];
    let gateway = before(&[&a, &b]);
    for _ in 0..4 {
        who(&gateway.ask(POST).await);
    }
    b.die().await;
    for _ in 0..50 {
        assert_eq!(who(&gateway.ask(POST).await), a.address);
    }
}

#[actix_web::test]
async fn an_instance_that_does_not_even_refuse_leaves_time_for_the_others() {
    // Its queue of connections is full, so its kernel drops whatever comes.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _in_queue = std::net::TcpStream::connect(address).unwrap();
    let gate = gate();
    let a = Instance::start(&gate).await;
    let urls = format!("http://{address},{}", a.url());
    let gateway = TestGateway::with([("STREAM_URL", &*urls), ("GATEWAY_CONNECT_TIMEOUT", "400ms")]);
    for _ in 0..4 {
        assert_eq!(who(&gateway.ask(POST).await), a.address);
    }
}

#[actix_web::test]
async fn an_instance_that_wants_no_more_requests_gets_none_and_finishes_what_it_has() {
    let gate = gate();
    let [a, b] = [Instance::start(&gate).await, Instance::start(&gate).await];
    let gateway = watching(&[&a, &b]);
    let mut busy = gateway.connect().await;
    busy.write("GET /streams/held HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually(async || a.asked() + b.asked() == 1).await;
    let (held, free) = if a.asked() == 1 { (&a, &b) } else { (&b, &a) };

    held.says(503);
    held.is_heard().await;
    let together = join_all((0..20).map(|_| gateway.get("/streams"))).await;
    assert!(together.iter().all(|answer| who(answer) == free.address));
    gate.add_permits(1);
    assert_eq!(who(&busy.answer(false).await), held.address);
    assert_eq!(held.asked(), 1);

    held.says(200);
    eventually(async || who(&gateway.get("/streams").await) == held.address).await;
}

#[actix_web::test]
async fn instances_that_say_so_before_they_stop_are_restarted_under_load_without_a_failure() {
    let gate = gate();
    let mut instances = [Instance::start(&gate).await, Instance::start(&gate).await];
    let gateway = watching(&[&instances[0], &instances[1]]);
    let is_over = Cell::new(false);
    let load = join_all((0..8).map(async |_| {
        let mut connection = gateway.connect().await;
        while !is_over.get() {
            who(&connection.ask("GET /streams HTTP/1.1\r\nHost: a\r\n\r\n").await);
            who(&connection.ask(POST).await);
        }
    }));
    let restarts = async {
        for _ in 0..2 {
            for instance in &mut instances {
                instance.says(503);
                instance.is_heard().await;
                eventually(async || instance.state.in_hand.get() == 0).await;
                instance.die().await;
                instance.says(200);
                instance.rise(&gate).await;
                let before = instance.asked();
                eventually(async || instance.asked() > before + 10).await;
            }
        }
        is_over.set(true);
    };
    join(load, restarts).await;
}

#[actix_web::test]
async fn when_all_want_no_more_requests_the_answer_is_a_503_at_once() {
    let a = Instance::start(&gate()).await;
    let gateway = watching(&[&a]);
    a.says(503);
    a.is_heard().await;

    let answer = gateway.get("/streams").await;

    assert_eq!((answer.status, answer.problem().as_str()), (503, "unavailable"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(a.asked(), 0);
}

#[actix_web::test]
async fn an_instance_without_a_probe_or_with_a_broken_one_is_asked() {
    for status in [404, 500] {
        let a = Instance::start(&gate()).await;
        a.says(status);
        let gateway = watching(&[&a]);
        a.is_heard().await;
        assert_eq!(who(&gateway.get("/streams").await), a.address);
    }
}

/// Names and their addresses, which a test may change. Others do not exist.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<HashMap<&'static str, Vec<IpAddr>>>>);

impl Names {
    fn set(&self, name: &'static str, addresses: &[SocketAddr]) {
        self.0.lock().unwrap().insert(name, addresses.iter().map(SocketAddr::ip).collect());
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let found = self.0.lock().unwrap().get(host).cloned();
        Box::pin(async move { found.ok_or_else(|| io::Error::other("no such name")) })
    }
}

#[actix_web::test]
async fn each_address_of_a_name_is_an_instance_and_names_are_looked_up_again() {
    let gate = gate();
    let a = Instance::start(&gate).await;
    let b = Instance::start_at(SocketAddr::new("127.0.0.2".parse().unwrap(), a.address.port()), &gate).await;
    let names = Names::default();
    names.set("streams.test", &[a.address, b.address]);
    let at = format!("http://streams.test:{}", a.address.port());
    let gateway = TestGateway::watching([("STREAM_URL", &*at), QUICK[0], QUICK[1]], names.clone());
    let ask = async || who(&gateway.get("/streams").await);

    for _ in 0..10 {
        ask().await;
    }
    assert_eq!([a.asked(), b.asked()], [5, 5]);

    names.set("streams.test", &[b.address]);
    eventually(async || ask().await == b.address && ask().await == b.address).await;
    // A name that cannot be looked up keeps the addresses that it had.
    names.0.lock().unwrap().clear();
    b.is_heard().await;
    assert_eq!(ask().await, b.address);

    names.set("streams.test", &[a.address, b.address]);
    eventually(async || ask().await == a.address).await;
}

#[actix_web::test]
async fn a_name_that_nobody_knows_is_a_503_until_somebody_does() {
    let a = Instance::start(&gate()).await;
    let names = Names::default();
    let at = format!("http://streams.test:{}", a.address.port());
    let gateway = TestGateway::watching([("STREAM_URL", &*at), QUICK[0], QUICK[1]], names.clone());

    assert_eq!(gateway.get("/streams").await.problem(), "unavailable");
    names.set("streams.test", &[a.address]);
    eventually(async || gateway.get("/streams").await.status == 200).await;
}

#[actix_web::test]
async fn the_breaker_opens_for_a_silent_service_and_closes_after_a_trial() {
    let speaks = Rc::new(Cell::new(false));
    let asked = Rc::new(Cell::new(0));
    let (knows, counter) = (Rc::clone(&speaks), Rc::clone(&asked));
    let upstream = Stub::new(move |mut peer: Peer, _| {
        let (knows, counter) = (Rc::clone(&knows), Rc::clone(&counter));
        async move {
            while peer.read_request().await.is_some() {
                counter.set(counter.get() + 1);
                if knows.get() {
                    peer.write(OK).await;
                }
            }
        }
    })
    .await;
    let at = format!("http://{}", upstream.address);
    let gateway = TestGateway::with([("STREAM_URL", &*at), ("GATEWAY_ANSWER_TIMEOUT", "400ms")]);
    let silent = join_all((0..3).map(|_| gateway.get("/streams"))).await;
    assert!(silent.iter().all(|answer| answer.status == 504));

    let began = Instant::now();
    for _ in 0..10 {
        let answer = gateway.get("/streams").await;
        assert_eq!((answer.status, answer.problem().as_str()), (503, "unavailable"));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert!(began.elapsed() < Duration::from_millis(400), "it was waited for the service");
    assert_eq!(asked.get(), 3, "the service was asked");

    // One trial at a time; the first fails, so that the second comes later.
    let is_trial = async || gateway.get("/streams").await.status == 504;
    eventually(is_trial).await;
    assert_eq!(gateway.get("/streams").await.header("retry-after"), Some("2"));
    assert_eq!(asked.get(), 4);
    speaks.set(true);
    eventually(async || gateway.get("/streams").await.status == 200).await;
    let together = join_all((0..5).map(|_| gateway.get("/streams"))).await;
    assert!(together.iter().all(|answer| answer.status == 200));
}

#[actix_web::test]
async fn the_breaker_opens_for_a_service_that_refuses() {
    let gateway = TestGateway::before(NOBODY).await;
    let mut waits = Vec::new();
    for _ in 0..5 {
        let answer = gateway.ask(POST).await;
        assert_eq!((answer.status, answer.problem().as_str()), (503, "unavailable"));
        waits.push(answer.header("retry-after").unwrap().to_owned());
    }
    assert_eq!(waits, ["2", "2", "2", "1", "1"]);
}

#[actix_web::test]
async fn neither_slow_clients_nor_answers_of_500_speak_against_a_service() {
    let upstream = Stub::new(async |mut peer: Peer, _| {
        while let Some(head) = peer.read_head().await {
            if peer.read_body(&head).await.is_none() {
                return;
            }
            peer.write("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno").await;
        }
    })
    .await;
    let at = format!("http://{}", upstream.address);
    let gateway = TestGateway::with([("STREAM_URL", &*at), ("GATEWAY_BODY_TIMEOUT", "20ms")]);
    for _ in 0..5 {
        let half = POST.strip_suffix('b').unwrap();
        assert_eq!(gateway.ask(half).await.status, 408);
    }
    for _ in 0..5 {
        assert_eq!(gateway.get("/streams").await.body, b"no");
    }
}

#[actix_web::test]
async fn an_answer_that_breaks_off_in_mid_body_never_looks_complete() {
    for head in ["Content-Length: 10\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"] {
        let upstream = Stub::new(async move |mut peer: Peer, _: Notebook| {
            peer.read_request().await.unwrap();
            let piece = if head.starts_with('C') { b"abc".to_vec() } else { chunk(b"abc") };
            peer.write([b"HTTP/1.1 200 OK\r\n", head.as_bytes(), &piece].concat()).await;
        })
        .await;
        let gateway = TestGateway::before(upstream.address).await;
        let mut client = gateway.connect().await;
        client.write("GET /streams HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.read_head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let body = client.read_to_end().await;
        let whole = if head.contains("chunked") { chunk(b"abc") } else { b"abc".to_vec() };
        // Without the last chunk, or with fewer bytes than were promised.
        assert_eq!(body, whole);
    }
}

#[actix_web::test]
async fn an_answer_that_comes_byte_by_byte_passes() {
    const PAUSE: Duration = Duration::from_millis(300);
    let upstream = Stub::new(async |mut peer: Peer, _| {
        peer.read_request().await.unwrap();
        let mut pace = interval(PAUSE);
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r").await;
        for byte in ["\n", "s", "l", "o", "w", "l", "y"] {
            pace.tick().await;
            peer.write(byte).await;
        }
        peer.read_to_end().await;
    })
    .await;
    let at = format!("http://{}", upstream.address);
    // Longer than any pause, shorter than all of them.
    let gateway = TestGateway::with([("STREAM_URL", &*at), ("GATEWAY_ANSWER_TIMEOUT", "1200ms")]);
    let began = Instant::now();
    assert_eq!(gateway.get("/streams").await.body, b"slowly");
    assert!(began.elapsed() >= 5 * PAUSE);
}
