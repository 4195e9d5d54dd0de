//! nginx-rtmp calls back in HTTP/1.0 and takes the reply as complete only when we close.

use std::time::{Duration, Instant};

use crate::support::{NOBODY, Stub, TestGateway};

/// Below the second after which a server stops waiting for a client to close first.
const AT_ONCE: Duration = Duration::from_millis(900);
/// A busy machine may be late now and then; a server that waits is late each time.
const TRIES: usize = 10;

/// What nginx-rtmp sends when somebody publishes.
fn callback(path: &str) -> String {
    let form = "app=live&flashver=FMLE/3.0&swfurl=&tcurl=rtmp://h/live&pageurl=&addr=10.0.0.1&clientid=7&call=publish&name=k&type=live";
    format!(
        "POST {path} HTTP/1.0\r\nHost: amphi:8080\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Connection: Close\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    )
}

/// The reply to `request`, after which the gateway closes at once.
async fn reply(gateway: &TestGateway, request: &str) -> String {
    for _ in 0..TRIES {
        let mut client = gateway.connect().await;
        let began = Instant::now();
        client.write(request).await;
        let reply = client.read_to_end().await;
        if began.elapsed() < AT_ONCE {
            return String::from_utf8(reply).unwrap();
        }
    }
    panic!("never closed within {AT_ONCE:?}");
}

#[actix_web::test]
async fn a_callback_is_answered_and_the_connection_closed_at_once() {
    let mut upstream = Stub::answering("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"code\":0}").await;
    let gateway = TestGateway::before(upstream.address).await;

    for path in ["/webhook/stream-event?secret=x", "/webhook/stream-event/x"] {
        let reply = reply(&gateway, &callback(path)).await;
        assert!(reply.starts_with("HTTP/1.0 200 ") && reply.ends_with("\r\n\r\n{\"code\":0}"), "{reply}");
        assert!(upstream.next().await.starts_with("POST /api/v1/webhook/stream-event"));
    }
}

#[actix_web::test]
async fn a_callback_that_fails_is_answered_and_closed_at_once_too() {
    let gateway = TestGateway::before(NOBODY).await;
    for (path, status) in [("/webhook/stream-event", "503"), ("/webhook/no-such-event", "404"), ("/streams", "401")] {
        let reply = reply(&gateway, &callback(path)).await;
        assert_eq!(&reply[9..12], status, "{path}");
    }
}

#[actix_web::test]
async fn an_answer_in_chunks_is_joined_for_a_client_that_knows_none() {
    let upstream =
        Stub::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n").await;
    let gateway = TestGateway::before(upstream.address).await;

    for keep_alive in ["", "Connection: keep-alive\r\n"] {
        let reply = reply(&gateway, &format!("GET /streams HTTP/1.0\r\n{keep_alive}\r\n")).await;
        assert!(reply.ends_with("\r\n\r\nabcd") && !reply.contains("transfer-encoding"), "{reply}");
    }
}
