//! Tokens that are none, at the gateway and around it at every service: 401, and no handler hears of them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use common::{SessionId, UserId};
use ed25519_dalek::{Signer as _, SigningKey};
use reqwest::{Client, Method};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use serde_json::{Value, json};
use testkit::{Issuer, TestDatabase, eventually};

use crate::house::{Settings, folder};
use crate::instances::{Instance, outcome, sql};

/// The key of [`Issuer`], and its name.
const SEED: [u8; 32] = [7; 32];
const KID: &str = "test";
/// What auth seals its own key with.
const SECRET: &str = "a secret that is known to this test alone";

/// One process each of auth, stream and gateway.
struct Services {
    auth: Instance,
    stream: Instance,
    gateway: Instance,
    /// Stream and gateway believe somebody else than auth, which believes itself alone.
    has_issuer: bool,
    client: Client,
    database: TestDatabase,
    _data: tempfile::TempDir,
}

impl Services {
    /// `issuer`: whom stream and gateway believe, instead of auth.
    async fn start(issuer: Option<&Issuer>) -> Self {
        let (database, data) = (testkit::database().await, folder());
        let mut settings: Settings = vec![
            ("AMPHI_DATA_DIR", data.path().display().to_string()),
            ("DATABASE_URL", database.url.clone()),
            ("WEBHOOK_SECRET", "a-secret-of-the-media-server".to_owned()),
            ("AMPHI_SECRET", SECRET.to_owned()),
        ];
        let mut auth = Instance::new("auth", &settings);
        auth.start().await;
        settings.push(("AUTH_URL", issuer.map_or(&auth.url, |issuer| &issuer.url).clone()));
        let mut stream = Instance::new("stream", &settings);
        stream.start().await;
        settings.push(("STREAM_URL", stream.url.clone()));
        let mut gateway = Instance::new("gateway", &settings);
        gateway.start().await;
        let has_issuer = issuer.is_some();
        Self { auth, stream, gateway, has_issuer, client: testkit::client(), database, _data: data }
    }

    /// What needs a token, and where: around the gateway too.
    fn doors(&self) -> Vec<(Method, String)> {
        let auth = [
            (Method::GET, "/api/v1/auth/me"),
            (Method::POST, "/api/v1/auth/ws-ticket"),
            (Method::GET, "/api/v1/auth/sessions"),
            (Method::DELETE, "/api/v1/auth/sessions"),
            (Method::GET, "/api/v1/auth/users"),
        ];
        let stream = [(Method::POST, "/api/v1/streams"), (Method::PUT, "/api/v1/streams/1")];
        let gateway = [(Method::POST, "/streams"), (Method::GET, "/api/v1/chat/ws"), (Method::POST, "/vod/upload")];
        let at = |base: &str, paths: &[(Method, &str)]| -> Vec<(Method, String)> {
            paths.iter().map(|(method, path)| (method.clone(), format!("{base}{path}"))).collect()
        };
        [
            at(&self.auth.url, if self.has_issuer { &[] } else { &auth }),
            at(&self.stream.url, &stream),
            at(&self.gateway.url, &auth),
            at(&self.gateway.url, &stream),
            at(&self.gateway.url, &gateway),
        ]
        .concat()
    }

    /// Has `token` refused with `code` everywhere, in a header and in a cookie.
    async fn refuse(&self, what: &str, token: Option<&str>, code: &str) {
        for (method, url) in self.doors() {
            for is_cookie in [false, true] {
                let request = self.client.request(method.clone(), &url).json(&json!({"title": what}));
                let request = match token {
                    None => request,
                    Some(token) if is_cookie => request.header("cookie", format!("auth_token={token}")),
                    Some(token) => request.bearer_auth(token),
                };
                let answer = request.send().await.unwrap();
                assert_eq!(outcome(answer).await, (401, code.to_owned()), "{what}: {method} {url}");
            }
        }
    }

    /// Waits until it is known everywhere that the session of `token` has ended. Until then, nothing is done for it.
    async fn until_ended(&self, token: &str) {
        for (method, url) in self.doors().into_iter().filter(|(method, _)| [Method::GET, Method::PUT].contains(method))
        {
            eventually("the end is known", async || {
                let request = self.client.request(method.clone(), &url).bearer_auth(token).json(&json!({}));
                let answer = outcome(request.send().await.unwrap()).await;
                (answer == (401, "session-ended".to_owned())).then_some(())
            })
            .await;
        }
    }

    /// How many streams, and tickets for WebSockets, there are.
    async fn made(&self) -> (String, String) {
        let count = async |table: &str| sql(&self.database.url, &format!("select count(*) from {table}")).await;
        (count("stream.streams").await, count("auth.ws_tickets").await)
    }
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn signed(key: &SigningKey, header: &Value, claims: &Value) -> String {
    let text = format!("{}.{}", part(header), part(claims));
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(key.sign(text.as_bytes()).to_bytes()))
}

fn hs256(secret: &[u8], kid: &str, claims: &Value) -> String {
    let text = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT", "kid": kid})), part(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn unsigned(algorithm: &str, kid: &str, claims: &Value, signature: &str) -> String {
    format!("{}.{}.{signature}", part(&json!({"alg": algorithm, "typ": "JWT", "kid": kid})), part(claims))
}

/// What anybody can make who knows the public key `public` (named `kid`) and has seen a token with these `claims`.
fn forged(public: &[u8], kid: &str, claims: &Value) -> Vec<(&'static str, String)> {
    let attacker = SigningKey::from_bytes(&[66; 32]);
    let x = URL_SAFE_NO_PAD.encode(attacker.verifying_key().as_bytes());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x});
    let header = |more: Value| {
        let mut header = json!({"alg": "EdDSA", "typ": "JWT", "kid": kid});
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        header
    };
    // What stands before the 32 bytes of a public key in its usual file (RFC 8410).
    let der = [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..], public].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&der));
    let public_text = URL_SAFE_NO_PAD.encode(public);
    let evil = "http://127.0.0.1:1/jwks.json";
    let by = |header: &Value| signed(&attacker, header, claims);
    vec![
        ("a token of another key", by(&header(json!({})))),
        ("alg none", unsigned("none", kid, claims, "")),
        ("alg None", unsigned("None", kid, claims, "")),
        ("alg none with a signature", unsigned("none", kid, claims, &URL_SAFE_NO_PAD.encode([0; 64]))),
        ("EdDSA without a signature", unsigned("EdDSA", kid, claims, "")),
        ("a signature of zeros", unsigned("EdDSA", kid, claims, &URL_SAFE_NO_PAD.encode([0; 64]))),
        ("HS256 with the public key", hs256(public, kid, claims)),
        ("HS256 with the public key as text", hs256(public_text.as_bytes(), kid, claims)),
        ("HS256 with the public key as a file", hs256(pem.as_bytes(), kid, claims)),
        ("HS256 with the public key in DER", hs256(&der, kid, claims)),
        ("HS256 with nothing", hs256(b"", kid, claims)),
        ("an unknown kid", by(&header(json!({"kid": "unknown"})))),
        ("no kid", by(&json!({"alg": "EdDSA", "typ": "JWT"}))),
        ("a kid that is a path", by(&header(json!({"kid": "../../../../dev/null"})))),
        ("a jku", by(&header(json!({"jku": evil})))),
        ("a jku and its kid", by(&header(json!({"jku": evil, "kid": "theirs"})))),
        ("an x5u", by(&header(json!({"x5u": evil})))),
        ("a jwk", by(&header(json!({"jwk": jwk})))),
        ("a jwk and its kid", by(&header(json!({"jwk": jwk, "kid": "theirs"})))),
        ("not a token", "abc".to_owned()),
        ("three empty parts", "..".to_owned()),
        ("10 KB", "a".repeat(10 * 1024)),
        ("10 KB in three parts", [&*"a".repeat(3400); 3].join(".")),
    ]
}

/// Signed with the right `key`, but saying what no token says: with the code that it is refused with.
fn misstated(key: &SigningKey, kid: &str, claims: &Value, now: i64) -> Vec<(&'static str, String, &'static str)> {
    let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": kid});
    let with = |more: Value| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        signed(key, &header, &claims)
    };
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        signed(key, &header, &claims)
    };
    let wrong = [
        ("not yet valid", with(json!({"nbf": now + 300}))),
        ("another issuer", with(json!({"iss": "another"}))),
        ("no issuer", without("iss")),
        ("another audience", with(json!({"aud": "another"}))),
        ("a list of audiences", with(json!({"aud": ["another"]}))),
        ("no audience", without("aud")),
        ("exp as a string", with(json!({"exp": (now + 600).to_string()}))),
        ("exp that is null", with(json!({"exp": null}))),
        ("no exp", without("exp")),
        ("nbf as a string", with(json!({"nbf": "0"}))),
        ("no session", without("sid")),
        ("no user", without("sub")),
        ("another role", with(json!({"role": "Root"}))),
        ("another algorithm in the header", signed(key, &json!({"alg": "HS256", "typ": "JWT", "kid": kid}), claims)),
    ];
    let expired = [
        ("expired", with(json!({"exp": now - 1})), "token-expired"),
        ("expired long ago", with(json!({"exp": 1})), "token-expired"),
    ];
    expired.into_iter().chain(wrong.map(|(what, token)| (what, token, "token-invalid"))).collect()
}

/// The key that auth itself signs with, taken out of its database.
async fn key_of_auth(database: &TestDatabase, kid: &str) -> SigningKey {
    let query = format!("select encode(sealed_seed, 'base64') from auth.signing_keys where kid = '{kid}'");
    let sealed = STANDARD.decode(sql(&database.url, &query).await.replace('\n', "")).unwrap();
    let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, b"amphi").extract(SECRET.as_bytes());
    let key = LessSafeKey::new(UnboundKey::from(derived.expand(&[b"signing keys"], &CHACHA20_POLY1305).unwrap()));
    let (nonce, seed) = sealed.split_at(NONCE_LEN);
    let mut seed = seed.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
    let seed: &[u8] = key.open_in_place(nonce, Aad::from(kid.as_bytes()), &mut seed).unwrap();
    SigningKey::from_bytes(seed.try_into().unwrap())
}

#[tokio::test]
async fn what_was_never_signed_or_signed_as_something_else_is_401_everywhere() {
    let issuer = Issuer::start();
    let services = Services::start(Some(&issuer)).await;
    let ana = UserId::new();
    let now: i64 =
        sql(&services.database.url, "select floor(extract(epoch from now()))::bigint").await.parse().unwrap();
    let key = SigningKey::from_bytes(&SEED);
    let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": KID});
    let claims = |more: Value| {
        let mut claims = json!({
            "iss": "amphi", "aud": "amphi", "sub": ana, "name": "Ana", "role": "Member",
            "sid": SessionId::new(), "iat": now, "exp": now + 600,
        });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let with = |more: Value| signed(&key, &header, &claims(more));
    let create = async |base: &str, token: &str| {
        let request = services.client.post(format!("{base}/api/v1/streams")).bearer_auth(token);
        request.json(&json!({"title": "Cooking"})).send().await.unwrap().status().as_u16()
    };
    // So the tokens below are wrong in nothing but what they say.
    assert_eq!(create(&services.stream.url, &with(json!({}))).await, 201);
    assert_eq!(create(&services.gateway.url, &with(json!({"nbf": now}))).await, 201);
    let before = services.made().await;

    services.refuse("none", None, "token-missing").await;
    for (what, token, code) in misstated(&key, KID, &claims(json!({})), now) {
        services.refuse(what, Some(&token), code).await;
    }
    for (what, token) in forged(key.verifying_key().as_bytes(), KID, &claims(json!({}))) {
        services.refuse(what, Some(&token), "token-invalid").await;
    }
    let session = SessionId::new();
    let token = issuer.token_in(session, ana, "Ana");
    issuer.end(session);
    services.until_ended(&token).await;
    services.refuse("a session that has ended", Some(&token), "session-ended").await;

    assert_eq!(services.made().await, before);
}

#[tokio::test]
async fn what_others_make_of_a_real_token_is_401_everywhere() {
    let services = Services::start(None).await;
    let other = Services::start(None).await;
    let register = async |services: &Services| {
        let body = json!({"user_email": "ana@example.org", "user_password": "correct horse", "user_fullname": "Ana"});
        let url = format!("{}/api/v1/auth/register", services.gateway.url);
        let answer: Value = services.client.post(url).json(&body).send().await.unwrap().json().await.unwrap();
        answer["token"].as_str().unwrap().to_owned()
    };
    let token = register(&services).await;
    let decoded = |index: usize| -> Value {
        let part = token.split('.').nth(index).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let (kid, claims) = (decoded(0)["kid"].as_str().unwrap().to_owned(), decoded(1));
    let jwks = services.client.get(format!("{}/.well-known/jwks.json", services.gateway.url)).send().await.unwrap();
    let jwks: Value = jwks.json().await.unwrap();
    let public = URL_SAFE_NO_PAD.decode(jwks["keys"][0]["x"].as_str().unwrap()).unwrap();
    for url in [&services.gateway.url, &services.auth.url] {
        let answer = services.client.get(format!("{url}/api/v1/auth/me")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let before = services.made().await;

    let key = key_of_auth(&services.database, &kid).await;
    let now = claims["iat"].as_i64().unwrap();
    let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": kid});
    // So the tokens below are wrong in nothing but what they say.
    let again = signed(&key, &header, &claims);
    let me = services.client.get(format!("{}/api/v1/auth/me", services.auth.url)).bearer_auth(again).send().await;
    assert_eq!(me.unwrap().status(), 200);
    for (what, token, code) in misstated(&key, &kid, &claims, now) {
        services.refuse(what, Some(&token), code).await;
    }
    for (what, token) in forged(&public, &kid, &claims) {
        services.refuse(what, Some(&token), "token-invalid").await;
    }
    services.refuse("another installation's", Some(&register(&other).await), "token-invalid").await;
    let (text, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[0] ^= 1;
    let crooked = format!("{text}.{}", URL_SAFE_NO_PAD.encode(bytes));
    services.refuse("one bit of the signature", Some(&crooked), "token-invalid").await;
    let mut admin = claims.clone();
    admin["role"] = json!("Admin");
    let promoted = format!("{}.{}.{signature}", token.split('.').next().unwrap(), part(&admin));
    services.refuse("another role under the same signature", Some(&promoted), "token-invalid").await;

    let logout = format!("{}/api/v1/auth/logout", services.gateway.url);
    assert_eq!(services.client.post(logout).bearer_auth(&token).send().await.unwrap().status(), 204);
    services.until_ended(&token).await;
    services.refuse("a session that has ended", Some(&token), "session-ended").await;

    assert_eq!(services.made().await, before);
}
