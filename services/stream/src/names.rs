//! What we do with events of others: names of users, so that a list of streams shows their owners.

use common::{SharedClock, UserId};
use diesel_async::AsyncPgConnection;
use events::{Envelope, Event as _, UserDeleted, UserRegistered};
use outbox::{Handler, HandlerError};

use crate::broadcasting::{self, Effects};
use crate::error::StreamError;
use crate::machine::Rules;
use crate::store::{follows, streams, users};

/// Keeps `users` as auth tells of it, and forgets who is gone.
pub(crate) struct Names {
    pub(crate) clock: SharedClock,
    pub(crate) rules: Rules,
}

impl Handler for Names {
    async fn handle(&self, conn: &mut AsyncPgConnection, envelope: &Envelope) -> Result<(), HandlerError> {
        match envelope.name.as_str() {
            UserRegistered::NAME => {
                let user: UserRegistered = envelope.open()?;
                users::put(conn, user.user_id, &user.full_name).await?;
            }
            UserDeleted::NAME => {
                let user: UserDeleted = envelope.open()?;
                let mut effects = Effects::new(self.clock.now(), self.rules);
                forget(conn, &mut effects, user.user_id).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Ends the user's live streams and deletes all of them, with what was noted of their broadcasts and recordings.
///
/// An encoder that is still there is cut off when it is next reported: nobody has its key any more. Lists show the
/// streams for `STREAM_LIST_TTL` at most.
async fn forget(conn: &mut AsyncPgConnection, effects: &mut Effects, user_id: UserId) -> Result<(), HandlerError> {
    let ids: Vec<_> = streams::lock_all_of(conn, user_id).await?.iter().map(|stream| stream.id).collect();
    let ended = async {
        broadcasting::end_before_deletion(conn, effects, &ids).await?;
        effects.tell(conn).await
    };
    ended.await.map_err(|error| match error {
        StreamError::Database(error) => HandlerError::Database(error),
        error => HandlerError::Retry(error.to_string()),
    })?;
    users::forget(conn, user_id).await?;
    follows::forget(conn, user_id).await?;
    Ok(())
}
