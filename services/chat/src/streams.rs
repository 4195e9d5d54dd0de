//! Rooms of streams: opened when a stream that everybody may see goes on air, closed when it ends.

use diesel_async::AsyncPgConnection;
use events::{Envelope, Event as _, StreamEnded, StreamWentLive};
use outbox::{Handler, HandlerError};

use crate::store::streams;

/// Keeps a room for every public stream. What was said in an earlier broadcast stays in it.
pub(crate) struct Streams;

impl Handler for Streams {
    async fn handle(&self, conn: &mut AsyncPgConnection, envelope: &Envelope) -> Result<(), HandlerError> {
        match envelope.name.as_str() {
            StreamWentLive::NAME => {
                let stream: StreamWentLive = envelope.open()?;
                if stream.is_public {
                    streams::open(conn, &stream).await?;
                }
            }
            StreamEnded::NAME => streams::close(conn, &envelope.open()?).await?,
            _ => {}
        }
        Ok(())
    }
}
