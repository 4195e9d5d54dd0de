//! The gateway describes every service, and itself.

use std::rc::Rc;

use serde_json::json;
use tokio::sync::Notify;

use crate::support::{NOBODY, Notebook, Peer, Stub, TestGateway};

async fn describing(document: serde_json::Value) -> Stub {
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{document}", document.to_string().len());
    Stub::new(move |mut peer: Peer, notebook: Notebook| {
        let response = response.clone();
        async move {
            while let Some(head) = peer.read_request().await {
                notebook.note(head);
                peer.write(&response).await;
            }
        }
    })
    .await
}

#[actix_web::test]
async fn one_document_describes_all_services_and_is_not_asked_for_each_time() {
    let mut auth = describing(json!({ "paths": { "/api/v1/auth/login": { "post": {} } } })).await;
    let stream = describing(json!({ "paths": { "/api/v1/streams": { "get": {} }, "/hidden": { "get": {} } } })).await;
    let at = [&auth, &stream].map(|stub| format!("http://{}", stub.address));
    let gateway = TestGateway::with([("AUTH_URL", &*at[0]), ("STREAM_URL", &*at[1])]);

    for _ in 0..2 {
        let document = gateway.get("/openapi.json").await.json();
        assert_eq!(
            document["paths"],
            json!({ "/api/v1/auth/login": { "post": {} }, "/api/v1/streams": { "get": {} } })
        );
    }

    assert!(auth.next().await.starts_with("GET /openapi.json HTTP/1.1\r\n"));
    assert!(!auth.has_heard());
}

#[actix_web::test]
async fn however_many_ask_a_service_is_asked_once() {
    let proceed = Rc::new(Notify::new());
    let may_proceed = Rc::clone(&proceed);
    let mut auth = Stub::new(move |mut peer: Peer, notebook: Notebook| {
        let may_proceed = Rc::clone(&may_proceed);
        async move {
            while let Some(head) = peer.read_request().await {
                notebook.note(head);
                may_proceed.notified().await;
                peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
            }
        }
    })
    .await;
    let stream = describing(json!({})).await;
    let at = [&auth, &stream].map(|stub| format!("http://{}", stub.address));
    let gateway = TestGateway::with([("AUTH_URL", &*at[0]), ("STREAM_URL", &*at[1])]);

    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = gateway.connect().await;
        client.write("GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.push(client);
    }
    auth.next().await;
    // By the time this is answered the worker has seen the others.
    gateway.get("/").await;
    proceed.notify_one();

    for client in &mut clients {
        assert_eq!(client.answer(false).await.status, 200);
    }
    assert!(!auth.has_heard());
}

#[actix_web::test]
async fn a_service_that_is_away_or_talks_nonsense_is_named_in_the_document() {
    let nonsense = Stub::answering("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<htm").await;
    let at = format!("http://{}", nonsense.address);
    let gateway = TestGateway::with([("AUTH_URL", &*at), ("STREAM_URL", &*format!("http://{NOBODY}"))]);

    let answer = gateway.get("/openapi.json").await;

    assert_eq!(answer.status, 200);
    let description = answer.json()["info"]["description"].to_string();
    assert!(description.contains("`auth` is away") && description.contains("`stream` is away"), "{description}");
}

#[actix_web::test]
async fn a_browser_finds_the_documents() {
    let gateway = TestGateway::before(Stub::answering("").await.address).await;

    let page = String::from_utf8(gateway.get("/").await.body).unwrap();
    assert!(page.contains("href=\"/docs/\"") && page.contains("/api/v1/streams/{id}"));

    assert_eq!(gateway.get("/docs").await.header("location"), Some("/docs/"));
    assert!(String::from_utf8(gateway.get("/docs/").await.body).unwrap().contains("Swagger UI"));
    let settings = String::from_utf8(gateway.get("/docs/swagger-initializer.js").await.body).unwrap();
    assert!(settings.contains("\"/openapi.json\"") && settings.contains("\"validatorUrl\": \"none\""), "{settings}");
}
