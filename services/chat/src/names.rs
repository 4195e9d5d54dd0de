//! What we do with events of others: names and addresses of users, so that messages show who wrote them.

use std::sync::Arc;

use common::UserId;
use diesel_async::AsyncPgConnection;
use events::{Envelope, Event as _, UserDeleted, UserEmailChanged, UserRegistered};
use outbox::{Handler, HandlerError};

use crate::event::Event;
use crate::hub::Hub;
use crate::store::{members, users};

/// Keeps `users` as auth tells of it, and lets go of who is gone.
pub(crate) struct Names {
    pub(crate) hub: Arc<Hub>,
}

impl Handler for Names {
    async fn handle(&self, conn: &mut AsyncPgConnection, envelope: &Envelope) -> Result<(), HandlerError> {
        match envelope.name.as_str() {
            UserRegistered::NAME => {
                let user: UserRegistered = envelope.open()?;
                users::put(conn, user.user_id, &user.full_name, user.email.as_deref()).await?;
            }
            UserEmailChanged::NAME => {
                let user: UserEmailChanged = envelope.open()?;
                users::put_email(conn, user.user_id, &user.email).await?;
            }
            UserDeleted::NAME => {
                let user: UserDeleted = envelope.open()?;
                self.forget(conn, user.user_id).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Names {
    /// What the user has written stays, without a name or an address: it belongs to the rooms too.
    async fn forget(&self, conn: &mut AsyncPgConnection, user_id: UserId) -> Result<(), HandlerError> {
        users::forget(conn, user_id).await?;
        for room_id in members::delete_all_of(conn, user_id).await? {
            self.hub.tell(room_id, Event::Removed { user_id }).await;
        }
        Ok(())
    }
}
