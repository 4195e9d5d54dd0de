//! A ticket opens one WebSocket, where a client can send neither cookie nor header.

use crate::support::{NOBODY, Notebook, Peer, Stub, TestGateway, header};

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
const HANDSHAKE: &str = "GET /api/v1/chat/ws?room_id=7&ticket=the-ticket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n";

async fn chat() -> Stub {
    Stub::new(async |mut peer: Peer, notebook: Notebook| {
        notebook.note(peer.read_head().await.unwrap());
        peer.write(SWITCH).await;
        peer.read_to_end().await;
    })
    .await
}

/// An auth service that gives `token` for the ticket, the first time.
async fn auth(token: String) -> Stub {
    let used = std::rc::Rc::new(std::cell::Cell::new(false));
    Stub::new(move |mut peer: Peer, notebook: Notebook| {
        let (token, used) = (token.clone(), std::rc::Rc::clone(&used));
        async move {
            while let Some(head) = peer.read_head().await {
                let body = String::from_utf8(peer.read_body(&head).await.unwrap()).unwrap();
                notebook.note(format!("{} {body}", head.lines().next().unwrap()));
                let (status, answer) = match used.replace(true) {
                    false => ("200 OK", format!("{{\"token\":\"{token}\"}}")),
                    true => ("401 Unauthorized", "{}".to_owned()),
                };
                peer.write(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{answer}", answer.len())).await;
            }
        }
    })
    .await
}

#[actix_web::test]
async fn a_ticket_opens_one_websocket_and_the_service_sees_a_token() {
    let mut chat = chat().await;
    // Every test gateway has the same key.
    let token = TestGateway::without_keys().token();
    let mut auth = auth(token.clone()).await;
    let (auth_at, chat_at) = (format!("http://{}", auth.address), format!("http://{}", chat.address));
    let gateway = TestGateway::with([("AUTH_URL", &*auth_at), ("CHAT_URL", &*chat_at)]);

    let mut client = gateway.connect().await;
    client.write(HANDSHAKE).await;

    assert!(client.read_head().await.unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(auth.next().await, "POST /internal/tickets/redeem HTTP/1.1 {\"ticket\":\"the-ticket\"}");
    assert_eq!(header(&chat.next().await, "authorization"), Some(&*format!("Bearer {token}")));
    let again = gateway.ask(HANDSHAKE).await;
    assert_eq!((again.status, again.problem().as_str()), (401, "token-invalid"));
    assert!(!chat.has_heard());
}

#[actix_web::test]
async fn without_auth_a_ticket_is_a_503_and_opens_nothing() {
    let mut chat = chat().await;
    let (auth_at, chat_at) = (format!("http://{NOBODY}"), format!("http://{}", chat.address));
    let gateway = TestGateway::with([("AUTH_URL", &*auth_at), ("CHAT_URL", &*chat_at)]);

    let answer = gateway.ask(HANDSHAKE).await;

    assert_eq!((answer.status, answer.problem().as_str()), (503, "unavailable"));
    assert!(!chat.has_heard());
}
