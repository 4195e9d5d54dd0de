//! Bodies go through as they are, in both directions, while they are being made.

use futures_util::future::join_all;

use crate::support::{Notebook, Peer, Stub, TestGateway, chunk, noise, soon};

/// A path that anybody may post to, and any method.
const OPEN: &str = "/webhook/stream-event";
const MEGABYTES: usize = 3 * 1024 * 1024;

/// Sends the body of each request back, framed as it came.
async fn echo(mut peer: Peer, _: Notebook) {
    while let Some(head) = peer.read_head().await {
        let Some(body) = peer.read_body(&head).await else { return };
        let response = if head.contains("transfer-encoding") {
            let mut response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            body.chunks(50_000).for_each(|part| response.extend(chunk(part)));
            response.extend(chunk(b""));
            response
        } else {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            [head.as_bytes(), &body].concat()
        };
        peer.write(response).await;
    }
}

/// The first lines of a request whose body may be large.
fn upload(gateway: &TestGateway) -> String {
    format!("POST /vod/upload HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n", gateway.token())
}

#[actix_web::test]
async fn megabytes_with_a_length_come_back_identical() {
    let gateway = TestGateway::before(Stub::new(echo).await.address).await;
    let body = noise(MEGABYTES);
    let head = format!("{}Content-Length: {MEGABYTES}\r\n\r\n", upload(&gateway));

    let mut client = gateway.connect().await;
    let answer = client.write_while(&[head.as_bytes(), &body].concat(), async |it| it.answer(false).await).await;

    assert_eq!(answer.header("content-length"), Some(&*MEGABYTES.to_string()));
    assert!(answer.body == body);
}

#[actix_web::test]
async fn megabytes_in_chunks_come_back_identical() {
    let gateway = TestGateway::before(Stub::new(echo).await.address).await;
    let body = noise(MEGABYTES);
    let mut request = format!("{}Transfer-Encoding: chunked\r\n\r\n", upload(&gateway)).into_bytes();
    body.chunks(70_001).for_each(|part| request.extend(chunk(part)));
    request.extend(chunk(b""));

    let answer = gateway.connect().await.write_while(&request, async |it| it.answer(false).await).await;

    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert!(answer.body == body);
}

#[actix_web::test]
async fn an_answer_may_come_while_the_request_is_still_being_sent() {
    let upstream = Stub::new(async |mut peer: Peer, _| {
        peer.read_head().await.unwrap();
        peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        while let Some(part) = peer.read_chunk().await {
            peer.write(chunk(&part)).await;
        }
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;

    let mut client = gateway.connect().await;
    client.write(format!("POST {OPEN} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
    assert!(client.read_head().await.unwrap().starts_with("HTTP/1.1 200"));
    for part in ["first", "second", "third", ""] {
        client.write(chunk(part.as_bytes())).await;
        assert_eq!(client.read_chunk().await.unwrap(), part.as_bytes());
    }
}

#[actix_web::test]
async fn a_refusal_in_the_middle_of_an_upload_reaches_the_client() {
    let upstream = Stub::new(async |mut peer: Peer, _| {
        peer.read_head().await.unwrap();
        peer.read_exact(100_000).await.unwrap();
        peer.write("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig").await;
        // Closed with most of the upload unread, as servers do.
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;
    let mut request = format!("{}Content-Length: 1000000000\r\n\r\n", upload(&gateway)).into_bytes();
    request.extend(noise(20 * MEGABYTES));

    let answer = gateway.connect().await.write_while(&request, async |it| it.answer(false).await).await;

    assert_eq!((answer.status, &*answer.body), (413, &b"big"[..]));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[actix_web::test]
async fn an_upstream_that_dies_in_mid_body_breaks_the_transfer_off() {
    for (response, last) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbeginning", "beginning"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nbeginning\r\n", "9\r\nbeginning\r\n"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nbeginning\r\nnonsense", "9\r\nbeginning\r\n"),
    ] {
        let upstream = Stub::new(move |mut peer: Peer, _| async move {
            peer.read_head().await.unwrap();
            peer.write(response).await;
        })
        .await;
        let gateway = TestGateway::before(upstream.address).await;

        let mut client = gateway.connect().await;
        client.write("GET /streams HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_head().await.unwrap();

        // What was sent so far, then the end of the connection: no last chunk, not all that was announced.
        assert_eq!(String::from_utf8(client.read_to_end().await).unwrap(), last);
    }
}

/// Settings with which a client that pauses has stopped.
fn impatient(upstream: &Stub) -> TestGateway {
    let at = format!("http://{}", upstream.address);
    TestGateway::with([("AUTH_URL", &*at), ("STREAM_URL", &*at), ("GATEWAY_BODY_TIMEOUT", "200ms")])
}

#[actix_web::test]
async fn a_client_that_stops_in_mid_body_is_told_so_and_closed() {
    let mut upstream = Stub::new(notes_how_it_ends).await;
    let gateway = impatient(&upstream);

    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        for begun in ["", "4\r\nab\r\n"] {
            let mut client = gateway.connect().await;
            client.write(format!("POST {OPEN} HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{begun}")).await;

            let answer = client.answer(false).await;

            assert_eq!((answer.status, answer.problem().as_str()), (408, "request-stalled"), "{head}");
            assert_eq!(answer.header("connection"), Some("close"));
            assert_eq!(client.read_to_end().await, b"");
            upstream.next().await;
            assert_eq!(upstream.next().await, "broken off");
        }
    }
}

#[actix_web::test]
async fn a_client_that_stops_in_mid_body_ends_an_answer_that_waits_for_it() {
    let upstream = Stub::new(async |mut peer: Peer, _| {
        peer.read_head().await.unwrap();
        peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
        peer.read_to_end().await;
    })
    .await;
    let gateway = impatient(&upstream);

    let mut client = gateway.connect().await;
    client.write(format!("POST {OPEN} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")).await;

    assert!(client.read_head().await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(client.read_to_end().await, b"1\r\na\r\n");
}

#[actix_web::test]
async fn an_answer_that_does_not_wait_for_the_body_closes_the_connection() {
    let cases = [
        ("POST", OPEN, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
        ("POST", OPEN, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        ("POST", OPEN, "HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("HEAD", "/streams", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 200),
        ("POST", "/streams", "", 401),
        ("POST", "/nowhere", "", 404),
    ];
    // The server waits a second for each to close first.
    join_all(cases.map(async |(method, path, response, status)| {
        let upstream = Stub::new(move |mut peer: Peer, _| async move {
            peer.read_head().await.unwrap();
            peer.write(response).await;
            peer.read_to_end().await;
        })
        .await;
        let gateway = TestGateway::before(upstream.address).await;

        for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
            let case = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
            let mut client = gateway.connect().await;
            client.write(&case).await;
            let answer = client.answer(method == "HEAD").await;
            assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{case}");
            assert_eq!(client.read_to_end().await, b"", "{case}");
        }
    }))
    .await;
}

/// Notes the head of a request, and then whether its body came whole.
async fn notes_how_it_ends(mut peer: Peer, notebook: Notebook) {
    let head = peer.read_head().await.unwrap();
    notebook.note(&head);
    let body = peer.read_body(&head).await;
    notebook.note(if body.is_some() { "complete" } else { "broken off" });
}

#[actix_web::test]
async fn a_client_that_breaks_off_its_upload_breaks_it_off_at_the_upstream() {
    let mut upstream = Stub::new(notes_how_it_ends).await;
    let gateway = TestGateway::before(upstream.address).await;

    for head in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let mut client = gateway.connect().await;
        client.write(format!("POST {OPEN} HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n4\r\nab\r\n")).await;
        upstream.next().await;
        drop(client);
        assert_eq!(upstream.next().await, "broken off");
    }
}

#[actix_web::test]
async fn crooked_chunks_of_a_client_never_complete_a_request() {
    let mut upstream = Stub::new(notes_how_it_ends).await;
    let gateway = TestGateway::before(upstream.address).await;

    let mut client = gateway.connect().await;
    client.write(format!("POST {OPEN} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")).await;
    upstream.next().await;
    client.write("nonsense\r\n\r\n").await;

    assert_eq!(client.answer(false).await.problem(), "bad-request");
    // What follows on this connection could be anything.
    assert_eq!(client.read_to_end().await, b"");
    assert_eq!(upstream.next().await, "broken off");
}

#[actix_web::test]
async fn the_first_event_arrives_before_the_second_is_made() {
    let (proceed, may_proceed) = tokio::sync::oneshot::channel();
    let may_proceed = std::cell::Cell::new(Some(may_proceed));
    let upstream = Stub::new(move |mut peer: Peer, _| {
        let may_proceed = may_proceed.take().unwrap();
        async move {
            peer.read_head().await.unwrap();
            peer.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            peer.write(chunk(b"data: 1\n\n")).await;
            soon(may_proceed).await.unwrap();
            peer.write(chunk(b"data: 2\n\n")).await;
            peer.write(chunk(b"")).await;
        }
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;

    let mut client = gateway.connect().await;
    client.write("GET /streams/7/events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_head().await.unwrap();
    assert_eq!(client.read_chunk().await.unwrap(), b"data: 1\n\n");
    proceed.send(()).unwrap();
    assert_eq!(client.read_chunk().await.unwrap(), b"data: 2\n\n");
    assert_eq!(client.read_chunk().await.unwrap(), b"");
}

#[actix_web::test]
async fn the_answer_to_head_says_how_long_the_body_would_be() {
    let upstream = Stub::answering("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n").await;
    let gateway = TestGateway::before(upstream.address).await;

    let mut client = gateway.connect().await;
    for _ in 0..2 {
        let answer = client.ask("HEAD /hls/a/b.ts HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("12345")));
    }
    assert_eq!(upstream.connections(), 1);
}

#[actix_web::test]
async fn answers_without_a_body_have_none() {
    for (response, length) in [
        ("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 12345\r\n\r\n", Some("12345")),
        ("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", None),
        ("HTTP/1.1 204 No Content\r\nETag: \"a\"\r\n\r\n", None),
    ] {
        let upstream = Stub::answering(response).await;
        let gateway = TestGateway::before(upstream.address).await;

        let mut client = gateway.connect().await;
        for _ in 0..2 {
            let answer = client.ask("GET /streams HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!((answer.header("content-length"), answer.header("etag")), (length, Some("\"a\"")), "{response}");
            assert_eq!(answer.header("transfer-encoding"), None);
        }
        assert_eq!(upstream.connections(), 1);
    }
}

#[actix_web::test]
async fn a_body_that_ends_with_the_connection_gets_an_end() {
    let upstream = Stub::new(async |mut peer: Peer, _| {
        peer.read_head().await.unwrap();
        peer.write("HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;

    let answer = gateway.get("/streams").await;

    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert_eq!(answer.body, b"until the end");
}

#[actix_web::test]
async fn ranges_pass() {
    let mut upstream =
        Stub::answering("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nab")
            .await;
    let gateway = TestGateway::before(upstream.address).await;

    let answer = gateway.ask("GET /hls/a/b.ts HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n").await;

    assert_eq!((answer.status, answer.header("content-range")), (206, Some("bytes 0-1/9")));
    assert!(upstream.next().await.contains("range: bytes=0-1"));
}

#[actix_web::test]
async fn a_client_that_waits_for_100_is_told_to_continue() {
    let mut upstream = Stub::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let gateway = TestGateway::before(upstream.address).await;

    let mut client = gateway.connect().await;
    client.write(format!("POST {OPEN} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")).await;
    assert_eq!(client.read_head().await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.write("body").await;
    assert_eq!(client.answer(false).await.status, 200);
    assert!(!upstream.next().await.contains("expect"));
}

#[actix_web::test]
async fn interim_answers_are_not_the_answer() {
    let upstream =
        Stub::answering("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
    let gateway = TestGateway::before(upstream.address).await;
    assert_eq!(gateway.get("/streams").await.body, b"ok");
}

/// More than all socket buffers on the way hold together.
const FLOOD: usize = 64 * 1024 * 1024;

#[actix_web::test]
async fn an_upstream_that_reads_slowly_slows_the_client_down() {
    let (proceed, may_proceed) = tokio::sync::oneshot::channel();
    let may_proceed = std::cell::Cell::new(Some(may_proceed));
    let upstream = Stub::new(move |mut peer: Peer, _| {
        let may_proceed = may_proceed.take().unwrap();
        async move {
            let head = peer.read_head().await.unwrap();
            soon(may_proceed).await.unwrap();
            assert_eq!(peer.read_body(&head).await.unwrap().len(), FLOOD);
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;

    let mut client = gateway.connect().await;
    client.write(format!("{}Content-Length: {FLOOD}\r\n\r\n", upload(&gateway))).await;
    let sent = client.write_until_blocked(FLOOD).await;
    assert!(sent < FLOOD / 2, "{sent} bytes lie somewhere");
    proceed.send(()).unwrap();
    let answer = client.write_while(&vec![0; FLOOD - sent], async |it| it.answer(false).await).await;
    assert_eq!(answer.body, b"ok");
}

#[actix_web::test]
async fn a_client_that_reads_slowly_slows_the_upstream_down() {
    let mut upstream = Stub::new(async |mut peer: Peer, notebook: Notebook| {
        peer.read_head().await.unwrap();
        peer.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {FLOOD}\r\n\r\n")).await;
        let sent = peer.write_until_blocked(FLOOD).await;
        notebook.note(sent.to_string());
        peer.write(vec![0; FLOOD - sent]).await;
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;

    let mut client = gateway.connect().await;
    client.write("GET /streams HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let sent: usize = upstream.next().await.parse().unwrap();
    assert!(sent < FLOOD / 2, "{sent} bytes lie somewhere");
    assert_eq!(client.answer(false).await.body.len(), FLOOD);
}
