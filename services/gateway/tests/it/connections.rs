//! Connections to the services: kept, dropped in time, and never a cause of wrong answers.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::support::{NOBODY, Notebook, Peer, Stub, TestGateway};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[actix_web::test]
async fn requests_of_several_clients_share_a_connection() {
    let upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/streams").await.body, b"ok");
    }
    assert_eq!(upstream.connections(), 1);
}

#[actix_web::test]
async fn a_connection_that_a_streamed_answer_used_is_kept_too() {
    let upstream = Stub::new(async |mut peer: Peer, _| {
        while peer.read_request().await.is_some() {
            peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
            peer.write("0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/streams").await.body, b"a");
    }
    assert_eq!(upstream.connections(), 1);
}

#[actix_web::test]
async fn a_connection_that_the_upstream_closes_is_not_used_again() {
    let upstream = Stub::new(async |mut peer: Peer, _| {
        peer.read_request().await.unwrap();
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/streams").await.body, b"ok");
    }
    assert_eq!(upstream.connections(), 3);
}

/// Answers the first request of each connection, and closes it when the second has come.
async fn closes_at_the_second(mut peer: Peer, notebook: Notebook) {
    peer.read_request().await.unwrap();
    notebook.note("answered");
    peer.write(OK).await;
    if peer.read_request().await.is_some() {
        notebook.note("dropped");
    }
}

#[actix_web::test]
async fn a_get_that_meets_a_closing_connection_is_asked_again() {
    let mut upstream = Stub::new(closes_at_the_second).await;
    let gateway = TestGateway::before(upstream.address).await;

    for _ in 0..2 {
        assert_eq!(gateway.get("/streams").await.body, b"ok");
    }

    for expected in ["answered", "dropped", "answered"] {
        assert_eq!(upstream.next().await, expected);
    }
}

#[actix_web::test]
async fn a_post_that_was_read_before_the_connection_closed_is_not_asked_again() {
    // The first connection stays, so that the others are trusted. It is the oldest, and nothing is asked on it again.
    let served = Rc::new(Cell::new(0));
    let mut upstream = Stub::new(move |mut peer: Peer, notebook: Notebook| {
        served.set(served.get() + 1);
        let is_first = served.get() == 1;
        async move {
            if !is_first {
                return closes_at_the_second(peer, notebook).await;
            }
            peer.read_request().await.unwrap();
            peer.write(OK).await;
            peer.read_to_end().await;
        }
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;
    let request = "POST /webhook/stream-event HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na";

    // Each gets a connection of its own, until the first has been there for long enough.
    let mut answered = 0;
    let refused = loop {
        let answer = gateway.ask(request).await;
        if answer.status != 200 {
            break answer;
        }
        answered += 1;
    };
    assert_eq!(refused.problem(), "bad-gateway");

    for _ in 1..answered {
        assert_eq!(upstream.next().await, "answered");
    }
    assert_eq!(upstream.next().await, "dropped");
    assert!(!upstream.has_heard());
}

#[actix_web::test]
async fn posts_get_connections_of_their_own_until_the_service_has_shown_that_it_keeps_them() {
    let upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;
    let request = "POST /webhook/stream-event HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na";

    let began = Instant::now();
    for _ in 0..3 {
        gateway.ask(request).await;
    }
    assert_eq!(upstream.connections(), 3);

    let mut opened = 2;
    while upstream.connections() > opened {
        opened = upstream.connections();
        gateway.ask(request).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    for _ in 0..3 {
        gateway.ask(request).await;
    }
    assert_eq!(upstream.connections(), opened);
}

#[actix_web::test]
async fn a_second_answer_to_one_request_is_nobodys() {
    let upstream = Stub::new(async |mut peer: Peer, _| {
        while peer.read_request().await.is_some() {
            peer.write(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            )
            .await;
        }
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/streams").await.body, b"ok");
    }
    assert_eq!(upstream.connections(), 3);
}

#[actix_web::test]
async fn a_client_that_leaves_takes_its_request_back() {
    let mut upstream = Stub::new(async |mut peer: Peer, notebook: Notebook| {
        notebook.note(peer.read_request().await.unwrap());
        peer.read_to_end().await;
        notebook.note("closed");
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;

    let mut client = gateway.connect().await;
    client.write("GET /streams HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.next().await;
    drop(client);

    assert_eq!(upstream.next().await, "closed");
}

#[actix_web::test]
async fn a_client_that_leaves_an_event_stream_ends_it() {
    let mut upstream = Stub::new(async |mut peer: Peer, notebook: Notebook| {
        peer.read_request().await.unwrap();
        peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
        peer.read_to_end().await;
        notebook.note("closed");
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;

    let mut client = gateway.connect().await;
    client.write("GET /streams/7/events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_head().await.unwrap();
    drop(client);

    assert_eq!(upstream.next().await, "closed");
}

#[actix_web::test]
async fn a_service_that_is_down_is_a_503() {
    let gateway = TestGateway::before(NOBODY).await;

    let mut client = gateway.connect().await;
    for _ in 0..2 {
        let answer = client.ask("POST /webhook/stream-event HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab").await;
        assert_eq!((answer.status, answer.problem().as_str()), (503, "unavailable"));
        assert_eq!(answer.header("retry-after"), Some("2"));
        assert!(!String::from_utf8_lossy(&answer.body).contains("127.0.0.1"));
    }
}

#[actix_web::test]
async fn a_service_that_is_silent_is_a_504() {
    let upstream = Stub::new(async |mut peer: Peer, _| {
        peer.read_to_end().await;
    })
    .await;
    let at = format!("http://{}", upstream.address);
    let gateway = TestGateway::with([("STREAM_URL", &*at), ("GATEWAY_ANSWER_TIMEOUT", "50ms")]);

    for request in [
        "GET /streams HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /webhook/stream-event HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
    ] {
        let answer = gateway.ask(request).await;
        assert_eq!((answer.status, answer.problem().as_str()), (504, "upstream-timeout"));
    }
}

#[actix_web::test]
async fn a_service_that_falls_silent_in_mid_body_breaks_the_transfer_off() {
    let upstream = Stub::new(async |mut peer: Peer, _| {
        peer.read_request().await.unwrap();
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab").await;
        peer.read_to_end().await;
    })
    .await;
    let at = format!("http://{}", upstream.address);
    let gateway = TestGateway::with([("STREAM_URL", &*at), ("GATEWAY_ANSWER_TIMEOUT", "2s")]);

    let mut client = gateway.connect().await;
    client.write("GET /streams HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_head().await.unwrap();
    assert_eq!(client.read_to_end().await, b"ab");
}

#[actix_web::test]
async fn a_slow_client_is_not_the_services_silence() {
    let upstream = Stub::answering(OK).await;
    let at = format!("http://{}", upstream.address);
    let gateway = TestGateway::with([
        ("STREAM_URL", &*at),
        ("GATEWAY_ANSWER_TIMEOUT", "3s"),
        // Longer than any pause, shorter than all of them.
        ("GATEWAY_BODY_TIMEOUT", "3s"),
    ]);

    let mut client = gateway.connect().await;
    client.write("POST /webhook/stream-event HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").await;
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(900));
    for byte in ["a", "b", "c", "d", "e"] {
        pace.tick().await;
        client.write(byte).await;
    }
    assert_eq!(client.answer(false).await.status, 200);
}

#[actix_web::test]
async fn answers_that_are_not_http_are_a_502() {
    for response in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let gateway = TestGateway::before(Stub::answering(response).await.address).await;
        let answer = gateway.get("/streams").await;
        assert_eq!((answer.status, answer.problem().as_str()), (502, "bad-gateway"), "{response}");
    }
}

#[actix_web::test]
async fn a_service_that_dies_before_it_answers_is_a_502_and_was_asked_once() {
    let asked = Rc::new(Cell::new(0));
    let counter = Rc::clone(&asked);
    let upstream = Stub::new(move |mut peer: Peer, _| {
        let counter = Rc::clone(&counter);
        async move {
            peer.read_request().await.unwrap();
            counter.set(counter.get() + 1);
        }
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;

    assert_eq!(gateway.get("/streams").await.problem(), "bad-gateway");
    assert_eq!(asked.get(), 1);
}
