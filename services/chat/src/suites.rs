//! What the official test suites of Engine.IO and Socket.IO talk to: everything comes back.
//!
//! They are `docs/engine.io-protocol/v4-test-suite` and `docs/socket.io-protocol/v5-test-suite` of `socketio/socket.io`.
//! `cargo test -p chat --lib suites -- --ignored` serves them on port 3000; `npm ci && npm test` in their folders runs them.

use std::collections::{BTreeSet, VecDeque};
use std::future::pending;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, web};
use bytes::Bytes;
use chassis::http::{Options, server};
use common::{SystemClock, Verifier};
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::dialect::socket_io::{Kind, MAIN, Packet, refuse};
use crate::engine::{Lines, Message, Query, Rules, Speaker};
use crate::socket::{Outbox, binary_frame, text_frame};

/// Says again what it hears.
struct Echo(Arc<Outbox>);

impl Speaker for Echo {
    async fn hear(&mut self, message: Message) -> bool {
        self.0.send(match message {
            Message::Text(text) => text_frame(&[b"4", &*text].concat()),
            Message::Binary(bytes) => binary_frame(&bytes),
        })
    }

    fn is_ready(&self) -> bool {
        true
    }

    async fn work(&mut self) -> bool {
        pending().await
    }
}

/// The same as Socket.IO, in the namespaces `/` and `/custom`.
struct SocketEcho {
    outbox: Arc<Outbox>,
    namespaces: BTreeSet<String>,
    connect_by: Instant,
    /// What is said when so many attachments have come.
    answer: Option<(String, usize)>,
    attachments: VecDeque<Bytes>,
}

impl SocketEcho {
    fn new(outbox: Arc<Outbox>) -> Self {
        let connect_by = Instant::now() + Duration::from_secs(1);
        Self { outbox, namespaces: BTreeSet::new(), connect_by, answer: None, attachments: VecDeque::new() }
    }

    fn say(&self, text: &str) {
        self.outbox.send(text_frame(format!("4{text}").as_bytes()));
    }

    fn answer(&mut self) {
        if let Some((answer, _)) = self.answer.take_if(|(_, count)| *count == self.attachments.len()) {
            self.say(&answer);
            for bytes in self.attachments.drain(..) {
                self.outbox.send(binary_frame(&bytes));
            }
        }
    }
}

impl Speaker for SocketEcho {
    async fn hear(&mut self, message: Message) -> bool {
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(bytes) => {
                self.attachments.push_back(bytes);
                self.answer();
                return true;
            }
        };
        let Some(Packet { kind, namespace, number, attachments, payload }) = Packet::read(&text) else { return false };
        let prefix = if namespace == MAIN { String::new() } else { format!("{namespace},") };
        match kind {
            Kind::Connect if !["/", "/custom"].contains(&namespace) => {
                self.outbox.send(refuse(namespace, &json!({"message": "Invalid namespace"})));
            }
            Kind::Connect => {
                self.namespaces.insert(namespace.to_owned());
                let auth = if payload.is_empty() { "{}" } else { payload };
                self.say(&format!("0{prefix}{{\"sid\":\"of-{}\"}}", namespace.len()));
                self.say(&format!("2{prefix}[\"auth\",{auth}]"));
            }
            Kind::Disconnect => drop(self.namespaces.remove(namespace)),
            Kind::Event if self.namespaces.contains(namespace) => {
                let count = if attachments > 0 { format!("{attachments}-") } else { String::new() };
                let kinds = if attachments > 0 { ('5', '6') } else { ('2', '3') };
                let answer = match number {
                    Some(number) => {
                        let arguments = payload.replacen("\"message-with-ack\",", "", 1);
                        format!("{}{count}{prefix}{number}{arguments}", kinds.1)
                    }
                    None => format!("{}{count}{prefix}{}", kinds.0, payload.replacen("message", "message-back", 1)),
                };
                self.answer = Some((answer, attachments));
                self.answer();
            }
            Kind::Event => return false,
            Kind::Ack => {}
        }
        true
    }

    fn is_ready(&self) -> bool {
        true
    }

    async fn work(&mut self) -> bool {
        if self.namespaces.is_empty() {
            sleep_until(self.connect_by).await;
            return false;
        }
        pending().await
    }
}

#[actix_web::test]
#[ignore = "serves until it is interrupted"]
async fn the_official_test_suites_are_served() {
    let rules = Rules {
        ping_interval: Duration::from_millis(300),
        ping_timeout: Duration::from_millis(200),
        max_payload: 1_000_000,
    };
    let lines = Arc::new(Lines::new(1, rules, CancellationToken::new()));
    let routes = move |service: &mut web::ServiceConfig| {
        let (engine, socket) = (Arc::clone(&lines), Arc::clone(&lines));
        service
            .service(web::resource("/engine.io/").to(
                move |request: HttpRequest, query: web::Query<Query>, payload: web::Payload| {
                    let lines = Arc::clone(&engine);
                    async move { lines.serve(&request, query.into_inner(), payload, Echo).await }
                },
            ))
            .service(web::resource("/socket.io/").to(
                move |request: HttpRequest, query: web::Query<Query>, payload: web::Payload| {
                    let lines = Arc::clone(&socket);
                    async move { lines.serve(&request, query.into_inner(), payload, SocketEcho::new).await }
                },
            ));
    };
    let listener = TcpListener::bind(("127.0.0.1", 3000)).unwrap();
    let options = Options { service: "suites", workers: 2, drain: Duration::from_secs(1) };
    let verifier = Verifier::new("nobody", Arc::new(SystemClock));
    server(listener, options, verifier, Arc::new(routes)).unwrap().await.unwrap();
}
