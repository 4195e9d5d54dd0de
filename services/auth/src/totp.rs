//! Codes of authenticator apps (RFC 6238), and the recovery codes for who has lost the app.

use std::time::Duration;

use backplane::Pace;
use chrono::{DateTime, Utc};
use common::UserId;
use diesel_async::AsyncPgConnection;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Deserialize;
use totp_rs::{Algorithm, Builder, Totp};
use utoipa::ToSchema;

use crate::App;
use crate::domain::User;
use crate::error::AuthError;
use crate::store::totp;
use crate::throttle::Limit;

/// How many recovery codes one gets.
pub(crate) const RECOVERY_CODES: usize = 10;
/// As RFC 4226 recommends.
const SECRET_BYTES: usize = 20;
/// What the app shows beside the address.
const ISSUER: &str = "Amphi";

/// Guesses at the codes of one account, from anywhere.
const GUESSES: Limit = Limit {
    name: "totp",
    pace: Pace {
        free: 10,
        first: Duration::from_secs(1),
        longest: Duration::from_secs(15 * 60),
        forget: Duration::from_secs(24 * 60 * 60),
    },
};

/// What shows that the caller has the authenticator, or the codes that stand in for it.
#[derive(Default, Deserialize, ToSchema)]
pub(crate) struct SecondFactor {
    /// The six digits that the authenticator shows now. Each code counts once.
    #[serde(alias = "totpCode")]
    #[schema(min_length = 6, max_length = 6, pattern = "^[0-9]{6}$", example = "492039")]
    pub(crate) totp_code: Option<String>,
    /// One of the recovery codes, instead of `totp_code`. Each counts once.
    #[serde(alias = "recoveryCode")]
    #[schema(max_length = 100, example = "3f9a1-0c77e-b2d48-65e0f")]
    pub(crate) recovery_code: Option<String>,
}

impl SecondFactor {
    /// Counts an attempt to guess a code, before it is looked at. Whoever guesses knows the password already, so these
    /// limits are narrow: an owner who is locked out has to change the password anyway.
    pub(crate) async fn count_attempt(&self, app: &App, user_id: UserId) -> Result<(), AuthError> {
        match self.is_given() {
            true => app.throttle.attempt(&[(&GUESSES, &user_id.to_string())]).await,
            false => Ok(()),
        }
    }

    /// The code was right.
    pub(crate) async fn succeed(&self, app: &App, user_id: UserId) {
        if self.is_given() {
            app.throttle.forget(&GUESSES, &user_id.to_string()).await;
        }
    }

    fn is_given(&self) -> bool {
        self.totp_code.is_some() || self.recovery_code.is_some()
    }
}

/// Lets go on who has the authenticator of `user`, or says what is missing. What it takes is used up, in the caller's
/// transaction.
pub(crate) async fn require(
    app: &App,
    conn: &mut AsyncPgConnection,
    user: &User,
    factor: &SecondFactor,
    now: DateTime<Utc>,
) -> Result<(), AuthError> {
    let is_right = match (&factor.totp_code, &factor.recovery_code) {
        (Some(code), _) => accept_code(app, conn, user, code, now).await?,
        (None, Some(code)) => totp::use_recovery_code(conn, user.user_id, &hash_of(code)).await?,
        (None, None) => return Err(AuthError::TotpRequired),
    };
    if is_right { Ok(()) } else { Err(AuthError::TotpWrong) }
}

/// Whether `code` is one that the authenticator of `user` shows now, and was not taken before.
pub(crate) async fn accept_code(
    app: &App,
    conn: &mut AsyncPgConnection,
    user: &User,
    code: &str,
    now: DateTime<Utc>,
) -> Result<bool, AuthError> {
    let Some(sealed) = totp::find_secret(conn, user.user_id).await? else { return Ok(false) };
    let secret = app.totp_seal.open(user.user_id.0.as_bytes(), &sealed).map_err(AuthError::Seal)?;
    match step_of(&authenticator(secret, &user.email), code, now) {
        Some(step) => Ok(totp::accept_step(conn, user.user_id, step).await?),
        None => Ok(false),
    }
}

/// A secret that was just made.
pub(crate) struct NewSecret {
    /// For typing in.
    pub(crate) base32: String,
    /// For a QR code.
    pub(crate) otpauth_url: String,
    /// For the database.
    pub(crate) sealed: Vec<u8>,
}

/// A new secret for the authenticator of `user`.
pub(crate) fn new_secret(app: &App, user: &User) -> Result<NewSecret, AuthError> {
    let mut secret = vec![0; SECRET_BYTES];
    random(&mut secret)?;
    let sealed = app.totp_seal.seal(user.user_id.0.as_bytes(), &secret).map_err(AuthError::Seal)?;
    let totp = authenticator(secret, &user.email);
    let otpauth_url = totp.to_url().map_err(|error| AuthError::Seal(error.into()))?;
    Ok(NewSecret { base32: totp.secret().to_base32(), otpauth_url, sealed })
}

/// New recovery codes: as they are shown, and as they are stored.
pub(crate) fn new_recovery_codes() -> Result<(Vec<String>, Vec<Vec<u8>>), AuthError> {
    let mut codes = Vec::new();
    for _ in 0..RECOVERY_CODES {
        // 80 bits: no use to guess, also from the hash.
        let mut bytes = [0; 10];
        random(&mut bytes)?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        codes.push([&digits[..5], &digits[5..10], &digits[10..15], &digits[15..]].join("-"));
    }
    let hashes = codes.iter().map(|code| hash_of(code)).collect();
    Ok((codes, hashes))
}

fn random(bytes: &mut [u8]) -> Result<(), AuthError> {
    SystemRandom::new().fill(bytes).map_err(|error| AuthError::Seal(anyhow::anyhow!("there is no randomness: {error}")))
}

/// However it is typed: hyphens, spaces and case do not matter.
fn hash_of(code: &str) -> Vec<u8> {
    let plain: String = code.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    digest(&SHA256, plain.as_bytes()).as_ref().to_vec()
}

fn authenticator(secret: Vec<u8>, email: &str) -> Totp {
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_step_duration(30)
        .with_skew(1)
        .with_secret(secret)
        .with_issuer(Some(ISSUER))
        // A colon would end the issuer; addresses may have one in quotes.
        .with_account_name(email.replace(':', " "))
        .build_noncompliant()
}

/// The step of which `code` is, if it is this one, the one before or the next.
fn step_of(totp: &Totp, code: &str, now: DateTime<Utc>) -> Option<i64> {
    let is_plain = code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = u64::try_from(now.timestamp()).ok().filter(|_| is_plain)?;
    i64::try_from(totp.check(code, seconds)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    /// The last six of the eight digits in RFC 6238, appendix B, for SHA-1.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let totp = authenticator(b"12345678901234567890".to_vec(), "ana@example.org");
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(step_of(&totp, code, at(seconds)), Some(seconds / 30), "{seconds}");
        }
    }

    #[test]
    fn a_clock_may_be_a_step_off_and_no_more() {
        let totp = authenticator(b"12345678901234567890".to_vec(), "ana@example.org");
        let found = [-31, 0, 29, 30, 60, 90].map(|late| step_of(&totp, "287082", at(59 + late)).is_some());
        // The code is of the step from 30 to 59.
        assert_eq!(found, [true, true, true, true, false, false]);
        for wrong in ["", "28708", "2870822", "28708a", "287 082", "+87082", "２８７０８２"] {
            assert_eq!(step_of(&totp, wrong, at(59)), None, "{wrong}");
        }
    }

    #[test]
    fn a_recovery_code_is_the_same_however_it_is_typed() {
        let (codes, hashes) = new_recovery_codes().unwrap();
        assert_eq!((codes.len(), hashes.len()), (RECOVERY_CODES, RECOVERY_CODES));
        assert_eq!(codes[0].len(), 23);
        assert_eq!(hash_of(&codes[0].to_uppercase().replace('-', " ")), hashes[0]);
        assert_ne!(hashes[0], hashes[1]);
    }
}
