//! What the gateway serves itself.

use crate::support::{Stub, TestGateway};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const HTML: &str = "Accept: text/html,application/xhtml+xml\r\n";

#[actix_web::test]
async fn the_web_client_is_served_from_its_folder_and_draws_its_own_pages() {
    let upstream = Stub::answering(OK).await;
    let web = tempfile::tempdir().unwrap();
    std::fs::write(web.path().join("index.html"), "<!doctype html>the client").unwrap();
    std::fs::create_dir(web.path().join("assets")).unwrap();
    std::fs::write(web.path().join("assets/app-1a2b.js"), "code()").unwrap();
    std::fs::write(web.path().join(".secret"), "hidden").unwrap();
    let at = format!("http://{}", upstream.address);
    let gateway = TestGateway::with([("STREAM_URL", &*at), ("WEB_DIR", web.path().to_str().unwrap())]);
    let ask =
        async |path: &str, more: &str| gateway.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n")).await;

    for path in ["/", "/index.html", "/watch/7"] {
        let answer = ask(path, HTML).await;
        assert_eq!((answer.status, &*answer.body), (200, &b"<!doctype html>the client"[..]), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
        assert!(answer.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
    }
    let code = ask("/assets/app-1a2b.js", "").await;
    assert_eq!((code.status, &*code.body), (200, &b"code()"[..]));
    assert!(code.header("cache-control").unwrap().contains("immutable"));
    let part = ask("/assets/app-1a2b.js", "Range: bytes=0-3\r\n").await;
    assert_eq!((part.status, &*part.body), (206, &b"code"[..]));
    for path in ["/.secret", "/assets/missing.js", "/api/v1/nothing"] {
        let answer = ask(path, "Accept: */*\r\n").await;
        assert_eq!((answer.status, answer.problem().as_str()), (404, "no-such-path"), "{path}");
    }
    assert_eq!(ask("/streams", HTML).await.body, b"ok", "the table comes first");
}

#[actix_web::test]
async fn every_answer_tells_browsers_what_it_is_not_for() {
    let upstream = Stub::answering(OK).await;
    let at = format!("http://{}", upstream.address);
    let gateway = TestGateway::with([("STREAM_URL", &*at), ("PUBLIC_URL", "https://amphi.example")]);

    for path in ["/streams", "/docs/", "/nothing"] {
        let answer = gateway.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("strict-transport-security"), Some("max-age=31536000"), "{path}");
    }
    let page = gateway.get("/docs/").await;
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
}

#[actix_web::test]
async fn a_load_balancer_learns_whether_to_send_requests() {
    let upstream = Stub::answering(OK).await;
    let gateway = TestGateway::before(upstream.address).await;
    let answer = gateway.get("/healthz").await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("ready")));
}
