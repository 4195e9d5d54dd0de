//! Passwords: hashed with argon2id at the parameters that OWASP recommends, a bounded number at a time.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use common::Secret;
use tokio::sync::Semaphore;

use crate::error::AuthError;

/// Whoever waits longer for a turn is told to come back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Hashes and verifies passwords, so many at once that the rest of the process is not starved.
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
    /// Verified against when an account does not exist, so that its absence takes as long as a wrong password.
    nobody: String,
}

impl Passwords {
    pub(crate) fn new(workers: NonZeroUsize) -> anyhow::Result<Self> {
        let nobody = hash(&chassis::secrets::random_hex(16)).map_err(AuthError::Hash)?;
        Ok(Self { turns: Arc::new(Semaphore::new(workers.get())), nobody })
    }

    /// The hash to store, as a PHC string. Takes some 20 ms of a core.
    pub(crate) async fn hash(&self, password: Secret) -> Result<String, AuthError> {
        self.in_turn(move || hash(password.expose())).await?.map_err(AuthError::Hash)
    }

    /// Whether `password` is the one that `stored` was made from. Without `stored` it takes as long and is `false`.
    pub(crate) async fn verify(&self, password: Secret, stored: Option<String>) -> Result<bool, AuthError> {
        let is_known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.nobody.clone());
        let is_right = self.in_turn(move || verify(password.expose(), &stored)).await?.map_err(AuthError::Hash)?;
        Ok(is_right && is_known)
    }

    async fn in_turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, AuthError> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(AuthError::Busy) };
        Ok(tokio::task::spawn_blocking(move || {
            // The turn ends with the work, also when the client has left and nobody waits for the result.
            let _turn = turn;
            work()
        })
        .await?)
    }
}

fn hash(password: &str) -> Result<String, argon2::password_hash::Error> {
    Ok(Argon2::default().hash_password(password.as_bytes())?.to_string())
}

fn verify(password: &str, stored: &str) -> Result<bool, argon2::password_hash::Error> {
    let stored = PasswordHash::new(stored)?;
    match Argon2::default().verify_password(password.as_bytes(), &stored) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(error),
    }
}
