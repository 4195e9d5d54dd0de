//! What a client is given to prove who it is: an access token, and a refresh token to get the next.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use common::{Claims, Secret, SessionId, token};
use ring::hmac;
use uuid::Uuid;

use crate::App;
use crate::domain::User;
use crate::error::AuthError;
use crate::sealing;
use crate::store::sessions::Lifetimes;

/// Session id, generation.
const SAID_BYTES: usize = 16 + 8;
/// And what proves that we said so.
const REFRESH_BYTES: usize = SAID_BYTES + 32;

/// Makes and reads refresh tokens. There is no table of them: a token is the id of its session and its generation, signed
/// with a key derived from `AMPHI_SECRET`, and the session knows which generation is good now. So a dump of the database
/// refreshes nothing.
pub(crate) struct RefreshTokens {
    key: hmac::Key,
}

impl RefreshTokens {
    pub(crate) fn new(secret: &Secret) -> anyhow::Result<Self> {
        Ok(Self { key: sealing::mac_key(secret, "refresh tokens")? })
    }

    pub(crate) fn make(&self, session_id: SessionId, generation: i64) -> String {
        let mut token = [session_id.0.as_bytes().as_slice(), &generation.to_be_bytes()].concat();
        let proof = hmac::sign(&self.key, &token);
        token.extend_from_slice(proof.as_ref());
        URL_SAFE_NO_PAD.encode(token)
    }

    /// What it says, if we made it.
    pub(crate) fn read(&self, token: &str) -> Option<(SessionId, i64)> {
        // Longer ones are not worth decoding.
        if token.len() > REFRESH_BYTES * 2 {
            return None;
        }
        let bytes: [u8; REFRESH_BYTES] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
        let (said, proof) = bytes.split_at(SAID_BYTES);
        hmac::verify(&self.key, said, proof).ok()?;
        let (session_id, generation) = said.split_at(16);
        Some((SessionId(Uuid::from_slice(session_id).ok()?), i64::from_be_bytes(generation.try_into().ok()?)))
    }
}

/// An access token, and when it expires.
pub(crate) struct AccessToken {
    pub(crate) text: String,
    pub(crate) expires_at: DateTime<Utc>,
}

impl App {
    /// How long tokens live that are made now. To the second, as tokens say it.
    pub(crate) fn lifetimes(&self, now: DateTime<Utc>) -> Lifetimes {
        Lifetimes {
            token_until: whole_second(now + self.config.token_lifetime),
            refresh_until: whole_second(now + self.config.refresh_lifetime),
        }
    }

    /// A token of this session, which says what is true of the user now.
    pub(crate) fn access_token(
        &self,
        user: &User,
        session_id: SessionId,
        now: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Result<AccessToken, AuthError> {
        let claims = Claims {
            iss: self.config.issuer.clone(),
            aud: token::AUDIENCE.to_owned(),
            sub: user.user_id,
            name: user.full_name.clone(),
            role: user.role,
            sid: session_id,
            iat: now.timestamp(),
            nbf: None,
            exp: expires_at.timestamp(),
        };
        Ok(AccessToken { text: self.trust.sign(&claims)?, expires_at })
    }
}

fn whole_second(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(time.timestamp(), 0).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_token_says_what_we_said_and_nothing_else_is_one() {
        let tokens = RefreshTokens::new(&Secret::new("a secret")).unwrap();
        let session_id = SessionId::new();
        let token = tokens.make(session_id, 7);

        assert_eq!(tokens.read(&token), Some((session_id, 7)));
        assert_eq!(RefreshTokens::new(&Secret::new("another")).unwrap().read(&token), None);
        let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for n in 0..bytes.len() {
            bytes[n] ^= 1;
            assert_eq!(tokens.read(&URL_SAFE_NO_PAD.encode(&bytes)), None, "byte {n}");
            bytes[n] ^= 1;
        }
        for wrong in ["", "garbage", &token[..token.len() - 1], &format!("{token}A"), &"A".repeat(100_000)] {
            assert_eq!(tokens.read(wrong), None);
        }
    }
}
