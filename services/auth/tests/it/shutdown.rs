use testkit::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::TestAuth;

const BODY: &str = r#"{"email":"ana@example.org","password":"correct horse","fullname":"Ana"}"#;

/// A request to register that the service has begun to handle: it waits for the body.
async fn begun(auth: &TestAuth) -> TcpStream {
    let mut socket = TcpStream::connect(auth.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /api/v1/auth/register HTTP/1.1\r\nhost: auth\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        BODY.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 25];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket
}

async fn ask_to_stop(auth: &TestAuth) {
    auth.program.ask_to_stop();
    eventually("it begins to stop", async || auth.program.output().contains("stopping").then_some(())).await;
}

#[tokio::test]
async fn a_request_in_hand_is_answered_before_the_process_ends() {
    let auth = TestAuth::start().await;
    let mut socket = begun(&auth).await;

    ask_to_stop(&auth).await;
    socket.write_all(BODY.as_bytes()).await.unwrap();

    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let (status, output) = auth.program.wait();
    assert!(status.success() && !output.contains("deadline"), "{output}");
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_the_process_for_ever() {
    let auth = TestAuth::with(&[("SHUTDOWN_DEADLINE", "1s")]).await;
    let _socket = begun(&auth).await;

    ask_to_stop(&auth).await;

    let (status, output) = auth.program.wait();
    assert!(status.success(), "{output}");
}
