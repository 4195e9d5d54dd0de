//! What we do with events of others: followers who want it get a mail when a stream is live.

use common::SharedClock;
use diesel_async::AsyncPgConnection;
use events::{Envelope, Event as _, StreamAnnounced};
use outbox::{Handler, HandlerError};

use crate::mail::{About, Mail, Purpose};
use crate::store::{mails, users};

/// Puts a mail into the queue for each follower that an event names.
///
/// The event takes effect once, and names each follower of a broadcast once: nobody gets two.
pub(crate) struct Notices {
    pub(crate) clock: SharedClock,
}

impl Handler for Notices {
    async fn handle(&self, conn: &mut AsyncPgConnection, envelope: &Envelope) -> Result<(), HandlerError> {
        if envelope.name == StreamAnnounced::NAME {
            enqueue(conn, envelope.open()?, &self.clock).await?;
        }
        Ok(())
    }
}

async fn enqueue(
    conn: &mut AsyncPgConnection,
    announced: StreamAnnounced,
    clock: &SharedClock,
) -> Result<(), HandlerError> {
    let now = clock.now();
    // Whoever was shut out or deleted the account meanwhile is announced no more.
    let channel = users::find(conn, announced.channel_id).await?.filter(|channel| channel.suspension.is_none());
    let Some(channel) = channel else { return Ok(()) };
    // Counted from the beginning: however long the event was under way, nobody is told of what is long over.
    let lasting = Mail::new(Purpose::StreamLive, "", None, announced.started_at).expires_at;
    if lasting <= now {
        return Ok(());
    }
    let about = About {
        channel_id: announced.channel_id,
        channel_name: channel.full_name,
        playback_id: announced.playback_id,
        title: announced.title,
    };
    let readers = users::find_confirmed(conn, &announced.by_mail).await?;
    let mails: Vec<_> = readers
        .into_iter()
        .map(|(user_id, to)| {
            let mail = Mail::new(Purpose::StreamLive, &to, Some(user_id), now);
            Mail { expires_at: lasting, about: Some(about.clone()), ..mail }
        })
        .collect();
    if !mails.is_empty() {
        mails::insert_all(conn, &mails).await?;
    }
    Ok(())
}
