//! What we do with events of others: names of users, so that a list of streams shows their owners.

use diesel_async::AsyncPgConnection;
use events::{Envelope, Event as _, UserRegistered};
use outbox::{Handler, HandlerError};

use crate::store::users;

/// Keeps `users` as auth tells of it.
pub(crate) struct Names;

impl Handler for Names {
    async fn handle(&self, conn: &mut AsyncPgConnection, envelope: &Envelope) -> Result<(), HandlerError> {
        if envelope.name == UserRegistered::NAME {
            let user: UserRegistered = envelope.open()?;
            users::put(conn, user.user_id, &user.full_name).await?;
        }
        Ok(())
    }
}
