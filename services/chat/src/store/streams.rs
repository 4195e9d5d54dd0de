//! Rooms of streams.

use chrono::{DateTime, Utc};
use common::{ConversationId, RoomId, StreamId, UserId};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use events::{StreamEnded, StreamWentLive};

use crate::domain::{Kind, LONGEST_NAME, MemberRole, Room};
use crate::session::RoomRef;
use crate::store::members;
use crate::store::messages::messages;
use crate::store::rooms::{self, rooms as table};

diesel::table! {
    /// Streams that are no more.
    deleted_streams (stream_id) {
        stream_id -> BigInt,
    }
}

/// So many messages are deleted by one statement, which has a time to keep.
const AT_ONCE: usize = 50_000;

/// Opens the stream's room, or opens it again, under the stream's title. Its owner is a member. A stream that is no more has
/// none.
pub(crate) async fn open(conn: &mut AsyncPgConnection, stream: &StreamWentLive) -> QueryResult<()> {
    use diesel::query_dsl::methods::FilterDsl as _;
    if diesel::select(exists(deleted_streams::table.find(stream.stream_id.0))).get_result(conn).await? {
        return Ok(());
    }
    let name: String = stream.title.chars().take(LONGEST_NAME).collect();
    let owner = stream.user_id;
    let opened: Option<i64> = diesel::insert_into(table::table)
        .values((
            table::conversation_id.eq(ConversationId::new().0),
            table::kind.eq(Kind::Stream.as_str()),
            table::room_name.eq(&name),
            table::is_public.eq(true),
            table::stream_id.eq(stream.stream_id.0),
            table::broadcast_id.eq(stream.broadcast_id.0),
            table::room_created_by.eq(owner.0),
            table::room_created_at.eq(stream.started_at),
            table::room_updated_at.eq(stream.started_at),
        ))
        .on_conflict(table::stream_id)
        .do_update()
        .set((
            table::room_name.eq(&name),
            table::broadcast_id.eq(stream.broadcast_id.0),
            table::closed_at.eq(None::<DateTime<Utc>>),
        ))
        .filter(table::broadcast_id.lt(stream.broadcast_id.0))
        .returning(table::room_id)
        .get_result(conn)
        .await
        .optional()?;
    if let Some(room_id) = opened {
        members::insert(conn, RoomId(room_id), &[owner], MemberRole::Owner, stream.started_at).await?;
    }
    Ok(())
}

/// Closes the room of a stream that is over, unless it is on air again.
pub(crate) async fn close(conn: &mut AsyncPgConnection, stream: &StreamEnded) -> QueryResult<()> {
    diesel::update(table::table)
        .filter(table::stream_id.eq(stream.stream_id.0))
        .filter(table::broadcast_id.le(stream.broadcast_id.0))
        .set((table::broadcast_id.eq(stream.broadcast_id.0), table::closed_at.eq(stream.ended_at)))
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets the room of a stream that is no more, with all that was said in it, and returns which that was.
///
/// Told of twice, a stream is deleted once.
pub(crate) async fn delete(conn: &mut AsyncPgConnection, stream_id: StreamId) -> QueryResult<Option<RoomId>> {
    diesel::insert_into(deleted_streams::table)
        .values(deleted_streams::stream_id.eq(stream_id.0))
        .on_conflict_do_nothing()
        .execute(conn)
        .await?;
    let of_stream = table::table.filter(table::stream_id.eq(stream_id.0));
    let room: Option<(i64, i64)> =
        of_stream.select((table::room_id, table::last_seq)).for_update().first(conn).await.optional()?;
    let Some((room_id, last_seq)) = room else { return Ok(None) };
    for first in (1..=last_seq).step_by(AT_ONCE) {
        let some = messages::seq.between(first, first + AT_ONCE as i64 - 1);
        diesel::delete(messages::table.filter(messages::room_id.eq(room_id)).filter(some)).execute(conn).await?;
    }
    diesel::delete(table::table.find(room_id)).execute(conn).await?;
    Ok(Some(RoomId(room_id)))
}

/// The stream's room, if it has one; the user is a member from now on.
pub(crate) async fn enter(
    conn: &mut AsyncPgConnection,
    stream_id: StreamId,
    user_id: UserId,
    now: DateTime<Utc>,
) -> QueryResult<Option<Room>> {
    let known = rooms::find_for_member(conn, RoomRef::Stream(stream_id), user_id).await?;
    if known.is_some() {
        return Ok(known);
    }
    let Some(room) = rooms::find_of_stream(conn, stream_id).await? else { return Ok(None) };
    members::insert(conn, room.id, &[user_id], MemberRole::Member, now).await?;
    Ok(Some(room))
}
