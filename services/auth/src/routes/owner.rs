//! Who is calling, when a token is not enough.

use common::{Caller, Secret};
use diesel_async::AsyncPgConnection;

use crate::App;
use crate::client::Client;
use crate::domain::User;
use crate::error::AuthError;
use crate::routes::accounts::{Proved, live_user, prove};
use crate::store::users;

/// The caller, who has shown with the password that the account is theirs, and not only the device.
pub(crate) struct Owner(Proved);

impl Owner {
    /// Attempts are limited as those of logging in are.
    pub(crate) async fn prove(app: &App, caller: &Caller, client: &Client, password: &str) -> Result<Self, AuthError> {
        let user = live_user(app, &mut *app.pool.get().await?, caller).await?;
        Ok(Self(prove(app, client, &user.email, Secret::new(password)).await?))
    }

    /// The account as it was when the password was looked at.
    pub(crate) fn user(&self) -> &User {
        &self.0.user
    }

    /// The account as it is now, held until the transaction ends, if the password is still the one that was shown.
    pub(crate) async fn lock(&self, conn: &mut AsyncPgConnection) -> Result<User, AuthError> {
        let locked = users::lock(conn, self.0.user.user_id).await?;
        let (user, _) = locked.filter(|(_, hash)| *hash == self.0.hash).ok_or(AuthError::BadCredentials)?;
        Ok(user)
    }
}
