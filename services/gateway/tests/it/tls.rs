//! TLS of the gateway's own, with HTTP/2.

use std::time::Duration;

use reqwest::{Certificate, ClientBuilder, Version};

use crate::support::{Notebook, Peer, Stub, TestGateway, noise};

fn builder(gateway: &TestGateway) -> ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificate = Certificate::from_pem(gateway.certificate().as_bytes()).unwrap();
    reqwest::Client::builder().tls_certs_only([certificate]).no_proxy().timeout(Duration::from_secs(20))
}

#[actix_web::test]
async fn with_a_certificate_the_gateway_speaks_http_2_and_bodies_pass_both_ways() {
    let upstream = Stub::new(async |mut peer: Peer, notebook: Notebook| {
        while let Some(head) = peer.read_head().await {
            let body = peer.read_body(&head).await.unwrap();
            notebook.note(head);
            peer.write(
                [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat(),
            )
            .await;
        }
    })
    .await;
    let mut upstream = upstream;
    let gateway = TestGateway::with_tls(upstream.address).await;
    let client = builder(&gateway).build().unwrap();

    let answer = client.get(gateway.url("/streams")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    assert!(upstream.next().await.contains("x-forwarded-proto: https\r\n"));

    let body = noise(300_000);
    let sent = client.post(gateway.url("/vod/upload")).bearer_auth(gateway.token()).body(body.clone());
    let answer = sent.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.unwrap() == body);
    upstream.next().await;

    let pieces = futures_util::stream::iter(
        body.chunks(1000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect::<Vec<_>>(),
    );
    let sent =
        client.post(gateway.url("/vod/upload")).bearer_auth(gateway.token()).body(reqwest::Body::wrap_stream(pieces));
    let answer = sent.send().await.unwrap();
    assert!(answer.bytes().await.unwrap() == body, "a body of unknown length arrives whole too");
    assert!(upstream.next().await.contains("transfer-encoding: chunked\r\n"));
}

#[actix_web::test]
async fn a_client_that_knows_no_http_2_is_served_over_tls_as_well() {
    let upstream = Stub::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let gateway = TestGateway::with_tls(upstream.address).await;
    let client = builder(&gateway).http1_only().build().unwrap();

    let answer = client.get(gateway.url("/streams")).send().await.unwrap();

    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_11));
}
