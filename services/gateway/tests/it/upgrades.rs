//! WebSockets pass through as bytes, both ways.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt, web};
use actix_ws::Message;
use tokio::sync::Notify;

use crate::support::{Notebook, Peer, Stub, TestGateway};

const HANDSHAKE: &str = "GET /streams/7/live HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\
                         Sec-WebSocket-Protocol: chat\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\r\n";

/// How long a client may pause in a body, where a test says so.
const PATIENCE: Duration = Duration::from_millis(30);

/// A frame as clients send it, masked with zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

/// A WebSocket server that sends every text back.
fn echo_server() -> SocketAddr {
    async fn echo(request: HttpRequest, body: web::Payload) -> actix_web::Result<HttpResponse> {
        let (response, mut session, mut messages) = actix_ws::handle_with_protocols(&request, body, &["chat"])?;
        rt::spawn(async move {
            while let Some(Ok(message)) = messages.recv().await {
                match message {
                    Message::Text(text) => session.text(text).await.unwrap(),
                    Message::Close(reason) => return session.close(reason).await.unwrap(),
                    _ => {}
                }
            }
        });
        Ok(response)
    }
    let server = HttpServer::new(|| App::new().default_service(web::to(echo)))
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap();
    let address = server.addrs()[0];
    rt::spawn(server.run());
    address
}

#[actix_web::test]
async fn a_websocket_talks_both_ways_and_closes_with_its_reason() {
    let gateway = TestGateway::before(echo_server()).await;
    let mut client = gateway.connect().await;

    client.write(HANDSHAKE).await;
    let head = client.read_head().await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    for line in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-accept: hsmrc0smlyukagmm5oppg2hagwk=\r\n",
        "sec-websocket-protocol: chat\r\n",
    ] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");

    for text in ["hello", "again"] {
        client.write(frame(1, text.as_bytes())).await;
        assert_eq!(client.read_exact(2 + text.len()).await.unwrap(), [&[0x81, 5], text.as_bytes()].concat());
    }
    client.write(frame(8, b"\x03\xe9bye")).await;
    assert_eq!(client.read_to_end().await, b"\x88\x05\x03\xe9bye");
}

#[actix_web::test]
async fn bytes_right_behind_the_handshake_are_not_lost_on_either_side() {
    let mut upstream = Stub::new(async |mut peer: Peer, notebook: Notebook| {
        let head = peer.read_head().await.unwrap();
        peer.write([SWITCH.as_bytes(), b"from the server"].concat()).await;
        notebook.note(head);
        notebook.note(String::from_utf8(peer.read_exact(15).await.unwrap()).unwrap());
        peer.read_to_end().await;
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;

    let mut client = gateway.connect().await;
    client.write([HANDSHAKE.as_bytes(), b"from the client"].concat()).await;

    assert!(client.read_head().await.unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(client.read_exact(15).await.unwrap(), b"from the server");
    let head = upstream.next().await;
    for line in ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==\r\n"]
    {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    assert_eq!(upstream.next().await, "from the client");
}

#[actix_web::test]
async fn nothing_behind_a_handshake_reaches_a_service_that_refuses_it() {
    let mut upstream =
        Stub::answering("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n").await;
    let gateway = TestGateway::before(upstream.address).await;

    let mut client = gateway.connect().await;
    client.write(format!("{HANDSHAKE}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;

    let head = client.read_head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 403") && head.contains("connection: close"), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert_eq!(client.read_to_end().await, b"no");
    assert!(upstream.next().await.starts_with("GET /api/v1/streams/7/live "));
    gateway.get("/streams/8").await;
    assert!(upstream.next().await.starts_with("GET /api/v1/streams/8 "));
}

#[actix_web::test]
async fn a_refused_handshake_is_an_answer_like_any_other() {
    let upstream = Stub::answering("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await;
    let gateway = TestGateway::before(upstream.address).await;

    let answer = gateway.ask(HANDSHAKE).await;

    assert_eq!((answer.status, &*answer.body, answer.header("connection")), (401, &b"no"[..], Some("close")));
}

#[actix_web::test]
async fn either_side_can_end_an_upgraded_connection() {
    let mut upstream = Stub::new(async |mut peer: Peer, notebook: Notebook| {
        peer.read_head().await.unwrap();
        peer.write(SWITCH).await;
        // The first byte says who is to leave.
        if peer.read_exact(1).await.unwrap() == b"c" {
            peer.read_to_end().await;
            notebook.note("the client has left");
        }
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;

    let mut client = gateway.connect().await;
    client.write(HANDSHAKE).await;
    client.read_head().await.unwrap();
    client.write("c").await;
    drop(client);
    assert_eq!(upstream.next().await, "the client has left");

    let mut client = gateway.connect().await;
    client.write(HANDSHAKE).await;
    client.read_head().await.unwrap();
    client.write("s").await;
    assert_eq!(client.read_to_end().await, b"");
}

#[actix_web::test]
async fn an_upgraded_connection_may_be_silent() {
    let is_over = Rc::new(Notify::new());
    let silence = Rc::clone(&is_over);
    let upstream = Stub::new(move |mut peer: Peer, _| {
        let silence = Rc::clone(&silence);
        async move {
            let head = peer.read_head().await.unwrap();
            if !head.contains("upgrade: websocket") {
                peer.read_to_end().await;
                return;
            }
            peer.write(SWITCH).await;
            silence.notified().await;
            peer.write("from the server").await;
            let answer = peer.read_exact(15).await.unwrap();
            peer.write(answer).await;
        }
    })
    .await;
    let at = format!("http://{}", upstream.address);
    let patience = format!("{}ms", PATIENCE.as_millis());
    let gateway = TestGateway::with([("STREAM_URL", &*at), ("GATEWAY_BODY_TIMEOUT", &*patience)]);

    let mut client = gateway.connect().await;
    client.write(HANDSHAKE).await;
    client.read_head().await.unwrap();
    // Whoever pauses in a body is told so, and has waited for longer than that with the second.
    for _ in 0..2 {
        let request = "POST /webhook/stream-event HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na";
        assert_eq!(gateway.ask(request).await.status, 408);
    }
    is_over.notify_one();

    assert_eq!(client.read_exact(15).await.unwrap(), b"from the server");
    client.write("from the client").await;
    assert_eq!(client.read_to_end().await, b"from the client");
}

#[actix_web::test]
async fn a_handshake_gets_a_connection_of_its_own() {
    let upstream = Stub::new(async |mut peer: Peer, _| {
        while let Some(head) = peer.read_request().await {
            let is_handshake = head.contains("upgrade: websocket");
            peer.write(if is_handshake { SWITCH } else { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" }).await;
        }
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;

    gateway.get("/streams").await;
    let mut client = gateway.connect().await;
    client.write(HANDSHAKE).await;
    client.read_head().await.unwrap();
    gateway.get("/streams").await;

    assert_eq!(upstream.connections(), 2);
}

#[actix_web::test]
async fn half_a_handshake_is_refused() {
    let mut upstream = Stub::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let gateway = TestGateway::before(upstream.address).await;
    for request in [
        "POST /webhook/stream-event HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na",
        "GET /streams HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\na",
        "GET /streams HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
    ] {
        assert_eq!(gateway.ask(request).await.problem(), "crooked-upgrade", "{request}");
    }
    assert!(!upstream.has_heard());
}

#[actix_web::test]
async fn an_offer_of_another_protocol_is_ignored() {
    // Java's HTTP client offers HTTP/2 so with every first request.
    let mut upstream = Stub::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let gateway = TestGateway::before(upstream.address).await;

    let request = "GET /streams HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    let answer = gateway.ask(request).await;

    assert_eq!((answer.status, &*answer.body), (200, &b"ok"[..]));
    let head = upstream.next().await;
    assert!(!head.contains("upgrade") && !head.contains("settings"), "{head}");
}
