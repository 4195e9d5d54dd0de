//! Which paths lead where.

use crate::support::{Stub, TestGateway};

/// Where each service stands in a list of stubs.
const AUTH: usize = 0;
const STREAM: usize = 1;
const HLS: usize = 2;
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[actix_web::test]
async fn each_path_leads_to_its_service_under_its_canonical_name() {
    let mut services = [Stub::answering(OK).await, Stub::answering(OK).await, Stub::answering(OK).await];
    let at = services.each_ref().map(|stub| format!("http://{}", stub.address));
    let gateway =
        TestGateway::with([("AUTH_URL", &*at[AUTH]), ("STREAM_URL", &*at[STREAM]), ("HLS_ORIGIN_URL", &*at[HLS])]);

    for (path, service, canonical) in [
        ("/api/auth/login", AUTH, "/api/v1/auth/login"),
        ("/.well-known/jwks.json", AUTH, "/.well-known/jwks.json"),
        ("/streams?page=2", STREAM, "/api/v1/streams?page=2"),
        ("/streams/?page=2", STREAM, "/api/v1/streams?page=2"),
        ("/api/streams/7", STREAM, "/api/v1/streams/7"),
        ("/webhook/stream-event", STREAM, "/api/v1/webhook/stream-event"),
        ("/hls/a%20b/index.m3u8", HLS, "/hls/a%20b/index.m3u8"),
        ("http://amphi.test/hls/a/1.ts", HLS, "/hls/a/1.ts"),
    ] {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
        assert_eq!(services[service].next().await.lines().next().unwrap(), format!("GET {canonical} HTTP/1.1"));
    }
}

#[actix_web::test]
async fn an_unknown_path_is_404() {
    let mut upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;
    for path in ["/nowhere", "/api", "/api/v1/users", "/STREAMS", "/hls/a", "/%73treams"] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status, answer.problem().as_str()), (404, "no-such-path"), "{path}");
    }
    assert!(!upstream.has_heard());
}

#[actix_web::test]
async fn a_path_with_two_meanings_is_400() {
    let mut upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;
    for path in [
        "//streams",
        "/streams//7",
        "/streams/../streams",
        "/streams/.",
        "/streams/%2e%2e/auth",
        "/streams/a%2fb",
        "/hls/a/..%5cb",
        "/hls/%2e%2e/stat",
        "/streams/%00",
        "/streams/%zz",
    ] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "crooked-path"), "{path}");
    }
    assert!(!upstream.has_heard());
}

#[actix_web::test]
async fn files_of_streams_can_only_be_read() {
    let mut upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;

    let answer = gateway.ask("DELETE /hls/a/index.m3u8 HTTP/1.1\r\nHost: a\r\n\r\n").await;

    assert_eq!((answer.status, answer.problem().as_str()), (405, "method-not-allowed"));
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    assert!(!upstream.has_heard());
}

#[actix_web::test]
async fn what_is_meant_for_a_proxy_itself_is_405() {
    let mut upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;

    for method in ["CONNECT", "TRACE"] {
        let answer = gateway.ask(&format!("{method} /streams HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!((answer.status, answer.problem().as_str()), (405, "method-not-allowed"), "{method}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    assert!(!upstream.has_heard());
}

#[actix_web::test]
async fn requests_with_two_meanings_are_400_and_no_service_hears_of_them() {
    let mut upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;
    for headers in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Content-Length: 4\r\nContent-Length: 4",
        "Content-Length: +4",
        "Content-Length: 4, 4",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Host: b",
        "X-A: b\r\n folded",
    ] {
        let request = format!("POST /webhook/stream-event HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\nabcd");
        assert_eq!(gateway.ask(&request).await.status, 400, "{headers}");
    }
    let chunks_in_1_0 = "POST /webhook/stream-event HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    assert_eq!(gateway.ask(chunks_in_1_0).await.status, 400);
    assert!(!upstream.has_heard());
}
