//! Clients that are slow, silent or gone, and those that try things out: what each costs the others, which is nothing.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, interval, timeout};
use tokio_tungstenite::client_async;

use crate::instances::two;
use crate::peers::{DIALECTS, Heard, Peer, Place};
use crate::support::{PATIENCE, TestChat, User, problem};

fn address(chat: &TestChat) -> SocketAddr {
    chat.url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// A connection with little room for what comes.
async fn narrow(chat: &TestChat) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(address(chat)).await.unwrap()
}

/// Waits until the user has the room open no more.
async fn until_left(chat: &TestChat, asks: &User, room: i64, gone: &User) {
    testkit::eventually("the instance has let go", async || {
        let path = format!("/chat/rooms/{room}/status");
        let status: Value = chat.get(asks, &path).send().await.unwrap().json().await.unwrap();
        let online = status["online_users"].as_array().unwrap();
        (!online.contains(&json!(gone.id))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_does_not_read_is_closed_with_1013_and_slows_nobody() {
    /// More than the system keeps for a connection, and our own bound.
    const COUNT: usize = 1_500;
    let chat = TestChat::start().await;
    let (ana, ben, slow) = (chat.user("Ana"), chat.user("Ben"), chat.user("Slow"));
    let room = chat.room_of(&[&ana, &ben, &slow]).await;
    let place = Place::of(&chat, &ana, room).await;
    let mut slow_ones = Vec::new();
    for dialect in DIALECTS {
        let mut peer = Peer::over(narrow(&chat).await, &chat.url, dialect, &slow.token, &place, Some(0)).await.unwrap();
        while !matches!(peer.hear().await.unwrap(), Heard::Joined { .. }) {}
        slow_ones.push((dialect, peer));
    }
    let (mut writer, mut reader) = (chat.socket_in(&ana, room).await, chat.socket_in(&ben, room).await);
    let content = "x".repeat(7_000);

    let begin = Instant::now();
    let (longest, heard) = tokio::join!(
        async {
            let mut longest = Duration::ZERO;
            for _ in 0..COUNT {
                let begin = Instant::now();
                writer.send(room, &content).await;
                writer.until("ack").await;
                longest = longest.max(begin.elapsed());
            }
            longest
        },
        reader.messages(COUNT)
    );

    assert!(heard.iter().zip(1..).all(|((seq, _), n)| *seq == n));
    assert!(longest < Duration::from_secs(5), "{longest:?} of {:?}", begin.elapsed());
    // Nothing was kept for those who do not read, and they are there no more.
    until_left(&chat, &ana, room, &slow).await;
    for (dialect, mut peer) in slow_ones {
        assert_eq!(peer.closed().await, 1013, "{dialect:?}");
    }
}

#[tokio::test]
async fn who_vanishes_without_a_word_is_let_go_after_two_pings() {
    let quick = vec![
        ("CHAT_PING_EVERY", "200ms".to_owned()),
        ("CHAT_SOCKET_IO_PING_INTERVAL", "200ms".to_owned()),
        ("CHAT_SOCKET_IO_PING_TIMEOUT", "200ms".to_owned()),
    ];
    let chat = TestChat::with(quick).await;
    let (ana, gone) = (chat.user("Ana"), chat.user("Gone"));
    let room = chat.room_of(&[&ana, &gone]).await;
    let place = Place::of(&chat, &ana, room).await;
    for dialect in DIALECTS {
        let mut peer = Peer::come(&chat.url, dialect, &gone.token, &place, Some(0)).await.unwrap();
        while !matches!(peer.hear().await.unwrap(), Heard::Joined { .. }) {}

        // From here on it neither reads nor answers, as one whose network has gone.
        until_left(&chat, &ana, room, &gone).await;

        let code = peer.closed().await;
        assert!([1001, 1000].contains(&code), "{dialect:?}: {code}");
    }
    // One that answers pings and says nothing else stays.
    let mut quiet = chat.socket_in(&ana, room).await;
    let answers = async { while quiet.hear().await.is_ok() {} };
    assert!(timeout(Duration::from_secs(2), answers).await.is_err(), "it is still there");
}

#[tokio::test]
async fn a_frame_that_comes_a_byte_at_a_time_is_no_sign_of_life() {
    let chat = TestChat::with(vec![("CHAT_PING_EVERY", "500ms".to_owned())]).await;
    let (ana, slow) = (chat.user("Ana"), chat.user("Slow"));
    let room = chat.room_of(&[&ana, &slow]).await;
    let stream = TcpStream::connect(address(&chat)).await.unwrap();
    let url = format!("ws://{}/api/v1/chat/ws?token={}&room_id={room}", address(&chat), slow.token);
    let (socket, _) = client_async(url, stream).await.unwrap();
    let mut stream = socket.into_inner();
    // The head of a text of 60,000 bytes, masked with zeros.
    stream.write_all(&[0x81, 0xfe, 0xea, 0x60, 0, 0, 0, 0]).await.unwrap();
    let (mut reads, mut writes) = stream.into_split();

    let begin = Instant::now();
    let mut tick = interval(Duration::from_millis(50));
    let mut said = Vec::new();
    let dribble = async {
        loop {
            tick.tick().await;
            if writes.write_all(b" ").await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = dribble => {}
        end = timeout(PATIENCE, reads.read_to_end(&mut said)) => drop(end.expect("it ends in time")),
    }

    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    until_left(&chat, &ana, room, &slow).await;
    let mut quick = chat.socket_in(&ana, room).await;
    quick.send(room, "hi").await;
    assert_eq!(quick.messages(1).await[0].1, "hi");
}

#[tokio::test]
async fn requests_that_come_a_byte_at_a_time_are_given_up_and_others_are_answered() {
    let chat = TestChat::with(vec![("CHAT_SOCKET_IO_PING_TIMEOUT", "1s".to_owned())]).await;
    let ana = chat.user("Ana");
    let room = chat.room_of(&[&ana]).await;
    let opening = chat.client.get(format!("{}/socket.io/?EIO=4&transport=polling", chat.url)).send().await.unwrap();
    let opening = opening.text().await.unwrap();
    let opening: Value = serde_json::from_str(&opening[1..]).unwrap();
    let sid = opening["sid"].as_str().unwrap();
    let handshake = format!("GET /api/v1/chat/ws?token={} HTTP/1.1\r\nHost: a\r\n", ana.token);
    let body = format!(
        "POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n"
    );
    let slow = async |begin: String| {
        let mut stream = TcpStream::connect(address(&chat)).await.unwrap();
        stream.write_all(begin.as_bytes()).await.unwrap();
        let (mut reads, mut writes) = stream.into_split();
        let mut tick = interval(Duration::from_millis(50));
        let mut answer = Vec::new();
        let dribble = async {
            loop {
                tick.tick().await;
                if writes.write_all(b"a").await.is_err() {
                    return;
                }
            }
        };
        let end = async {
            tokio::select! {
                () = dribble => {}
                _ = reads.read_to_end(&mut answer) => {}
            }
        };
        timeout(Duration::from_secs(30), end).await.expect("it is given up");
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answered = async {
        let begin = Instant::now();
        chat.said(&ana, room, "meanwhile").await;
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    };
    let (handshake, body, ()) = tokio::join!(slow(handshake), slow(body), answered);
    assert!(handshake.is_empty() || handshake.starts_with("HTTP/1.1 408"), "{handshake}");
    assert!(body.starts_with("HTTP/1.1 400"), "{body}");
}

#[tokio::test]
async fn codes_are_guessed_slowly_whichever_instance_is_asked() {
    const LETTERS: &[u8] = b"ABCDEFGHJKMNPQRSTUVWXYZ23456789";
    let prefix = format!("test-{}", uuid::Uuid::now_v7().simple());
    let (one, other) = two(testkit::services().redis_url.clone(), &prefix).await;
    let (ana, eve) = (one.user("Ana"), one.user("Eve"));
    let made = one.made(&ana).await;
    let mut random = fastrand::Rng::with_seed(1);
    let mut outcomes = Vec::new();
    for n in 0..200 {
        let code: String = (0..6).map(|_| char::from(random.choice(LETTERS).copied().unwrap())).collect();
        let chat = if n % 2 == 0 { &one } else { &other };
        let answer = chat.post(&eve, "/rooms/join-by-code", &json!({"room_code": code})).send().await.unwrap();
        if answer.status() == 429 {
            assert!(answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
        }
        outcomes.push(answer.status().as_u16());
    }
    let looked_at = outcomes.iter().filter(|status| **status == 404).count();
    assert!((10..20).contains(&looked_at), "{looked_at} of {} codes were looked at", outcomes.len());
    assert_eq!(outcomes.iter().filter(|status| **status == 429).count(), outcomes.len() - looked_at);

    // One who guesses is not let in by the right one either; whoever knows it is.
    let body = json!({"room_code": made.code});
    problem(other.post(&eve, "/rooms/join-by-code", &body).send().await.unwrap(), 429, "too-fast").await;
    let ben = one.user("Ben");
    assert_eq!(other.post(&ben, "/rooms/join-by-code", &body).send().await.unwrap().status(), 200);
}
