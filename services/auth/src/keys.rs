//! The keys that sign tokens: Ed25519, their private halves sealed in the database with `AMPHI_SECRET`.
//!
//! The first is made at the first start; `amphi auth rotate-key` makes the next. A key is published before it signs, and
//! stays published until the last token that it signed has expired, so that nobody is logged out.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use chassis::Order;
use chassis::db::Pool;
use chassis::secrets::random_hex;
use chrono::{DateTime, Utc};
use common::token::{Jwk, Jwks};
use common::{Claims, Secret};
use diesel_async::AsyncConnection as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::config::Config;
use crate::sealing::Seal;
use crate::store::signing_keys::{self, StoredKey};
use crate::store::trust::{Notice, tell};

/// What stands before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410 §7).
const PKCS8_PREFIX: &[u8] = &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// What the private halves are sealed for.
const USE: &str = "signing keys";
/// How long a new key is only published. Readers of the feed know it within a second, readers of the JWKS, which may
/// keep it for 60 s, a minute later; clocks of instances may differ by as much again.
const PUBLISHED_BEFORE: Duration = Duration::from_secs(120);

/// `amphi auth rotate-key`.
pub(crate) const ROTATE: chassis::Command = chassis::Command {
    name: "rotate-key",
    about: "Make a new key to sign tokens with.\n\n\
        Running instances learn of it at once and sign with it after two minutes, when everybody who verifies tokens \
        knows it. The key before stays published until the last token that it signed has expired. Nobody is logged \
        out.",
    flags: &[(
        "now",
        "For a key that has leaked: the new key signs at once and all others are gone at once. Every token that they \
         signed is dead within a second, so everybody is logged out; clients with a refresh token get on by themselves",
    )],
    run: |order| Box::pin(rotate(order)),
};

/// A key that may sign, and its public half.
pub(crate) struct SigningKey {
    pub(crate) jwk: Jwk,
    signs_from: DateTime<Utc>,
    key: EncodingKey,
}

/// The keys of this installation: at least one. The one that signs last comes first.
pub(crate) struct Keys(Vec<SigningKey>);

impl Keys {
    /// Opens what is stored. Fails when `secret` did not seal it, or when there is none.
    pub(crate) fn open(stored: &[StoredKey], secret: &Secret) -> anyhow::Result<Self> {
        if stored.is_empty() {
            bail!("there is no key that signs tokens");
        }
        stored.iter().map(|stored| SigningKey::open(stored, secret)).collect::<anyhow::Result<_>>().map(Self)
    }

    /// The public halves: those of keys that have signed, and of one that will.
    pub(crate) fn public(&self) -> Jwks {
        Jwks { keys: self.0.iter().map(|key| key.jwk.clone()).collect() }
    }

    /// The token that says `claims`, signed with the newest key whose time has come.
    pub(crate) fn sign(&self, claims: &Claims, now: DateTime<Utc>) -> Result<String, jsonwebtoken::errors::Error> {
        let due = self.0.iter().find(|key| key.signs_from <= now);
        // The first key of all signs even where the clock is behind that of the instance that made it.
        let Some(key) = due.or(self.0.last()) else {
            return Err(jsonwebtoken::errors::ErrorKind::InvalidEddsaKey.into());
        };
        let header = Header { kid: Some(key.jwk.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &key.key)
    }
}

impl SigningKey {
    fn open(stored: &StoredKey, secret: &Secret) -> anyhow::Result<Self> {
        let seed = Seal::new(secret, USE)?
            .open(stored.kid.as_bytes(), &stored.sealed_seed)
            .context("AMPHI_SECRET: it does not open the signing key in the database; set the one that sealed it")?;
        let seed: [u8; 32] = seed.as_slice().try_into()?;
        let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        let der = [PKCS8_PREFIX, &seed].concat();
        Ok(Self {
            jwk: Jwk::ed25519(&stored.kid, &public),
            signs_from: stored.signs_from,
            key: EncodingKey::from_ed_der(&der),
        })
    }
}

/// Makes the first key if there is none. Instances that start at once agree on one.
pub(crate) async fn ensure(pool: &Pool, secret: &Secret, now: DateTime<Utc>) -> anyhow::Result<()> {
    let mut conn = pool.get().await?;
    conn.transaction(async |conn| {
        signing_keys::lock(conn).await?;
        if signing_keys::all(conn).await?.is_empty() {
            signing_keys::insert(conn, &make(secret, now, now)?).await?;
        }
        anyhow::Ok(())
    })
    .await
}

async fn rotate(order: Order) -> anyhow::Result<String> {
    let config = Config::from_env(&order.env, &order.core)?;
    let (is_emergency, now) = (order.has("now"), order.clock.now());
    let mut conn = order.pool.get().await?;
    conn.transaction(async |conn| {
        signing_keys::lock(conn).await?;
        let stored = signing_keys::all(conn).await?;
        // A key sealed with another secret than theirs would be of no use to the instances.
        Keys::open(&stored, &config.secret)?;
        if !is_emergency && let Some(waiting) = stored.first().filter(|key| key.signs_from > now) {
            bail!(
                "the key {} was made before and signs from {}; nothing is changed",
                waiting.kid,
                at(waiting.signs_from)
            );
        }
        let signs_from = if is_emergency { now } else { now + PUBLISHED_BEFORE };
        let key = make(&config.secret, now, signs_from)?;
        signing_keys::insert(conn, &key).await?;
        if is_emergency {
            signing_keys::delete_all_but(conn, &key.kid).await?;
        } else {
            // Until the new key signs, the old one goes on.
            let lifetime_ends = signs_from + config.token_lifetime + PUBLISHED_BEFORE;
            signing_keys::retire_all_but(conn, &key.kid, lifetime_ends).await?;
        }
        tell(conn, &Notice::Keys).await?;
        Ok(if is_emergency {
            format!(
                "The key {} signs tokens. All others are gone, and with them every token that they signed.",
                key.kid
            )
        } else {
            format!("The key {} is published, and signs tokens from {}.", key.kid, at(signs_from))
        })
    })
    .await
}

fn at(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// A new key, sealed, that signs from `signs_from`.
pub(crate) fn make(secret: &Secret, now: DateTime<Utc>, signs_from: DateTime<Utc>) -> anyhow::Result<StoredKey> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_unspecified| anyhow!("there is no randomness"))?;
    let kid = random_hex(8);
    let public_key = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes().to_vec();
    let sealed_seed = Seal::new(secret, USE)?.seal(kid.as_bytes(), &seed)?;
    Ok(StoredKey { kid, public_key, sealed_seed, created_at: now, signs_from })
}
