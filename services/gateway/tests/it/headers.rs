//! Which headers pass, and which are ours.

use crate::support::{Stub, TestGateway, header};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[actix_web::test]
async fn a_service_learns_of_the_client_from_us_alone() {
    let mut upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;

    gateway
        .ask(
            "GET /streams?a=b%20c HTTP/1.1\r\nHost: amphi.test\r\nX-User-Id: 1\r\nX-Amphi-Role: Admin\r\n\
             X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n\
             X-Request-Id: chosen\r\nX-Webhook-Secret: x\r\nX-Media-Server: srs\r\nX-Media-Server-Started: 1\r\nProxy-Authorization: Basic x\r\nConnection: keep-alive, X-Hop\r\n\
             X-Hop: 1\r\nTE: trailers\r\nAuthorization: Bearer mine\r\nCookie: auth_token=mine\r\nX-Kept: kept\r\n\r\n",
        )
        .await;

    let head = upstream.next().await;
    assert!(head.starts_with("GET /api/v1/streams?a=b%20c HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(&head, "host"), Some(&*upstream.address.to_string()));
    assert_eq!(header(&head, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(header(&head, "x-forwarded-proto"), Some("http"));
    assert_eq!(header(&head, "x-forwarded-host"), Some("amphi.test"));
    assert_eq!(header(&head, "authorization"), Some("Bearer mine"));
    assert_eq!(header(&head, "cookie"), Some("auth_token=mine"));
    assert_eq!(header(&head, "x-kept"), Some("kept"));
    let absent = [
        "x-user-id",
        "x-amphi-role",
        "forwarded",
        "x-real-ip",
        "x-webhook-secret",
        "x-media-server",
        "x-media-server-started",
        "proxy-authorization",
        "x-hop",
        "te",
    ];
    for name in absent {
        assert_eq!(header(&head, name), None, "{name}");
    }
}

#[actix_web::test]
async fn client_and_service_see_the_same_request_id_which_is_ours() {
    let mut upstream = Stub::answering("HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n").await;
    let gateway = TestGateway::before(upstream.address).await;

    let answer = gateway.ask("GET /streams HTTP/1.1\r\nHost: a\r\nX-Request-Id: chosen\r\n\r\n").await;

    let head = upstream.next().await;
    let id = header(&head, "x-request-id").unwrap();
    assert!(id.len() >= 16 && id != "chosen", "{id}");
    assert_eq!(answer.header("x-request-id"), Some(id));
}

#[actix_web::test]
async fn headers_of_the_services_connection_stay_behind() {
    let upstream = Stub::answering(
        "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nSet-Cookie: a=1\r\n\
         Set-Cookie: b=2\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let gateway = TestGateway::before(upstream.address).await;

    let answer = gateway.get("/streams").await;

    for name in ["connection", "x-hop", "keep-alive", "upgrade"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.head.matches("set-cookie: ").count(), 2);
}

#[actix_web::test]
async fn media_servers_reach_the_webhook_with_their_secret() {
    let mut upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;
    let headers = "Host: a\r\nX-Webhook-Secret: hunter2\r\nX-Media-Server: srs\r\nX-Media-Server-Started: 1\r\n\
                   Content-Length: 0\r\n\r\n";

    for path in ["/webhook/stream-event", "/api/webhook/stream-event?secret=hunter2", "/webhook/stream-event/hunter2"] {
        gateway.ask(&format!("POST {path} HTTP/1.1\r\n{headers}")).await;
        let head = upstream.next().await;
        let canonical = path.strip_prefix("/api").unwrap_or(path);
        assert!(head.starts_with(&format!("POST /api/v1{canonical} HTTP/1.1\r\n")), "{head}");
        assert_eq!(header(&head, "x-webhook-secret"), Some("hunter2"));
        assert_eq!(header(&head, "x-media-server"), Some("srs"));
        assert_eq!(header(&head, "x-media-server-started"), Some("1"));
    }
}
