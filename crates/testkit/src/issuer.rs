//! An auth service's other half, for tests of a single service: keys that it serves, and tokens that it mints.

use std::convert::Infallible;
use std::future::ready;
use std::thread;

use actix_web::{App, HttpResponse, HttpServer, web};
use common::token::{AUDIENCE, Jwk, Jwks};
use common::trust::{self, EndedSession, Trust};
use common::{Claims, Clock as _, Role, SessionId, SystemClock, UserId};
use ed25519_dalek::SigningKey;
use futures_util::stream;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use tokio::sync::watch;
use tokio::time::timeout;

/// What stands before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410 §7).
const PKCS8_PREFIX: &[u8] = &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const SEED: [u8; 32] = [7; 32];
const KID: &str = "test";

/// How long a token is good for, in seconds.
const LIFETIME: i64 = 3600;

/// Mints tokens, and tells whoever asks what verifies them and which sessions have ended.
pub struct Issuer {
    /// What to set `AUTH_URL` to.
    pub url: String,
    ended: watch::Sender<Vec<EndedSession>>,
}

impl Issuer {
    /// Starts to serve. It ends with the test's process.
    #[must_use]
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (ended, told) = watch::channel(Vec::new());
        thread::spawn(move || {
            let server = HttpServer::new(move || {
                let told = told.clone();
                App::new()
                    .route("/.well-known/jwks.json", web::get().to(|| ready(web::Json(Jwks { keys: vec![key()] }))))
                    .route(trust::PATH, web::get().to(move || ready(feed(told.clone()))))
            });
            let server = server.workers(1).disable_signals().listen(listener).expect("the port is ours").run();
            actix_web::rt::System::new().block_on(server)
        });
        Self { url, ended }
    }

    /// Ends a session, as logging out does.
    pub fn end(&self, session: SessionId) {
        let until = SystemClock.now().timestamp() + LIFETIME;
        self.ended.send_modify(|ended| ended.push(EndedSession { sid: session, until }));
    }

    /// A token of `user` in a session of its own, good for an hour.
    #[must_use]
    pub fn token(&self, user: UserId, name: &str) -> String {
        self.token_in(SessionId::new(), user, name)
    }

    /// A token of `user` in `session`, good for an hour.
    #[must_use]
    pub fn token_in(&self, session: SessionId, user: UserId, name: &str) -> String {
        self.token_as(Role::Member, session, user, name)
    }

    /// A token of `user`, who has this role, in `session`, good for an hour.
    #[must_use]
    pub fn token_as(&self, role: Role, session: SessionId, user: UserId, name: &str) -> String {
        let now = SystemClock.now().timestamp();
        let claims = Claims {
            iss: "amphi".to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user,
            name: name.to_owned(),
            role,
            sid: session,
            iat: now,
            nbf: None,
            exp: now + LIFETIME,
        };
        let header = Header { kid: Some(KID.to_owned()), ..Header::new(Algorithm::EdDSA) };
        let key = EncodingKey::from_ed_der(&[PKCS8_PREFIX, &SEED].concat());
        jsonwebtoken::encode(&header, &claims, &key).expect("the token can be signed")
    }
}

fn key() -> Jwk {
    Jwk::ed25519(KID, SigningKey::from_bytes(&SEED).verifying_key().as_bytes())
}

/// Everything at first and after each change, and beats in between.
fn feed(mut told: watch::Receiver<Vec<EndedSession>>) -> HttpResponse {
    told.mark_changed();
    let lines = stream::unfold(told, async |mut told| {
        let line = match timeout(trust::BEAT_EVERY, told.changed()).await {
            Ok(_) => Trust::Snapshot { keys: vec![key()], ended: told.borrow_and_update().clone(), roles: Vec::new() },
            Err(_) => Trust::Beat,
        };
        let mut text = serde_json::to_vec(&line).expect("it is JSON");
        text.push(b'\n');
        Some((Ok::<_, Infallible>(web::Bytes::from(text)), told))
    });
    HttpResponse::Ok().content_type("application/x-ndjson").streaming(lines)
}
