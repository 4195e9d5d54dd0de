//! How often an address and a user may ask.

use crate::support::{Stub, TestGateway};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn gateway(upstream: &Stub, settings: &[(&str, &str)]) -> TestGateway {
    let at = format!("http://{}", upstream.address);
    let urls = ["AUTH_URL", "STREAM_URL", "HLS_ORIGIN_URL"].map(|name| (name, &*at));
    TestGateway::with(urls.into_iter().chain(settings.iter().copied()))
}

#[actix_web::test]
async fn an_address_that_asks_too_often_is_told_when_to_come_back() {
    let mut upstream = Stub::answering(OK).await;
    let gateway =
        gateway(&upstream, &[("GATEWAY_RATE_PER_ADDRESS", "3/1h"), ("ALLOWED_ORIGINS", "https://app.example.org")]);

    for remaining in [None, Some("1"), Some("0")] {
        let answer = gateway.get("/streams").await;
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining")), (200, remaining));
        upstream.next().await;
    }
    let answer = gateway.ask("GET /streams HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example.org\r\n\r\n").await;

    assert_eq!((answer.status, answer.problem().as_str()), (429, "too-many-requests"));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait));
    assert_eq!(answer.header("x-ratelimit-limit"), Some("3"));
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(answer.header("x-ratelimit-reset"), Some(&*wait.to_string()));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.org"), "a page can read why");
    assert!(!upstream.has_heard());
}

#[actix_web::test]
async fn addresses_are_those_of_clients_where_a_proxy_that_is_trusted_tells_them() {
    let upstream = Stub::answering(OK).await;
    let ask = |told: &str| format!("GET /streams HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {told}\r\n\r\n");

    let trusting = gateway(&upstream, &[("GATEWAY_RATE_PER_ADDRESS", "1/1h"), ("TRUSTED_PROXIES", "127.0.0.0/8")]);
    for (told, status) in [
        ("203.0.113.5", 200),
        ("203.0.113.6", 200),
        ("9.9.9.9, 203.0.113.5", 429),
        ("2001:db8::1", 200),
        ("2001:db8::2", 429),
        ("2001:db8:0:1::1", 200),
    ] {
        assert_eq!(trusting.ask(&ask(told)).await.status, status, "{told}");
    }

    let careful = gateway(&upstream, &[("GATEWAY_RATE_PER_ADDRESS", "1/1h")]);
    assert_eq!(careful.ask(&ask("203.0.113.5")).await.status, 200);
    assert_eq!(careful.ask(&ask("203.0.113.6")).await.status, 429, "a client cannot make itself another");
}

#[actix_web::test]
async fn a_user_is_counted_wherever_the_requests_come_from() {
    let upstream = Stub::answering(OK).await;
    let gateway = gateway(&upstream, &[("GATEWAY_RATE_PER_USER", "2/1h")]);
    let ask = |token: &str| {
        format!("POST /streams HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n")
    };
    let (ana, ben) = (gateway.token(), gateway.token());

    for (token, status) in [(&ana, 200), (&ana, 200), (&ana, 429), (&ben, 200)] {
        assert_eq!(gateway.ask(&ask(token)).await.status, status);
    }
}

#[actix_web::test]
async fn video_and_callbacks_of_media_servers_do_not_count() {
    let upstream = Stub::answering(OK).await;
    let gateway = gateway(&upstream, &[("GATEWAY_RATE_PER_ADDRESS", "1/1h")]);
    for _ in 0..5 {
        assert_eq!(gateway.get("/hls/abc/index.m3u8").await.status, 200);
        let callback = "POST /webhook/stream-event HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(gateway.ask(callback).await.status, 200);
    }
}
