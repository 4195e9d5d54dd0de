//! The tokens in links: computed from an id and `AMPHI_SECRET`, never stored, so that a dump of the database opens none.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::Secret;
use ring::hmac;
use uuid::Uuid;

use crate::mail::Purpose;
use crate::sealing;

/// An id (16 bytes) and its HMAC (32 bytes) in base64url.
pub(crate) const TOKEN_LENGTH: usize = 64;

/// Makes tokens, and knows its own.
pub(crate) struct Links(hmac::Key);

impl Links {
    pub(crate) fn new(secret: &Secret) -> anyhow::Result<Self> {
        Ok(Self(sealing::mac_key(secret, "links in mails")?))
    }

    /// `base64url(id ‖ HMAC-SHA256(purpose ‖ id))`.
    pub(crate) fn token(&self, purpose: Purpose, id: Uuid) -> String {
        let tag = hmac::sign(&self.0, &signed(purpose, id));
        URL_SAFE_NO_PAD.encode([id.as_bytes(), tag.as_ref()].concat())
    }

    /// What `token` was made of, if it is one of ours for one of `purposes`. Whether it still counts, the row tells.
    pub(crate) fn open(&self, token: &str, purposes: &[Purpose]) -> Option<(Purpose, Uuid)> {
        if token.len() != TOKEN_LENGTH {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (id, tag) = bytes.split_at_checked(16)?;
        let id = Uuid::from_slice(id).ok()?;
        let is_ours = |purpose: &Purpose| hmac::verify(&self.0, &signed(*purpose, id), tag).is_ok();
        purposes.iter().copied().find(is_ours).map(|purpose| (purpose, id))
    }
}

fn signed(purpose: Purpose, id: Uuid) -> Vec<u8> {
    [purpose.text().as_bytes(), id.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_for_its_purpose_and_with_its_secret_alone() {
        let links = Links::new(&Secret::new("a secret")).unwrap();
        let id = Uuid::now_v7();
        let token = links.token(Purpose::ResetPassword, id);

        assert_eq!(token.len(), TOKEN_LENGTH);
        assert_eq!(links.open(&token, &Purpose::ALL), Some((Purpose::ResetPassword, id)));
        assert_eq!(links.open(&token, &[Purpose::VerifyEmail]), None);
        let others = Links::new(&Secret::new("another")).unwrap();
        assert_eq!(others.open(&token, &Purpose::ALL), None);
        for place in [0, 30, 63] {
            let mut forged = token.clone().into_bytes();
            forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(links.open(&String::from_utf8(forged).unwrap(), &Purpose::ALL), None);
        }
        for garbage in ["", "=", "ä", &"ä".repeat(32), &"A".repeat(64), &"A".repeat(65)] {
            assert_eq!(links.open(garbage, &Purpose::ALL), None, "{garbage}");
        }
    }
}
