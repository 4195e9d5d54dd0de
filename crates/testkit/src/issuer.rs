//! An auth service's other half, for tests of a single service: keys that it serves, and tokens that it mints.

use std::thread;

use actix_web::{App, HttpServer, web};
use common::token::{AUDIENCE, Jwk, Jwks};
use common::{Claims, Clock as _, Role, SessionId, SystemClock, UserId};
use ed25519_dalek::SigningKey;
use jsonwebtoken::{Algorithm, EncodingKey, Header};

/// What stands before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410 §7).
const PKCS8_PREFIX: &[u8] = &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const SEED: [u8; 32] = [7; 32];
const KID: &str = "test";

/// Mints tokens, and serves the key that verifies them.
pub struct Issuer {
    /// What to set `AUTH_URL` to.
    pub url: String,
}

impl Issuer {
    /// Starts to serve the key. It ends with the test's process.
    #[must_use]
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let key = SigningKey::from_bytes(&SEED).verifying_key();
        let jwks = Jwks { keys: vec![Jwk::ed25519(KID, key.as_bytes())] };
        thread::spawn(move || {
            let server = HttpServer::new(move || {
                let jwks = jwks.clone();
                App::new()
                    .route("/.well-known/jwks.json", web::get().to(move || std::future::ready(web::Json(jwks.clone()))))
            });
            let server = server.workers(1).disable_signals().listen(listener).expect("the port is ours").run();
            actix_web::rt::System::new().block_on(server)
        });
        Self { url }
    }

    /// A token of `user`, good for an hour.
    #[must_use]
    pub fn token(&self, user: UserId, name: &str) -> String {
        let now = SystemClock.now().timestamp();
        let claims = Claims {
            iss: "amphi".to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user,
            name: name.to_owned(),
            role: Role::Member,
            sid: SessionId::new(),
            iat: now,
            nbf: None,
            exp: now + 3600,
        };
        let header = Header { kid: Some(KID.to_owned()), ..Header::new(Algorithm::EdDSA) };
        let key = EncodingKey::from_ed_der(&[PKCS8_PREFIX, &SEED].concat());
        jsonwebtoken::encode(&header, &claims, &key).expect("the token can be signed")
    }
}
