//! Access tokens: what they say, where a request carries them, and the [`Caller`] that a handler is told of.
//!
//! Tokens are JWTs signed with Ed25519 (`alg: EdDSA`, `kid`). Only auth can mint; everybody verifies, see
//! [`crate::verifier`].

use std::borrow::Cow;
use std::fmt;
use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::dev::{Payload, RequestHead};
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::{FromRequest, HttpRequest, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{SessionId, UserId};
use crate::problem::{Problem, kinds};
use crate::verifier::Verifier;

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
    #[error("the session of the token has ended")]
    Ended,
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
            TokenError::Ended => kinds::SESSION_ENDED.say("this session was ended; log in again"),
            TokenError::NoKeys => Self::unavailable(Duration::from_secs(1), error),
        }
    }
}

/// Whether `?token=` counts: only where a client cannot set a header (WebSocket and media URLs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InQuery {
    Allowed,
    Ignored,
}

/// How a token came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// The cookie `auth_token`: a browser sends it by itself, also where another site made it ask.
    Cookie,
    /// `Authorization: Bearer`.
    Bearer,
    /// `?token=`.
    Query,
}

/// No request has good reason to carry more tokens of one kind than this. Each costs a verification.
const MOST_COOKIES: usize = 2;

/// The tokens of a request: cookie `auth_token`, then `Authorization: Bearer`, then `?token=` where allowed.
pub fn candidates(head: &RequestHead, in_query: InQuery) -> impl Iterator<Item = (Carrier, Cow<'_, str>)> {
    let cookies =
        cookies(&head.headers, COOKIE).take(MOST_COOKIES).map(|token| (Carrier::Cookie, Cow::Borrowed(token)));
    let bearer = head
        .headers
        .get(header::AUTHORIZATION)
        .and_then(text)
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| (Carrier::Bearer, Cow::Borrowed(token.trim())));
    let query = match in_query {
        InQuery::Ignored => None,
        InQuery::Allowed => head.uri.query(),
    };
    let query = query
        .and_then(|query| form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "token"))
        .map(|(_, token)| (Carrier::Query, token));
    cookies.chain(bearer).chain(query).filter(|(_, token)| !token.is_empty())
}

/// A header's value as text. What is not ASCII is no token; this is many times faster than to look at each character.
fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

/// The values of the cookies called `name`, as they were sent.
fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(header::COOKIE).filter_map(text);
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(move |pair| pair.trim_start().strip_prefix(name)?.strip_prefix('='))
        .map(|value| value.trim_end().trim_matches('"'))
}

/// Who is calling. As an extractor it answers 401 to a request without a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub user_id: UserId,
    pub name: String,
    pub role: Role,
    pub session_id: SessionId,
}

impl From<&Claims> for Caller {
    fn from(claims: &Claims) -> Self {
        Self { user_id: claims.sub, name: claims.name.clone(), role: claims.role, session_id: claims.sid }
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(match request.app_data::<web::Data<Verifier>>() {
            Some(verifier) => match verifier.caller(request.head(), InQuery::Ignored) {
                Ok(verified) => Ok(Self::from(&*verified.claims)),
                Err(error) => Err(error.into()),
            },
            None => Err(Problem::internal("the service was started without a token verifier")),
        })
    }
}
