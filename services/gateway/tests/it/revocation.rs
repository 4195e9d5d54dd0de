//! What auth tells of ended sessions takes effect at once, also for what is open.

use common::trust::{EndedSession, Trust};
use common::{SessionId, Verifier};

use crate::support::{Notebook, Peer, Stub, TestGateway, soon};

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

fn ended(sid: SessionId) -> Trust {
    Trust::Ended { ended: vec![EndedSession { sid, until: i64::MAX }] }
}

fn session_of(verifier: &Verifier, token: &str) -> SessionId {
    verifier.verify(token).unwrap().sid
}

#[actix_web::test]
async fn an_ended_session_is_401_with_the_next_request_on_the_same_connection() {
    let upstream = Stub::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let gateway = TestGateway::before(upstream.address).await;
    let token = gateway.token();
    let request = format!("GET /api/v1/auth/me HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    let mut client = gateway.connect().await;
    assert_eq!(client.ask(&request).await.status, 200);

    gateway.learn(ended(session_of(gateway.verifier(), &token)));

    let answer = client.ask(&request).await;
    assert_eq!((answer.status, answer.problem().as_str()), (401, "session-ended"));
}

#[actix_web::test]
async fn an_open_websocket_ends_with_the_session_it_was_opened_in_and_no_other() {
    let upstream = Stub::new(async |mut peer: Peer, _: Notebook| {
        peer.read_head().await.unwrap();
        peer.write(SWITCH).await;
        // A service that does not care.
        peer.read_to_end().await;
    })
    .await;
    let gateway = TestGateway::before(upstream.address).await;
    let (token, other) = (gateway.token(), gateway.token());
    let mut sockets = Vec::new();
    for (path, token) in [("/api/v1/chat/ws", &token), ("/ws/chat", &token), ("/ws/chat", &other)] {
        let mut client = gateway.connect().await;
        client
            .write(format!(
                "GET {path}?token={token} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
            ))
            .await;
        assert!(client.read_head().await.unwrap().starts_with("HTTP/1.1 101"));
        sockets.push(client);
    }
    let mut stays = sockets.pop().unwrap();

    gateway.learn(ended(session_of(gateway.verifier(), &token)));

    for mut socket in sockets {
        let within_a_second = tokio::time::timeout(std::time::Duration::from_secs(1), socket.read_to_end());
        assert_eq!(within_a_second.await, Ok(Vec::new()));
    }
    let waits = tokio::time::timeout(std::time::Duration::ZERO, stays.read_to_end()).await;
    assert!(waits.is_err(), "another session's socket is not touched");
}

#[actix_web::test]
async fn an_event_stream_ends_with_its_session() {
    let upstream = Stub::new(async |mut peer: Peer, notebook: Notebook| {
        peer.read_head().await.unwrap();
        peer.write(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n: \n\r\n",
        )
        .await;
        peer.read_to_end().await;
        notebook.note("told");
    })
    .await;
    let mut upstream = upstream;
    let gateway = TestGateway::before(upstream.address).await;
    let token = gateway.token();
    let mut client = gateway.connect().await;
    client
        .write(format!("GET /api/v1/rooms/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"))
        .await;
    client.read_head().await.unwrap();
    assert_eq!(client.read_chunk().await.unwrap(), b": \n");

    gateway.learn(ended(session_of(gateway.verifier(), &token)));

    assert_eq!(client.read_to_end().await, b"", "it breaks off, and does not end as if it were complete");
    assert_eq!(soon(upstream.next()).await, "told");
}
