//! What we do with events of others: names of users, so that a list of streams shows their owners.

use chrono::{DateTime, Utc};
use common::{SharedClock, UserId};
use diesel_async::AsyncPgConnection;
use events::{EndReason, Envelope, Event as _, UserDeleted, UserRegistered};
use outbox::{Handler, HandlerError};

use crate::broadcasting;
use crate::store::{broadcasts, streams, users};

/// Keeps `users` as auth tells of it, and forgets who is gone.
pub(crate) struct Names {
    pub(crate) clock: SharedClock,
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
                forget(conn, user.user_id, self.clock.now()).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Ends the user's live streams and deletes all of them, with what was noted of their broadcasts and recordings.
///
/// An encoder that is still there is cut off when it is next reported: nobody has its key any more. Lists show the
/// streams for `STREAM_CACHE_TTL` at most.
async fn forget(conn: &mut AsyncPgConnection, user_id: UserId, now: DateTime<Utc>) -> Result<(), HandlerError> {
    for stream in streams::lock_all_of(conn, user_id).await? {
        if let Some(broadcast) = broadcasts::find_live(conn, stream.id).await? {
            broadcasting::end(conn, &stream, &broadcast, EndReason::StoppedByOwner, now).await?;
        }
    }
    streams::delete_all_of(conn, user_id).await?;
    users::forget(conn, user_id).await?;
    Ok(())
}
