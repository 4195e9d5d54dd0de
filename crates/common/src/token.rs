//! Access tokens: what they say, and how anyone verifies them without I/O.
//!
//! Tokens are JWTs signed with Ed25519 (`alg: EdDSA`, `kid`). Only auth can mint; everybody verifies against the
//! public keys that auth serves at `/.well-known/jwks.json` and that [`Verifier`] holds in memory.

use std::collections::HashMap;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::{Arc, PoisonError, RwLock};

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, web};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::Notify;
use utoipa::ToSchema;

use crate::clock::SharedClock;
use crate::ids::{SessionId, UserId};
use crate::problem::{Problem, kinds};

/// The cookie that carries the access token (000 §2.2).
pub const COOKIE: &str = "auth_token";
/// Who a token is for.
pub const AUDIENCE: &str = "amphi";
/// No token of ours comes near this many bytes; longer ones are refused unread.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum Role {
    Admin,
    Member,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "Admin",
            Self::Member => "Member",
        })
    }
}

/// What a token says. Times are seconds since 1970 (RFC 7519).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub aud: String,
    /// The user.
    pub sub: UserId,
    /// The user's name when the token was minted.
    pub name: String,
    pub role: Role,
    /// The login that the token belongs to.
    pub sid: SessionId,
    pub iat: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    pub exp: i64,
}

/// One public key, as RFC 8037 writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Jwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// `EdDSA`.
    pub alg: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub usage: String,
    pub kid: String,
    /// The public key, base64url without padding.
    pub x: String,
}

impl Jwk {
    /// `public`: the 32 bytes of an Ed25519 public key.
    #[must_use]
    pub fn ed25519(kid: &str, public: &[u8; 32]) -> Self {
        use base64::Engine as _;
        Self {
            kty: "OKP".into(),
            crv: "Ed25519".into(),
            alg: "EdDSA".into(),
            usage: "sig".into(),
            kid: kid.into(),
            x: base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(public),
        }
    }
}

/// The public keys that verify tokens now (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Jwks {
    pub keys: Vec<Jwk>,
}

/// Why a token was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("no token was sent")]
    Missing,
    #[error("the token is not valid")]
    Invalid,
    #[error("the token has expired")]
    Expired,
    /// Nobody can be verified yet: not the caller's fault, so it is no 401.
    #[error("the keys that verify tokens are not loaded yet")]
    NoKeys,
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Missing => kinds::TOKEN_MISSING.say("log in, then send the cookie or a Bearer token"),
            TokenError::Invalid => kinds::TOKEN_INVALID.say("the token is not valid here; log in again"),
            TokenError::Expired => kinds::TOKEN_EXPIRED.say("the token has expired; log in again"),
            TokenError::NoKeys => Self::unavailable(Duration::from_secs(1), error),
        }
    }
}

/// Verifies tokens against keys in memory. Clones share the keys.
#[derive(Clone)]
pub struct Verifier {
    shared: Arc<Shared>,
}

struct Shared {
    keys: RwLock<HashMap<String, Arc<DecodingKey>>>,
    validation: Validation,
    clock: SharedClock,
    /// Woken when a token names a key that is not here, so that whoever loads keys may look again.
    unknown_key: Notify,
}

impl Verifier {
    /// `issuer`: whose tokens to accept. Without keys until [`Verifier::replace_keys`].
    #[must_use]
    pub fn new(issuer: &str, clock: SharedClock) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Both are checked below, against the clock that we were given.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Self { shared: Arc::new(Shared { keys: RwLock::default(), validation, clock, unknown_key: Notify::new() }) }
    }

    /// Takes the keys of `jwks` instead of those it had. Keys that are not Ed25519 are left out.
    pub fn replace_keys(&self, jwks: &Jwks) {
        let keys = jwks
            .keys
            .iter()
            .filter(|jwk| jwk.kty == "OKP" && jwk.crv == "Ed25519")
            .filter_map(|jwk| Some((jwk.kid.clone(), Arc::new(DecodingKey::from_ed_components(&jwk.x).ok()?))))
            .collect();
        *self.shared.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Whether there is a key to verify with.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        !self.shared.keys.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Waits until a token names a key that is not here.
    pub async fn unknown_key(&self) {
        self.shared.unknown_key.notified().await;
    }

    /// What `token` says, if it is ours, meant for us, and its time is now. No I/O.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Invalid);
        }
        // The header chooses among our keys and nothing else: `jku`, `jwk` and `x5u` are never followed.
        let header = decode_header(token).map_err(|_malformed| TokenError::Invalid)?;
        let kid = header.kid.ok_or(TokenError::Invalid)?;
        let key = self.key(&kid)?;
        let claims =
            decode::<Claims>(token, &key, &self.shared.validation).map_err(|_refused| TokenError::Invalid)?.claims;
        let now = self.shared.clock.now().timestamp();
        if claims.exp <= now {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some_and(|not_before| not_before > now) {
            return Err(TokenError::Invalid);
        }
        Ok(claims)
    }

    fn key(&self, kid: &str) -> Result<Arc<DecodingKey>, TokenError> {
        let keys = self.shared.keys.read().unwrap_or_else(PoisonError::into_inner);
        match keys.get(kid) {
            Some(key) => Ok(Arc::clone(key)),
            None => {
                self.shared.unknown_key.notify_one();
                Err(if keys.is_empty() { TokenError::NoKeys } else { TokenError::Invalid })
            }
        }
    }

    /// Who sent `request`: the first token in it that is accepted, in the order of [`candidates`].
    ///
    /// A cookie that is not valid does not hide a Bearer token that is.
    pub fn caller(&self, request: &HttpRequest, in_query: InQuery) -> Result<Claims, TokenError> {
        let mut refused = TokenError::Missing;
        for token in candidates(request, in_query) {
            match self.verify(&token) {
                Ok(claims) => return Ok(claims),
                Err(error) if refused == TokenError::Missing => refused = error,
                Err(_) => {}
            }
        }
        Err(refused)
    }
}

/// Whether `?token=` counts: only where a client cannot set a header (WebSocket and media URLs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InQuery {
    Allowed,
    Ignored,
}

/// The tokens of a request: cookie `auth_token`, then `Authorization: Bearer`, then `?token=` where allowed.
pub fn candidates(request: &HttpRequest, in_query: InQuery) -> impl Iterator<Item = String> {
    let cookie = request.cookie(COOKIE).map(|cookie| cookie.value().to_owned());
    let bearer = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned());
    let query = match in_query {
        InQuery::Ignored => None,
        InQuery::Allowed => web::Query::<HashMap<String, String>>::from_query(request.query_string())
            .ok()
            .and_then(|mut query| query.remove("token")),
    };
    [cookie, bearer, query].into_iter().flatten().filter(|token| !token.is_empty())
}

/// Who is calling. As an extractor it answers 401 to a request without a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub user_id: UserId,
    pub name: String,
    pub role: Role,
    pub session_id: SessionId,
}

impl From<Claims> for Caller {
    fn from(claims: Claims) -> Self {
        Self { user_id: claims.sub, name: claims.name, role: claims.role, session_id: claims.sid }
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(match request.app_data::<web::Data<Verifier>>() {
            Some(verifier) => verifier.caller(request, InQuery::Ignored).map(Self::from).map_err(Problem::from),
            None => Err(Problem::internal("the service was started without a token verifier")),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix_web::test::TestRequest;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use chrono::TimeDelta;
    use ed25519_dalek::{Signer as _, SigningKey};
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::{Clock as _, ManualClock};

    struct Mint {
        key: SigningKey,
        clock: Arc<ManualClock>,
        verifier: Verifier,
    }

    impl Mint {
        fn new() -> Self {
            let key = SigningKey::from_bytes(&[7; 32]);
            let clock = Arc::new(ManualClock::default());
            let verifier = Verifier::new("amphi", clock.clone());
            verifier.replace_keys(&Jwks { keys: vec![Jwk::ed25519("k1", key.verifying_key().as_bytes())] });
            Self { key, clock, verifier }
        }

        fn claims(&self) -> Value {
            let now = self.clock.now().timestamp();
            json!({
                "iss": "amphi", "aud": "amphi", "sub": UserId::new(), "name": "Ana", "role": "Member",
                "sid": SessionId::new(), "iat": now, "exp": now + 60,
            })
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let text = format!("{}.{}", part(header), part(claims));
            let signature = URL_SAFE_NO_PAD.encode(self.key.sign(text.as_bytes()).to_bytes());
            format!("{text}.{signature}")
        }

        fn with(&self, name: &str, value: Value) -> String {
            let mut claims = self.claims();
            claims[name] = value;
            self.sign(&header(), &claims)
        }

        fn token(&self) -> String {
            self.sign(&header(), &self.claims())
        }
    }

    fn header() -> Value {
        json!({"alg": "EdDSA", "typ": "JWT", "kid": "k1"})
    }

    #[test]
    fn a_good_token_says_who_it_is() {
        let mint = Mint::new();
        let claims = mint.verifier.verify(&mint.token()).unwrap();
        assert_eq!(claims.name, "Ana");
        assert_eq!(claims.role, Role::Member);
    }

    #[test]
    fn a_token_expires_by_the_clock_it_was_given() {
        let mint = Mint::new();
        let token = mint.token();
        mint.clock.advance(TimeDelta::seconds(61));
        assert_eq!(mint.verifier.verify(&token), Err(TokenError::Expired));
    }

    #[test]
    fn what_is_not_ours_or_not_for_us_is_refused() {
        let mint = Mint::new();
        let now = mint.clock.now().timestamp();
        let alien = Mint { key: SigningKey::from_bytes(&[8; 32]), ..Mint::new() };
        let unsigned = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(json!({"alg": "none", "kid": "k1"}).to_string()),
            URL_SAFE_NO_PAD.encode(mint.claims().to_string())
        );
        let public_key_as_secret = jsonwebtoken::encode(
            &jsonwebtoken::Header { kid: Some("k1".into()), ..jsonwebtoken::Header::new(Algorithm::HS256) },
            &mint.claims(),
            &jsonwebtoken::EncodingKey::from_secret(mint.key.verifying_key().as_bytes()),
        )
        .unwrap();
        let mut tampered = mint.token();
        tampered.replace_range(tampered.len() - 4.., "AAAA");
        let tokens = [
            ("garbage", "garbage".to_owned()),
            ("signed by another key", alien.token()),
            ("alg none", unsigned),
            ("HS256 with the public key", public_key_as_secret),
            ("tampered", tampered),
            ("another issuer", mint.with("iss", json!("other"))),
            ("another audience", mint.with("aud", json!("other"))),
            ("not yet valid", mint.with("nbf", json!(now + 30))),
            ("exp as a string", mint.with("exp", json!((now + 60).to_string()))),
            ("unknown kid", mint.sign(&json!({"alg": "EdDSA", "kid": "k2"}), &mint.claims())),
            ("no kid", mint.sign(&json!({"alg": "EdDSA"}), &mint.claims())),
            ("10 KB", mint.with("name", json!("a".repeat(10_000)))),
        ];
        for (why, token) in tokens {
            assert_eq!(mint.verifier.verify(&token), Err(TokenError::Invalid), "{why}");
        }
    }

    #[test]
    fn without_keys_it_is_not_the_callers_fault() {
        let mint = Mint::new();
        mint.verifier.replace_keys(&Jwks { keys: vec![] });
        assert_eq!(mint.verifier.verify(&mint.token()), Err(TokenError::NoKeys));
    }

    #[test]
    fn a_bad_cookie_does_not_hide_a_good_bearer() {
        let mint = Mint::new();
        let request = TestRequest::default()
            .insert_header(("cookie", "auth_token=stale"))
            .insert_header(("authorization", format!("Bearer {}", mint.token())))
            .to_http_request();
        assert!(mint.verifier.caller(&request, InQuery::Ignored).is_ok());
    }

    #[test]
    fn a_token_in_the_query_counts_only_where_it_is_allowed() {
        let mint = Mint::new();
        let request = TestRequest::with_uri(&format!("/?token={}", mint.token())).to_http_request();
        assert_eq!(mint.verifier.caller(&request, InQuery::Ignored), Err(TokenError::Missing));
        assert!(mint.verifier.caller(&request, InQuery::Allowed).is_ok());
    }
}
