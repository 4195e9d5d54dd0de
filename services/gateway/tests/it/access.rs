//! Whose requests reach a service.

use crate::support::{Answer, Stub, TestGateway};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn ask(gateway: &TestGateway, method: &str, path: &str, headers: &str) -> Answer {
    gateway.ask(&format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: 2\r\n\r\nab")).await
}

#[actix_web::test]
async fn without_a_valid_token_a_protected_path_is_401_and_no_service_is_asked() {
    let mut upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;
    let expired = format!("Authorization: Bearer {}\r\n", gateway.token_for(-1));
    let in_query = format!("/streams?token={}", gateway.token());

    for (method, path, headers, code) in [
        ("POST", "/streams", "", "token-missing"),
        ("PUT", "/api/v1/streams/7", "", "token-missing"),
        ("DELETE", "/api/streams/7", "", "token-missing"),
        ("POST", "/streams/7/anything", "", "token-missing"),
        ("GET", "/api/v1/auth/me", "", "token-missing"),
        ("GET", "/api/auth/me", "Authorization: Bearer nonsense\r\n", "token-invalid"),
        ("GET", "/api/auth/me", "Cookie: auth_token=nonsense\r\n", "token-invalid"),
        ("GET", "/api/auth/me", "Authorization: Basic YTpi\r\n", "token-missing"),
        ("POST", "/streams", &*expired, "token-expired"),
        ("POST", &*in_query, "", "token-missing"),
    ] {
        let answer = ask(&gateway, method, path, headers).await;
        assert_eq!((answer.status, answer.problem().as_str()), (401, code), "{method} {path} {headers}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    assert!(!upstream.has_heard());
}

#[actix_web::test]
async fn a_valid_token_passes_in_the_cookie_or_as_bearer_even_beside_a_bad_cookie() {
    let upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;
    let token = gateway.token();

    for headers in [
        format!("Cookie: theme=dark; auth_token={token}\r\n"),
        format!("Authorization: Bearer {token}\r\n"),
        format!("Cookie: auth_token=stale\r\nAuthorization: Bearer {token}\r\n"),
    ] {
        assert_eq!(ask(&gateway, "POST", "/streams", &headers).await.status, 200, "{headers}");
    }
}

#[actix_web::test]
async fn what_is_open_to_everybody_is_open_with_a_bad_token_too() {
    let upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;

    for (method, path) in [
        ("GET", "/streams"),
        ("GET", "/api/v1/streams/7"),
        ("HEAD", "/hls/a/index.m3u8"),
        ("POST", "/api/auth/login"),
        ("POST", "/api/auth/register"),
        ("POST", "/api/auth/logout"),
        ("GET", "/.well-known/jwks.json"),
    ] {
        let answer = ask(&gateway, method, path, "Authorization: Bearer nonsense\r\n").await;
        assert_eq!(answer.status, 200, "{method} {path}");
    }
}

#[actix_web::test]
async fn a_refused_client_keeps_its_connection() {
    let gateway = TestGateway::before(Stub::answering(OK).await.address).await;
    let mut client = gateway.connect().await;
    for _ in 0..3 {
        let answer = client.ask("POST /streams HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab").await;
        assert_eq!((answer.status, answer.header("connection")), (401, None));
    }
}

#[actix_web::test]
async fn a_large_body_is_not_read_for_a_refusal() {
    let gateway = TestGateway::before(Stub::answering(OK).await.address).await;
    let mut request = b"POST /streams HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n".to_vec();
    request.resize(1_000_000, 0);

    let answer = gateway.connect().await.write_while(&request, async |it| it.answer(false).await).await;

    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
}

#[actix_web::test]
async fn before_auth_has_told_its_keys_nobody_is_told_that_a_token_is_bad() {
    let gateway = TestGateway::without_keys();
    let headers = format!("Authorization: Bearer {}\r\n", gateway.token());
    let answer = ask(&gateway, "POST", "/streams", &headers).await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "unavailable"));
}
