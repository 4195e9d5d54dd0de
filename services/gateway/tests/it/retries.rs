//! Requests that meet a connection as it closes: sent again if nothing was taken, and never done twice.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::rt;
use futures_util::future::join_all;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::TestGateway;

/// How many digits the number of a request has: its whole body.
const DIGITS: usize = 6;

/// A server on a thread of its own that closes connections whenever it likes, and counts what it has done.
struct Fickle {
    address: SocketAddr,
    log: Arc<Log>,
}

struct Log {
    /// How often the request with each number was done.
    done: Vec<AtomicU8>,
    /// How many connections were opened.
    opened: AtomicUsize,
    /// How often a connection was closed between requests.
    closed: AtomicUsize,
    /// Until this is set, it keeps every connection.
    is_fickle: AtomicBool,
}

/// What it does once it has answered.
#[derive(Clone, Copy)]
enum Mood {
    Stays,
    /// Closes at once.
    Leaves,
    /// Looks at nothing for a moment, and closes: what came by then is thrown away.
    LooksAway,
    /// Closes with a reset.
    Slams,
    /// Waits for the next request for a moment that may be very short, and closes.
    LosesPatience,
    /// The same, but closes its own direction first, and reads what still comes to throw it away.
    LosesPatiencePolitely,
}

impl Fickle {
    fn start(requests: usize, is_fickle: bool) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let done = std::iter::repeat_with(AtomicU8::default).take(requests).collect();
        let log = Arc::new(Log {
            done,
            opened: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
            is_fickle: is_fickle.into(),
        });
        let shared = Arc::clone(&log);
        // It ends with the test's process.
        std::thread::spawn(move || {
            rt::System::new().block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    shared.opened.fetch_add(1, Ordering::Relaxed);
                    rt::spawn(serve(stream, Arc::clone(&shared)));
                }
            });
        });
        Self { address, log }
    }
}

async fn serve(mut stream: TcpStream, log: Arc<Log>) {
    stream.set_nodelay(true).unwrap();
    let mut request = Vec::new();
    let mut mood = Mood::Stays;
    loop {
        let number = match mood {
            Mood::Stays => read_request(&mut stream, &mut request).await,
            Mood::Leaves => None,
            Mood::LooksAway => {
                a_moment().await;
                None
            }
            Mood::Slams => {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                None
            }
            Mood::LosesPatience | Mood::LosesPatiencePolitely => tokio::select! {
                number = read_request(&mut stream, &mut request) => number,
                () = a_moment() => None,
            },
        };
        let Some(number) = number else {
            log.closed.fetch_add(1, Ordering::Relaxed);
            if let Mood::LosesPatiencePolitely = mood {
                let _ = stream.shutdown().await;
                while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {}
            }
            return;
        };
        log.done[number].fetch_add(1, Ordering::Relaxed);
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            return;
        }
        mood = match fastrand::u8(0..100) {
            _ if !log.is_fickle.load(Ordering::Relaxed) => Mood::Stays,
            0..70 => Mood::Stays,
            70..76 => Mood::Leaves,
            76..82 => Mood::LooksAway,
            82..88 => Mood::Slams,
            88..94 => Mood::LosesPatience,
            _ => Mood::LosesPatiencePolitely,
        };
    }
}

async fn a_moment() {
    for _ in 0..fastrand::u32(0..30) {
        tokio::task::yield_now().await;
    }
}

/// The number that the next request carries. `None`: there is none.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<usize> {
    buffer.clear();
    loop {
        if !matches!(stream.read_buf(buffer).await, Ok(1..)) {
            return None;
        }
        // There is never a second request behind the first.
        if let Some((head, number)) = buffer.split_last_chunk::<DIGITS>()
            && head.ends_with(b"\r\n\r\n")
        {
            return Some(std::str::from_utf8(number).unwrap().parse().unwrap());
        }
    }
}

/// Posts all `numbers`, one after the other, and answers how many were answered with 200.
async fn post_all(gateway: &TestGateway, numbers: Range<usize>) -> usize {
    let mut connection = TcpStream::connect(gateway.address).await.unwrap();
    connection.set_nodelay(true).unwrap();
    let mut answer = Vec::new();
    let mut answered = 0;
    for number in numbers {
        let request = format!(
            "POST /webhook/stream-event HTTP/1.1\r\nHost: a\r\nContent-Length: {DIGITS}\r\n\r\n{number:0DIGITS$}"
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        answer.clear();
        while !answer.ends_with(b"\r\n\r\nok") && !answer.ends_with(b"}") {
            assert!(connection.read_buf(&mut answer).await.unwrap() > 0, "{number} was not answered");
        }
        if answer.starts_with(b"HTTP/1.1 200 ") {
            answered += 1;
        } else {
            assert!(answer.starts_with(b"HTTP/1.1 502 "), "{}", String::from_utf8_lossy(&answer));
        }
    }
    answered
}

#[actix_web::test]
async fn of_many_posts_to_a_server_that_closes_at_any_moment_none_fails_and_none_is_done_twice() {
    const CLIENTS: usize = 20;
    const EACH: usize = 5_000;
    let server = Fickle::start(CLIENTS * EACH, true);
    let gateway = TestGateway::before(server.address).await;

    let clients = (0..CLIENTS).map(|client| post_all(&gateway, client * EACH..(client + 1) * EACH));
    let answered: usize = join_all(clients).await.into_iter().sum();

    assert_eq!(answered, CLIENTS * EACH);
    assert!(server.log.done.iter().all(|done| done.load(Ordering::Relaxed) == 1));
    assert!(server.log.closed.load(Ordering::Relaxed) > CLIENTS * EACH / 10, "the server was not fickle");
}

#[actix_web::test]
async fn posts_to_a_server_that_was_trusted_and_begins_to_close_at_any_moment_are_not_done_twice() {
    const CLIENTS: usize = 20;
    const EACH: usize = 100;
    const BEFORE: usize = 100_000;
    let server = Fickle::start(CLIENTS * EACH + BEFORE, false);
    let gateway = TestGateway::before(server.address).await;
    // Each gets a connection of its own, until the first is seen to have been kept for long enough.
    let opened = || server.log.opened.load(Ordering::Relaxed);
    let trusted = async |number| {
        let before = opened();
        post_all(&gateway, number..number + 1).await;
        opened() == before
    };
    let mut numbers = CLIENTS * EACH..CLIENTS * EACH + BEFORE;
    while !trusted(numbers.next().expect("it is never trusted")).await {}

    server.log.is_fickle.store(true, Ordering::Relaxed);
    let clients = (0..CLIENTS).map(|client| post_all(&gateway, client * EACH..(client + 1) * EACH));
    let answered: usize = join_all(clients).await.into_iter().sum();

    // The first ones may have come just before a close: a request that lies there unread looks like one that was read.
    assert!(answered >= CLIENTS * EACH - CLIENTS, "{answered}");
    assert!(server.log.done.iter().all(|done| done.load(Ordering::Relaxed) <= 1));
}
