//! What follows from `AMPHI_SECRET`: keys for one use each, and what is sealed with them for the database.

use anyhow::{Context as _, anyhow};
use common::Secret;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{hkdf, hmac};

/// Seals what the database keeps, so that a dump of it tells nothing. Each use has a key of its own.
pub(crate) struct Seal(LessSafeKey);

impl Seal {
    /// `usage` never changes: what was sealed for one opens for no other.
    pub(crate) fn new(secret: &Secret, usage: &'static str) -> anyhow::Result<Self> {
        let key = derive(secret, usage, &CHACHA20_POLY1305, |okm| UnboundKey::from(okm))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Nonce, then the encrypted `text`, then its tag; bound to `name`, so that rows cannot be swapped.
    pub(crate) fn seal(&self, name: &[u8], text: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_unspecified| anyhow!("there is no randomness"))?;
        let mut text = text.to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut text)
            .map_err(|_unspecified| anyhow!("it cannot be sealed"))?;
        Ok([&nonce[..], &text].concat())
    }

    /// The text that was sealed under `name`. Fails under another name, and with another secret.
    pub(crate) fn open(&self, name: &[u8], sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).context("what is sealed is too short")?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_unspecified| anyhow!("the nonce is not one"))?;
        let mut text = text.to_vec();
        let opened = self
            .0
            .open_in_place(nonce, Aad::from(name), &mut text)
            .map_err(|_unspecified| anyhow!("it was sealed with another secret"))?;
        Ok(opened.to_vec())
    }
}

/// A key for HMAC-SHA256 that is used for `usage` alone.
pub(crate) fn mac_key(secret: &Secret, usage: &'static str) -> anyhow::Result<hmac::Key> {
    derive(secret, usage, hmac::HMAC_SHA256, |okm| hmac::Key::from(okm))
}

fn derive<L: hkdf::KeyType, K>(
    secret: &Secret,
    usage: &'static str,
    length: L,
    to_key: impl FnOnce(hkdf::Okm<'_, L>) -> K,
) -> anyhow::Result<K> {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"amphi");
    let derived = salt.extract(secret.expose().as_bytes());
    let info = [usage.as_bytes()];
    let okm = derived.expand(&info, length).map_err(|_unspecified| anyhow!("no key for {usage} can be derived"))?;
    Ok(to_key(okm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_that_sealed_a_text_opens_it_and_only_under_its_name_and_use() {
        let seal = |secret, usage| Seal::new(&Secret::new(secret), usage).unwrap();
        let sealed = seal("a secret", "keys").seal(b"k1", b"text").unwrap();

        assert_eq!(seal("a secret", "keys").open(b"k1", &sealed).unwrap(), b"text");
        assert!(seal("another", "keys").open(b"k1", &sealed).is_err());
        assert!(seal("a secret", "codes").open(b"k1", &sealed).is_err());
        assert!(seal("a secret", "keys").open(b"k2", &sealed).is_err());
        assert!(seal("a secret", "keys").open(b"k1", &[1, 2, 3]).is_err());
    }
}
