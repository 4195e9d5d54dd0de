//! How large a request may be.

use crate::support::{Stub, TestGateway, chunk};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[actix_web::test]
async fn a_body_that_says_it_is_too_large_is_refused_before_it_is_sent() {
    let mut upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;

    let answer = gateway.ask("POST /webhook/stream-event HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n").await;

    assert_eq!((answer.status, answer.problem().as_str()), (413, "body-too-large"));
    assert_eq!(answer.json()["max_bytes"], 65536);
    assert!(!upstream.has_heard());
}

#[actix_web::test]
async fn a_body_in_chunks_that_turns_out_too_large_never_completes_a_request() {
    let mut upstream = Stub::new(async |mut peer: crate::support::Peer, notebook: crate::support::Notebook| {
        let head = peer.read_head().await.unwrap();
        notebook.note(if peer.read_body(&head).await.is_some() { "complete" } else { "broken off" });
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;

    let mut client = gateway.connect().await;
    client.write("POST /webhook/stream-event HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..3 {
        client.write(chunk(&[b'x'; 30_000])).await;
    }
    let answer = client.answer(false).await;

    assert_eq!((answer.status, answer.problem().as_str()), (413, "body-too-large"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(upstream.next().await, "broken off");
}

#[actix_web::test]
async fn heads_have_a_bound() {
    let mut upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;
    let long = "a".repeat(9000);

    let target = gateway.get(&format!("/streams?q={long}")).await;
    assert_eq!((target.status, target.problem().as_str()), (414, "uri-too-long"));
    let headers: String = (0..4).map(|n| format!("X-{n}: {long}\r\n")).collect();
    let head = gateway.ask(&format!("GET /streams HTTP/1.1\r\nHost: a\r\n{headers}\r\n")).await;
    assert_eq!((head.status, head.problem().as_str()), (431, "head-too-large"));
    assert!(!upstream.has_heard());
}
