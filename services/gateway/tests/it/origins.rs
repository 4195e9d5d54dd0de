//! Which web pages may use the gateway in the name of their visitors.

use crate::support::{Stub, TestGateway};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: *\r\n\r\nok";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
const LISTED: &str = "https://app.example.org";

/// Origins of pages that are nobody we know: evil ones, and ones that look like ours.
const FOREIGN: [&str; 9] = [
    "https://evil.example",
    "null",
    "",
    "http://app.example.org",
    "https://app.example.org.evil.example",
    "https://evil-app.example.org",
    "https://app.example.org:8443",
    "https://app.example.org, https://evil.example",
    "file://",
];

fn gateway(upstream: &Stub) -> TestGateway {
    let at = format!("http://{}", upstream.address);
    TestGateway::with([
        ("AUTH_URL", &*at),
        ("STREAM_URL", &*at),
        ("CHAT_URL", &*at),
        ("HLS_ORIGIN_URL", &*at),
        ("PUBLIC_URL", "https://amphi.example"),
        ("ALLOWED_ORIGINS", LISTED),
    ])
}

#[actix_web::test]
async fn another_sites_page_changes_nothing_with_its_visitors_cookie() {
    let mut upstream = Stub::answering(OK).await;
    let gateway = gateway(&upstream);
    let cookie = format!("Cookie: auth_token={}\r\n", gateway.token());

    for origin in FOREIGN {
        for (method, path) in
            [("POST", "/streams"), ("PUT", "/streams/7"), ("DELETE", "/streams/7"), ("POST", "/api/v1/auth/logout")]
        {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: amphi.test\r\n{cookie}Origin: {origin}\r\nContent-Length: 0\r\n\r\n"
            );
            let answer = gateway.ask(&request).await;
            assert_eq!((answer.status, answer.problem().as_str()), (403, "foreign-origin"), "{method} {path} {origin}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    let old =
        format!("POST /streams HTTP/1.1\r\nHost: a\r\n{cookie}Sec-Fetch-Site: cross-site\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(gateway.ask(&old).await.status, 403, "a browser that sends no Origin says so otherwise");
    assert!(!upstream.has_heard());
}

#[actix_web::test]
async fn ours_and_listed_pages_do_and_so_do_programs_that_are_no_page() {
    let upstream = Stub::answering(OK).await;
    let gateway = gateway(&upstream);
    let cookie = format!("Cookie: auth_token={}\r\n", gateway.token());

    for origin in [
        "Origin: https://amphi.example\r\n",
        "Origin: https://app.example.org\r\n",
        "Origin: https://amphi.test\r\n",
        "",
    ] {
        let request =
            format!("POST /streams HTTP/1.1\r\nHost: amphi.test\r\n{cookie}{origin}Content-Length: 0\r\n\r\n");
        assert_eq!(gateway.ask(&request).await.status, 200, "{origin}");
    }
    let bearer = format!(
        "POST /streams HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n\r\n",
        gateway.token()
    );
    let answer = gateway.ask(&bearer).await;
    assert_eq!(answer.status, 200, "no page can send another's token");
    assert_eq!(answer.header("access-control-allow-origin"), None, "but it may not read the answer");
}

#[actix_web::test]
async fn a_websocket_is_not_opened_by_another_sites_page_whatever_it_shows() {
    let mut upstream = Stub::answering(SWITCH).await;
    let gateway = gateway(&upstream);
    let token = gateway.token();
    let ask = |path: String, origin: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: amphi.test\r\nCookie: auth_token={token}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n{origin}\r\n"
        )
    };

    for origin in FOREIGN {
        for path in [format!("/api/v1/chat/ws?token={token}"), "/ws/chat".to_owned(), "/socket.io/?EIO=4".to_owned()] {
            let answer = gateway.ask(&ask(path, &format!("Origin: {origin}\r\n"))).await;
            assert_eq!((answer.status, answer.problem().as_str()), (403, "foreign-origin"), "{origin}");
        }
    }
    assert!(!upstream.has_heard());
    for origin in ["", "Origin: https://amphi.example\r\n", "Origin: https://app.example.org\r\n"] {
        let mut client = gateway.connect().await;
        client.write(ask("/ws/chat".to_owned(), origin)).await;
        assert!(client.read_head().await.unwrap().starts_with("HTTP/1.1 101"), "{origin}");
    }
}

#[actix_web::test]
async fn a_listed_page_may_read_answers_and_errors_and_is_told_what_it_may_send() {
    let mut upstream = Stub::answering(OK).await;
    let gateway = gateway(&upstream);
    let ask = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nHost: a\r\nOrigin: {LISTED}\r\n{more}\r\n");

    for (line, status) in [("GET /streams", 200), ("POST /streams", 401), ("GET /nothing/here", 404)] {
        let answer = gateway.ask(&ask(line, "Content-Length: 0\r\n")).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some(LISTED), "{line}");
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert!(answer.head.to_ascii_lowercase().contains("vary: origin"), "{}", answer.head);
    }
    assert!(upstream.next().await.starts_with("GET /api/v1/streams "));

    let preflight =
        "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization, content-type\r\n";
    let answer = gateway.ask(&ask("OPTIONS /streams/7", preflight)).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some(LISTED));
    assert!(answer.header("access-control-allow-methods").unwrap().contains("PUT"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization, content-type"));
    assert!(!upstream.has_heard(), "the gateway answers by itself");

    let evil = ask("OPTIONS /streams/7", preflight).replace(LISTED, "https://evil.example");
    let answer = gateway.ask(&evil).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None));
}

#[actix_web::test]
async fn everybody_may_embed_video_but_without_cookies() {
    let upstream = Stub::answering(OK).await;
    let gateway = gateway(&upstream);

    let answer =
        gateway.ask("GET /hls/abc/index.m3u8 HTTP/1.1\r\nHost: a\r\nOrigin: https://blog.example\r\n\r\n").await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}
