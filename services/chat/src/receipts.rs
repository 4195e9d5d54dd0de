//! What a member has read.

use common::{MessageId, RoomId, UserId};

use crate::App;
use crate::error::{ChatError, invalid};
use crate::event::Event;
use crate::store::members::{self, Standing};
use crate::store::messages;

/// Marks all up to a message as read, or up to the newest, and tells the room. What was read before stays read.
pub(crate) async fn mark(
    app: &App,
    room_id: RoomId,
    user_id: UserId,
    message_id: Option<MessageId>,
) -> Result<Standing, ChatError> {
    let mut conn = app.pool.get().await?;
    // Before anything is told of messages: of which room they are is told to members only.
    members::standing(&mut conn, room_id, user_id).await?.ok_or(ChatError::NotInRoom)?;
    let seq = match message_id {
        Some(id) => {
            let seq = messages::seq_of(&mut conn, room_id, id).await?;
            Some(seq.ok_or_else(|| invalid("messageId", "is no message of this conversation"))?)
        }
        None => None,
    };
    let has_moved = members::mark_read(&mut conn, room_id, user_id, seq, app.clock.now()).await?;
    let standing = members::standing(&mut conn, room_id, user_id).await?.ok_or(ChatError::NotInRoom)?;
    drop(conn);
    if has_moved
        && let Standing { last_read_seq: seq, last_read_at: Some(at), last_read_id: Some(message_id), .. } = standing
    {
        app.hub.tell(room_id, Event::Read { user_id, seq, message_id, at }).await;
    }
    Ok(standing)
}
