//! The key that signs tokens: Ed25519, made once, its private half sealed in the database with `AMPHI_SECRET`.

use anyhow::{Context as _, anyhow};
use chassis::db::Pool;
use chassis::secrets::random_hex;
use chrono::{DateTime, Utc};
use common::{Claims, Secret};
use diesel_async::AsyncConnection as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::config::Config;
use crate::store::signing_keys::{self, StoredKey};

/// What stands before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410 §7).
const PKCS8_PREFIX: &[u8] = &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// The key that tokens are signed with now.
pub(crate) struct SigningKey {
    kid: String,
    key: EncodingKey,
}

impl SigningKey {
    fn new(kid: String, seed: &[u8; 32]) -> Self {
        let der = [PKCS8_PREFIX, seed].concat();
        Self { kid, key: EncodingKey::from_ed_der(&der) }
    }

    /// The token that says `claims`.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.key)
    }
}

/// The newest key in the database; the first is made now. Instances that start at once agree on one.
pub(crate) async fn load_or_make(pool: &Pool, config: &Config, now: DateTime<Utc>) -> anyhow::Result<SigningKey> {
    let mut conn = pool.get().await?;
    conn.transaction(async |conn| {
        signing_keys::lock(conn).await?;
        if let Some(stored) = signing_keys::newest(conn).await? {
            let seed = open(&config.secret, &stored.kid, stored.sealed_seed).context(
                "AMPHI_SECRET: it does not open the signing key in the database; set the one that sealed it",
            )?;
            return anyhow::Ok(SigningKey::new(stored.kid, &seed));
        }
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_unspecified| anyhow!("there is no randomness"))?;
        let kid = random_hex(8);
        let public_key = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes().to_vec();
        let sealed_seed = seal(&config.secret, &kid, &seed)?;
        signing_keys::insert(conn, &StoredKey { kid: kid.clone(), public_key, sealed_seed, created_at: now }).await?;
        Ok(SigningKey::new(kid, &seed))
    })
    .await
}

fn sealing_key(secret: &Secret) -> anyhow::Result<LessSafeKey> {
    let salt = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, b"amphi");
    let derived = salt.extract(secret.expose().as_bytes());
    let derived = derived
        .expand(&[b"signing keys"], &CHACHA20_POLY1305)
        .map_err(|_unspecified| anyhow!("the sealing key cannot be derived"))?;
    Ok(LessSafeKey::new(UnboundKey::from(derived)))
}

/// Nonce, then the encrypted seed, then its tag; bound to `kid`, so that rows cannot be swapped.
fn seal(secret: &Secret, kid: &str, seed: &[u8; 32]) -> anyhow::Result<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).map_err(|_unspecified| anyhow!("there is no randomness"))?;
    let mut text = seed.to_vec();
    sealing_key(secret)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(kid.as_bytes()), &mut text)
        .map_err(|_unspecified| anyhow!("the signing key cannot be sealed"))?;
    Ok([&nonce[..], &text].concat())
}

fn open(secret: &Secret, kid: &str, sealed: Vec<u8>) -> anyhow::Result<[u8; 32]> {
    let (nonce, text) = sealed.split_at_checked(NONCE_LEN).context("the sealed key is too short")?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_unspecified| anyhow!("the nonce is not one"))?;
    let mut text = text.to_vec();
    let seed = sealing_key(secret)?
        .open_in_place(nonce, Aad::from(kid.as_bytes()), &mut text)
        .map_err(|_unspecified| anyhow!("it was sealed with another secret"))?;
    Ok((&*seed).try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_that_sealed_a_key_opens_it_and_only_under_its_name() {
        let secret = Secret::new("a secret");
        let sealed = seal(&secret, "k1", &[7; 32]).unwrap();

        assert_eq!(open(&secret, "k1", sealed.clone()).unwrap(), [7; 32]);
        assert!(open(&Secret::new("another"), "k1", sealed.clone()).is_err());
        assert!(open(&secret, "k2", sealed).is_err());
        assert!(open(&secret, "k1", vec![1, 2, 3]).is_err());
    }
}
