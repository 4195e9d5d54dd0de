//! Verifies tokens without I/O: against keys in memory, and against what was ended since a token was minted.
//!
//! What it knows comes from auth, as [`Trust`]. A token that was verified once is remembered until it expires or its session
//! ends, as checking a signature costs far more than everything else that is done for a small request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use actix_web::dev::RequestHead;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use tokio::sync::Notify;

use crate::clock::SharedClock;
use crate::ids::{SessionId, UserId};
use crate::remembered::Remembered;
use crate::token::{AUDIENCE, Carrier, Claims, InQuery, Jwk, MAX_TOKEN_BYTES, Role, TokenError, candidates};
use crate::trust::{EndedSession, Trust, UserRole};

/// Verifies tokens. Clones share what they know.
#[derive(Clone)]
pub struct Verifier {
    shared: Arc<Shared>,
}

struct Shared {
    trust: RwLock<Known>,
    /// Moves whenever `trust` has changed, so that what was checked before is checked again.
    revision: AtomicU64,
    remembered: Remembered,
    watched: Mutex<HashMap<SessionId, Arc<Watched>>>,
    validation: Validation,
    clock: SharedClock,
}

/// What auth has told.
#[derive(Default)]
struct Known {
    jwks: Vec<Jwk>,
    keys: HashMap<String, Arc<DecodingKey>>,
    /// The revision at which they changed: what was verified before is verified again, as its key may be gone.
    keys_changed_at: u64,
    ended: HashMap<SessionId, i64>,
    roles: HashMap<UserId, (Role, i64)>,
    /// When `ended` and `roles` have grown to this, what is over is thrown out.
    prune_at: usize,
}

/// `ended` and `roles` are not searched for what is over while they have fewer entries together.
const SMALL: usize = 1024;

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub claims: Arc<Claims>,
    pub carrier: Carrier,
}

impl Verifier {
    /// `issuer`: whose tokens to accept. Knows no keys until [`Verifier::learn`].
    #[must_use]
    pub fn new(issuer: &str, clock: SharedClock) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Both are checked below, against the clock that we were given.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let shared = Shared {
            trust: RwLock::default(),
            revision: AtomicU64::new(0),
            remembered: Remembered::default(),
            watched: Mutex::default(),
            validation,
            clock,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes in what auth tells. From then on it counts, also for tokens that were verified before.
    pub fn learn(&self, trust: Trust) {
        let now = self.now();
        let mut known = self.shared.write();
        let revision = self.shared.revision.load(Ordering::Relaxed) + 1;
        match trust {
            Trust::Beat => return,
            Trust::Snapshot { keys, ended, roles } => {
                known.ended.clear();
                known.roles.clear();
                known.set_keys(keys, revision);
                known.end(ended);
                known.set_roles(roles);
            }
            Trust::Keys { keys } => known.set_keys(keys, revision),
            Trust::Ended { ended } => known.end(ended),
            Trust::Roles { roles } => known.set_roles(roles),
        }
        known.prune(now);
        self.shared.revision.store(revision, Ordering::Release);
        let mut watched = lock(&self.shared.watched);
        watched.retain(|session, watched| {
            let has_ended = known.ended.contains_key(session);
            if has_ended {
                watched.has_ended.store(true, Ordering::Release);
                watched.notify.notify_waiters();
            }
            !has_ended
        });
    }

    /// Whether there is a key to verify with.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        !self.shared.read().keys.is_empty()
    }

    /// What `token` says, if it is ours, meant for us, its time is now, and its session has not ended. No I/O.
    pub fn verify(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Invalid);
        }
        // Read first: what is learned while we check is then checked the next time.
        let revision = self.shared.revision.load(Ordering::Acquire);
        let (claims, is_checked) = match self.shared.remembered.find(token) {
            Some((claims, checked_at)) if checked_at == revision => (claims, true),
            Some((claims, checked_at)) if checked_at >= self.shared.read().keys_changed_at => (claims, false),
            _ => (Arc::new(self.decode(token)?), false),
        };
        let now = self.now();
        if claims.exp <= now {
            return Err(TokenError::Expired);
        }
        if claims.nbf.is_some_and(|not_before| not_before > now) {
            return Err(TokenError::Invalid);
        }
        if is_checked {
            return Ok(claims);
        }
        let claims = self.shared.read().check(claims)?;
        self.shared.remembered.keep(token, &claims, revision);
        Ok(claims)
    }

    /// What is in `token`, if one of our keys signed it.
    fn decode(&self, token: &str) -> Result<Claims, TokenError> {
        // The header chooses among our keys and nothing else: `jku`, `jwk` and `x5u` are never followed.
        let header = decode_header(token).map_err(|_malformed| TokenError::Invalid)?;
        let kid = header.kid.ok_or(TokenError::Invalid)?;
        let key = {
            let known = self.shared.read();
            let missing = if known.keys.is_empty() { TokenError::NoKeys } else { TokenError::Invalid };
            known.keys.get(&kid).map(Arc::clone).ok_or(missing)?
        };
        decode::<Claims>(token, &key, &self.shared.validation)
            .map(|decoded| decoded.claims)
            .map_err(|_refused| TokenError::Invalid)
    }

    /// Who sent the request with `head`: the first token in it that is accepted, in the order of [`candidates`].
    ///
    /// A cookie that is not valid does not hide a Bearer token that is.
    pub fn caller(&self, head: &RequestHead, in_query: InQuery) -> Result<Verified, TokenError> {
        let mut refused = TokenError::Missing;
        for (carrier, token) in candidates(head, in_query) {
            match self.verify(&token) {
                Ok(claims) => return Ok(Verified { claims, carrier }),
                Err(error) if refused == TokenError::Missing => refused = error,
                Err(_) => {}
            }
        }
        Err(refused)
    }

    /// For whoever serves `session` for longer than one request: tells when it ends.
    #[must_use]
    pub fn watch(&self, session: SessionId) -> SessionWatch {
        // The order of locks is that of `learn`, so that no end is missed.
        let known = self.shared.read();
        let mut watched = lock(&self.shared.watched);
        let entry = watched.entry(session).or_insert_with(|| {
            let has_ended = AtomicBool::new(known.ended.contains_key(&session));
            Arc::new(Watched { has_ended, notify: Notify::new() })
        });
        SessionWatch { session, watched: Arc::clone(entry), shared: Arc::clone(&self.shared) }
    }

    fn now(&self) -> i64 {
        self.shared.clock.unix_millis().div_euclid(1000)
    }
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.trust.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Keys that are not Ed25519 are left out.
    fn set_keys(&mut self, jwks: Vec<Jwk>, revision: u64) {
        if self.jwks == jwks {
            return;
        }
        self.keys = jwks
            .iter()
            .filter(|jwk| jwk.kty == "OKP" && jwk.crv == "Ed25519")
            .filter_map(|jwk| Some((jwk.kid.clone(), Arc::new(DecodingKey::from_ed_components(&jwk.x).ok()?))))
            .collect();
        self.jwks = jwks;
        self.keys_changed_at = revision;
    }

    fn end(&mut self, ended: Vec<EndedSession>) {
        self.ended.extend(ended.into_iter().map(|session| (session.sid, session.until)));
    }

    fn set_roles(&mut self, roles: Vec<UserRole>) {
        self.roles.extend(roles.into_iter().map(|user| (user.sub, (user.role, user.until))));
    }

    /// Throws out what is over, now and then.
    fn prune(&mut self, now: i64) {
        if self.ended.len() + self.roles.len() < self.prune_at.max(SMALL) {
            return;
        }
        self.ended.retain(|_, until| *until > now);
        self.roles.retain(|_, (_, until)| *until > now);
        self.prune_at = 2 * (self.ended.len() + self.roles.len());
    }

    /// `claims` as they are true now.
    fn check(&self, claims: Arc<Claims>) -> Result<Arc<Claims>, TokenError> {
        if self.ended.contains_key(&claims.sid) {
            return Err(TokenError::Ended);
        }
        Ok(match self.roles.get(&claims.sub) {
            Some((role, _)) if *role != claims.role => Arc::new(Claims { role: *role, ..(*claims).clone() }),
            _ => claims,
        })
    }
}

/// A session that somebody watches.
#[derive(Debug)]
struct Watched {
    has_ended: AtomicBool,
    notify: Notify,
}

/// Tells when a session ends before its time.
pub struct SessionWatch {
    session: SessionId,
    watched: Arc<Watched>,
    shared: Arc<Shared>,
}

impl SessionWatch {
    /// Waits until the session has ended. Safe to drop, and to ask again.
    pub async fn ended(&self) {
        loop {
            let notified = self.watched.notify.notified();
            if self.watched.has_ended.load(Ordering::Acquire) {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for SessionWatch {
    fn drop(&mut self) {
        let mut watched = lock(&self.shared.watched);
        // Ours and the map's: nobody else watches it.
        if Arc::strong_count(&self.watched) == 2
            && watched.get(&self.session).is_some_and(|entry| Arc::ptr_eq(entry, &self.watched))
        {
            watched.remove(&self.session);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    use crate::token::Role;

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
            verifier.learn(Trust::Keys { keys: vec![Jwk::ed25519("k1", key.verifying_key().as_bytes())] });
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
        mint.verifier.learn(Trust::Keys { keys: vec![] });
        assert_eq!(mint.verifier.verify(&mint.token()), Err(TokenError::NoKeys));
    }

    #[test]
    fn a_bad_cookie_does_not_hide_a_good_bearer() {
        let mint = Mint::new();
        let request = TestRequest::default()
            .insert_header(("cookie", "auth_token=stale"))
            .insert_header(("authorization", format!("Bearer {}", mint.token())))
            .to_http_request();
        let verified = mint.verifier.caller(request.head(), InQuery::Ignored).unwrap();
        assert_eq!(verified.carrier, Carrier::Bearer);
    }

    #[test]
    fn a_token_in_the_query_counts_only_where_it_is_allowed() {
        let mint = Mint::new();
        let request = TestRequest::with_uri(&format!("/?token={}", mint.token())).to_http_request();
        assert_eq!(mint.verifier.caller(request.head(), InQuery::Ignored), Err(TokenError::Missing));
        assert!(mint.verifier.caller(request.head(), InQuery::Allowed).is_ok());
    }

    fn ended(claims: &Claims) -> Trust {
        Trust::Ended { ended: vec![EndedSession { sid: claims.sid, until: claims.exp }] }
    }

    #[test]
    fn a_token_whose_session_has_ended_is_refused_also_when_it_is_remembered() {
        let mint = Mint::new();
        let (token, other) = (mint.token(), mint.token());
        let claims = mint.verifier.verify(&token).unwrap();
        mint.verifier.verify(&other).unwrap();

        mint.verifier.learn(ended(&claims));

        assert_eq!(mint.verifier.verify(&token), Err(TokenError::Ended));
        assert!(mint.verifier.verify(&other).is_ok());
    }

    #[test]
    fn a_snapshot_says_all_there_is() {
        let mint = Mint::new();
        let token = mint.token();
        let claims = mint.verifier.verify(&token).unwrap();
        mint.verifier.learn(ended(&claims));
        let keys = vec![Jwk::ed25519("k1", mint.key.verifying_key().as_bytes())];

        mint.verifier.learn(Trust::Snapshot { keys, ended: vec![], roles: vec![] });

        assert!(mint.verifier.verify(&token).is_ok());
    }

    #[test]
    fn a_changed_role_counts_whatever_the_token_says() {
        let mint = Mint::new();
        let token = mint.token();
        let claims = mint.verifier.verify(&token).unwrap();

        for role in [Role::Admin, Role::Member] {
            let changed = UserRole { sub: claims.sub, role, until: claims.exp };
            mint.verifier.learn(Trust::Roles { roles: vec![changed] });
            assert_eq!(mint.verifier.verify(&token).unwrap().role, role);
        }
    }

    #[test]
    fn a_key_that_is_gone_verifies_nothing_not_even_what_is_remembered() {
        let mint = Mint::new();
        let token = mint.token();
        mint.verifier.verify(&token).unwrap();
        let other = SigningKey::from_bytes(&[9; 32]);

        mint.verifier.learn(Trust::Keys { keys: vec![Jwk::ed25519("k2", other.verifying_key().as_bytes())] });

        assert_eq!(mint.verifier.verify(&token), Err(TokenError::Invalid));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mint = Mint::new();
        let now = mint.clock.now().timestamp();
        for _ in 0..10 * SMALL {
            mint.verifier.learn(Trust::Ended { ended: vec![EndedSession { sid: SessionId::new(), until: now }] });
        }
        assert!(mint.verifier.shared.read().ended.len() <= SMALL);
    }

    #[tokio::test]
    async fn whoever_watches_a_session_is_told_when_it_ends() {
        let mint = Mint::new();
        let claims = mint.verifier.verify(&mint.token()).unwrap();
        let (watch, again) = (mint.verifier.watch(claims.sid), mint.verifier.watch(claims.sid));
        let other = mint.verifier.watch(SessionId::new());

        mint.verifier.learn(ended(&claims));

        tokio::join!(watch.ended(), again.ended(), async {
            // Also whoever comes later.
            mint.verifier.watch(claims.sid).ended().await;
        });
        let waits = tokio::time::timeout(std::time::Duration::ZERO, other.ended()).await;
        assert!(waits.is_err());
        drop((watch, again, other));
        assert!(lock(&mint.verifier.shared.watched).is_empty());
    }
}
