//! Rooms of streams: opened when a stream that everybody may see goes on air, closed when it ends, gone when it is deleted.

use std::sync::Arc;

use diesel_async::AsyncPgConnection;
use events::{Envelope, Event as _, StreamDeleted, StreamEnded, StreamWentLive};
use outbox::{Handler, HandlerError};

use crate::event::Event;
use crate::hub::Hub;
use crate::store::streams;

/// Keeps a room for every public stream. What was said in an earlier broadcast stays in it; with the stream it goes.
pub(crate) struct Streams {
    pub(crate) hub: Arc<Hub>,
}

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
            StreamDeleted::NAME => {
                let stream: StreamDeleted = envelope.open()?;
                if let Some(room_id) = streams::delete(conn, stream.stream_id).await? {
                    // Whoever comes back before this is committed is refused as soon as they speak.
                    self.hub.tell(room_id, Event::Deleted).await;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
