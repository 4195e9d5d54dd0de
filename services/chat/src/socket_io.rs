//! A client of Socket.IO: it connects to the namespace with its token, and is a [`Session`] from then on.

use std::sync::Arc;

use actix_http::ws::CloseCode;
use common::token::TokenError;
use common::{Claims, Problem, SessionWatch};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::App;
use crate::dialect::Dialect;
use crate::dialect::socket_io::{self, Auth, Kind, MAIN, Packet};
use crate::engine::{Message, Speaker};
use crate::session::Session;
use crate::socket::Outbox;

/// How many attempts to connect are refused; the next one ends the line.
const MOST_REFUSED: u32 = 10;

/// A client, from the opening of its line on.
pub(crate) struct Client {
    app: Arc<App>,
    outbox: Arc<Outbox>,
    /// Who opened the line, if that told.
    opener: Result<Arc<Claims>, TokenError>,
    connected: Option<Connected>,
    /// Until when it must be connected, while it is not.
    connect_by: Instant,
    refused: u32,
    /// How many binary messages still belong to what was refused.
    attachments: usize,
}

struct Connected {
    session: Session,
    watch: SessionWatch,
}

impl Client {
    pub(crate) fn new(app: Arc<App>, opener: Result<Arc<Claims>, TokenError>, outbox: Arc<Outbox>) -> Self {
        let connect_by = Instant::now() + app.config.connect_timeout;
        Self { app, outbox, opener, connected: None, connect_by, refused: 0, attachments: 0 }
    }

    async fn hear_packet(&mut self, text: &[u8]) -> bool {
        let Some(packet) = Packet::read(text).filter(|_| self.attachments == 0) else { return false };
        self.attachments = packet.attachments;
        match (packet.kind, &mut self.connected) {
            (Kind::Connect, _) if packet.namespace != MAIN => {
                return self.refuse(packet.namespace, &json!({"message": "Invalid namespace"}));
            }
            (Kind::Connect, None) => return self.connect(packet.payload).await,
            (Kind::Disconnect, _) if packet.namespace != MAIN => {}
            (Kind::Disconnect, Some(_)) => self.disconnect(),
            (Kind::Event, Some(connected)) if packet.namespace == MAIN => match Dialect::SocketIo.read(text) {
                Ok(command) => connected.session.obey(command).await,
                Err(unread) => connected.session.complain(unread),
            },
            // We ask for none.
            (Kind::Ack, Some(_)) => {}
            _ => return false,
        }
        true
    }

    /// The token in the packet counts first: only the page that opens the connection can put it there.
    async fn connect(&mut self, payload: &str) -> bool {
        let auth = match payload {
            "" => Ok(Auth::default()),
            payload => serde_json::from_str(payload).map_err(|_other_types| TokenError::Invalid),
        };
        let claims = auth.and_then(|Auth { token, client_id }| {
            let claims = match token.filter(|token| !token.is_empty()) {
                Some(token) => self.app.verifier.verify(&token),
                None => self.opener.clone(),
            };
            Ok((claims?, client_id))
        });
        match claims {
            Ok((claims, client_id)) => {
                let watch = self.app.verifier.watch(claims.sid);
                let (app, outbox) = (Arc::clone(&self.app), Arc::clone(&self.outbox));
                let mut session = Session::new(app, claims, Dialect::SocketIo, client_id, outbox);
                session.begin().await;
                self.connected = Some(Connected { session, watch });
                true
            }
            Err(error) => {
                let problem = Problem::from(error).body();
                let error = json!({"message": problem["detail"], "data": {"code": problem["code"]}});
                self.refuse(MAIN, &error)
            }
        }
    }

    /// `false`: that was once too often.
    fn refuse(&mut self, namespace: &str, error: &Value) -> bool {
        self.refused += 1;
        self.refused <= MOST_REFUSED && self.outbox.send(socket_io::refuse(namespace, error))
    }

    /// The line stays, and the client may connect again.
    fn disconnect(&mut self) {
        self.connected = None;
        self.connect_by = Instant::now() + self.app.config.connect_timeout;
    }
}

impl Speaker for Client {
    async fn hear(&mut self, message: Message) -> bool {
        match message {
            Message::Text(text) => self.hear_packet(&text).await,
            Message::Binary(_) => {
                let is_expected = self.attachments > 0;
                self.attachments = self.attachments.saturating_sub(1);
                is_expected
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.connected.as_ref().is_none_or(|connected| connected.session.is_ready())
    }

    async fn work(&mut self) -> bool {
        let Some(Connected { session, watch }) = &mut self.connected else {
            sleep_until(self.connect_by).await;
            return false;
        };
        tokio::select! {
            () = session.settle() => true,
            () = watch.ended() => {
                self.outbox.send(socket_io::disconnect());
                self.outbox.close(CloseCode::Policy, "the session has ended");
                false
            }
        }
    }
}
