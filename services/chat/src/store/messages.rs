//! Messages. Within a room they are numbered without gaps, in the order of their commits.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use common::{ConversationId, MessageId, RoomId, UserId};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use prepared::statement;
use uuid::Uuid;

use crate::domain::{ContentKind, Emails, Message};

diesel::table! {
    messages (message_id) {
        message_id -> BigInt,
        room_id -> BigInt,
        seq -> BigInt,
        user_uuid -> Uuid,
        kind -> Text,
        content -> Text,
        file_url -> Nullable<Text>,
        client_message_id -> Nullable<Varchar>,
        message_created_at -> Timestamptz,
    }
}

#[derive(QueryableByName)]
struct MessageRow {
    #[diesel(sql_type = BigInt)]
    message_id: i64,
    #[diesel(sql_type = BigInt)]
    room_id: i64,
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    conversation_id: Uuid,
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    user_uuid: Uuid,
    #[diesel(sql_type = Nullable<Text>)]
    full_name: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    email: Option<String>,
    #[diesel(sql_type = Bool)]
    is_of_stream: bool,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    content: String,
    #[diesel(sql_type = Nullable<Text>)]
    file_url: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    client_message_id: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    message_created_at: DateTime<Utc>,
}

impl MessageRow {
    fn into_message(self, emails: Emails) -> Message {
        Message {
            id: MessageId(self.message_id),
            room_id: RoomId(self.room_id),
            conversation_id: ConversationId(self.conversation_id),
            seq: self.seq,
            user_id: UserId(self.user_uuid),
            user_name: self.full_name,
            user_email: emails.seen_in(self.is_of_stream, self.email),
            kind: ContentKind::of(&self.kind),
            content: self.content,
            file_url: self.file_url,
            client_message_id: self.client_message_id,
            created_at: self.message_created_at,
        }
    }
}

/// A statement that answers with [`MessageRow`]s, of tables that it calls `m`, `r` and `u`.
macro_rules! of_messages {
    ($from:literal) => {
        statement(concat!(
            "SELECT m.message_id, m.room_id, r.conversation_id, m.seq, m.user_uuid, u.full_name, u.email,
                    r.stream_id IS NOT NULL AS is_of_stream, m.kind, m.content, m.file_url, m.client_message_id,
                    m.message_created_at ",
            $from
        ))
    };
}

/// At most `most` messages of the room with numbers above `after`, the oldest first.
pub(crate) async fn after(
    conn: &mut AsyncPgConnection,
    room_id: RoomId,
    after: i64,
    most: i64,
    emails: Emails,
) -> QueryResult<Vec<Message>> {
    let rows: Vec<MessageRow> = of_messages!(
        "FROM messages m JOIN rooms r USING (room_id) LEFT JOIN users u ON u.user_id = m.user_uuid
         WHERE m.room_id = $1 AND m.seq > $2 ORDER BY m.seq LIMIT $3"
    )
    .bind::<BigInt, _>(room_id.0)
    .bind::<BigInt, _>(after)
    .bind::<BigInt, _>(most)
    .load(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.into_message(emails)).collect())
}

/// The newest message of each of these rooms, without the addresses of who wrote them.
pub(crate) async fn newest(conn: &mut AsyncPgConnection, rooms: &[i64]) -> QueryResult<HashMap<RoomId, Message>> {
    let rows: Vec<MessageRow> = of_messages!(
        "FROM rooms r
         JOIN messages m ON m.room_id = r.room_id AND m.seq = r.last_seq LEFT JOIN users u ON u.user_id = m.user_uuid
         WHERE r.room_id = ANY($1)"
    )
    .bind::<Array<BigInt>, _>(rooms)
    .load(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (RoomId(row.room_id), row.into_message(Emails::Hidden))).collect())
}

/// The number within its room of this message.
pub(crate) async fn seq_of(conn: &mut AsyncPgConnection, room_id: RoomId, id: MessageId) -> QueryResult<Option<i64>> {
    messages::table
        .filter(messages::message_id.eq(id.0))
        .filter(messages::room_id.eq(room_id.0))
        .select(messages::seq)
        .first(conn)
        .await
        .optional()
}

/// A room, as far as writing into it needs it; held until the transaction ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Locked {
    pub(crate) conversation_id: ConversationId,
    pub(crate) last_seq: i64,
    /// Nothing is said in it any more.
    pub(crate) is_closed: bool,
    /// Whether it is the chat of a stream.
    pub(crate) is_of_stream: bool,
}

/// Holds these rooms. In the order of their ids, so that two that hold several never wait for each other.
pub(crate) async fn lock_rooms(conn: &mut AsyncPgConnection, ids: &[i64]) -> QueryResult<HashMap<RoomId, Locked>> {
    use crate::store::rooms::rooms;
    type Row = (i64, Uuid, i64, bool, bool);
    let rows: Vec<Row> = rooms::table
        .filter(rooms::room_id.eq_any(ids))
        .order(rooms::room_id)
        .select((
            rooms::room_id,
            rooms::conversation_id,
            rooms::last_seq,
            rooms::closed_at.is_not_null(),
            rooms::stream_id.is_not_null(),
        ))
        .for_update()
        .load(conn)
        .await?;
    let locked = rows.into_iter().map(|(id, conversation, last_seq, is_closed, is_of_stream)| {
        (RoomId(id), Locked { conversation_id: ConversationId(conversation), last_seq, is_closed, is_of_stream })
    });
    Ok(locked.collect())
}

#[derive(QueryableByName)]
struct MemberRow {
    #[diesel(sql_type = BigInt)]
    room_id: i64,
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    user_uuid: Uuid,
    #[diesel(sql_type = Nullable<Text>)]
    full_name: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    email: Option<String>,
}

/// A member, as auth has told of the user.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) name: Option<String>,
    pub(crate) email: Option<String>,
}

/// Which of these are members of the room beside them.
pub(crate) async fn find_members(
    mut conn: &AsyncPgConnection,
    pairs: &HashSet<(RoomId, UserId)>,
) -> QueryResult<HashMap<(RoomId, UserId), Known>> {
    let (rooms, users): (Vec<i64>, Vec<Uuid>) = pairs.iter().map(|(room, user)| (room.0, user.0)).unzip();
    let rows: Vec<MemberRow> = statement(
        "SELECT m.room_id, m.user_uuid, u.full_name, u.email
         FROM unnest($1::bigint[], $2::uuid[]) AS asked (room_id, user_uuid)
         JOIN room_members m USING (room_id, user_uuid) LEFT JOIN users u ON u.user_id = m.user_uuid",
    )
    .bind::<Array<BigInt>, _>(rooms)
    .bind::<Array<diesel::sql_types::Uuid>, _>(users)
    .load(&mut conn)
    .await?;
    let members = rows.into_iter().map(|row| {
        let known = Known { name: row.full_name, email: row.email };
        ((RoomId(row.room_id), UserId(row.user_uuid)), known)
    });
    Ok(members.collect())
}

/// A message's own name: of which room, by whom, and what the sender calls it.
pub(crate) type OwnName = (RoomId, UserId, String);

/// Messages that were sent before under these names.
pub(crate) async fn find_sent(
    mut conn: &AsyncPgConnection,
    names: &[OwnName],
    emails: Emails,
) -> QueryResult<HashMap<OwnName, Message>> {
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<MessageRow> = of_messages!(
        "FROM unnest($1::bigint[], $2::uuid[], $3::text[]) AS asked (room_id, user_uuid, client_message_id)
         JOIN messages m USING (room_id, user_uuid, client_message_id)
         JOIN rooms r USING (room_id) LEFT JOIN users u ON u.user_id = m.user_uuid"
    )
    .bind::<Array<BigInt>, _>(names.iter().map(|(room, ..)| room.0).collect::<Vec<_>>())
    .bind::<Array<diesel::sql_types::Uuid>, _>(names.iter().map(|(_, user, _)| user.0).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(names.iter().map(|(.., name)| name).collect::<Vec<_>>())
    .load(&mut conn)
    .await?;
    let sent = rows.into_iter().filter_map(|row| {
        let message = row.into_message(emails);
        Some(((message.room_id, message.user_id, message.client_message_id.clone()?), message))
    });
    Ok(sent.collect())
}

#[derive(QueryableByName)]
struct NewId {
    #[diesel(sql_type = BigInt)]
    message_id: i64,
    #[diesel(sql_type = BigInt)]
    room_id: i64,
    #[diesel(sql_type = BigInt)]
    seq: i64,
}

/// Stores messages, whose rooms are held, and gives them their ids. Their numbers follow those of their rooms.
pub(crate) async fn insert(conn: &mut AsyncPgConnection, new: &mut [Message], now: DateTime<Utc>) -> QueryResult<()> {
    let ids: Vec<NewId> = statement(
        "WITH new AS (
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[])
                 WITH ORDINALITY AS new (room_id, seq, user_uuid, kind, content, file_url, client_message_id, place)
         ), counted AS (
             UPDATE rooms SET last_seq = last, room_updated_at = $8
             FROM (SELECT room_id, max(seq) AS last FROM new GROUP BY room_id) AS last WHERE rooms.room_id = last.room_id
         )
         INSERT INTO messages
             (room_id, seq, user_uuid, kind, content, file_url, client_message_id, message_created_at)
         SELECT room_id, seq, user_uuid, kind, content, file_url, client_message_id, $8 FROM new ORDER BY place
         RETURNING message_id, room_id, seq",
    )
    .bind::<Array<BigInt>, _>(new.iter().map(|message| message.room_id.0).collect::<Vec<_>>())
    .bind::<Array<BigInt>, _>(new.iter().map(|message| message.seq).collect::<Vec<_>>())
    .bind::<Array<diesel::sql_types::Uuid>, _>(new.iter().map(|message| message.user_id.0).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(new.iter().map(|message| message.kind.as_str()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(new.iter().map(|message| &*message.content).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(new.iter().map(|message| message.file_url.as_deref()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(new.iter().map(|message| message.client_message_id.as_deref()).collect::<Vec<_>>())
    .bind::<Timestamptz, _>(now)
    .load(conn)
    .await?;
    let ids: HashMap<_, _> = ids.into_iter().map(|row| ((row.room_id, row.seq), row.message_id)).collect();
    for message in new {
        message.id = MessageId(ids.get(&(message.room_id.0, message.seq)).copied().unwrap_or_default());
    }
    Ok(())
}
