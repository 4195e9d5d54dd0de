//! Rooms.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use common::{ConversationId, Page, PageQuery, RoomId, StreamId, UserId};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{self, Array, BigInt, Nullable};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl};
use prepared::statement;
use uuid::Uuid;

use crate::domain::{Kind, Place, Room, RoomCode};
use crate::session::RoomRef;
use crate::store::members::room_members;

diesel::table! {
    rooms (room_id) {
        room_id -> BigInt,
        conversation_id -> Uuid,
        kind -> Text,
        room_code -> Nullable<Varchar>,
        room_name -> Varchar,
        avatar_url -> Nullable<Text>,
        direct_of -> Nullable<Text>,
        stream_id -> Nullable<BigInt>,
        broadcast_id -> Nullable<BigInt>,
        closed_at -> Nullable<Timestamptz>,
        is_public -> Bool,
        last_seq -> BigInt,
        room_created_by -> Nullable<Uuid>,
        room_created_at -> Timestamptz,
        room_updated_at -> Timestamptz,
    }
}

diesel::joinable!(room_members -> rooms (room_id));
diesel::allow_tables_to_appear_in_same_query!(rooms, room_members);

/// How often another code is tried when one is taken: with 31^6 of them once is enough.
const TRIES: usize = 5;

#[derive(Queryable, Selectable)]
#[diesel(table_name = rooms)]
struct RoomRow {
    room_id: i64,
    conversation_id: Uuid,
    kind: String,
    room_code: Option<String>,
    room_name: String,
    avatar_url: Option<String>,
    stream_id: Option<i64>,
    is_public: bool,
    last_seq: i64,
    room_created_by: Option<Uuid>,
    room_created_at: DateTime<Utc>,
    room_updated_at: DateTime<Utc>,
}

impl From<RoomRow> for Room {
    fn from(row: RoomRow) -> Self {
        Self {
            id: RoomId(row.room_id),
            conversation_id: ConversationId(row.conversation_id),
            kind: Kind::of(&row.kind),
            code: row.room_code.map(RoomCode::stored),
            name: row.room_name,
            avatar_url: row.avatar_url,
            stream_id: row.stream_id.map(StreamId),
            is_public: row.is_public,
            last_seq: row.last_seq,
            created_by: row.room_created_by.map(UserId),
            created_at: row.room_created_at,
            updated_at: row.room_updated_at,
        }
    }
}

/// A new group, with a code of its own.
pub(crate) async fn insert_group(
    conn: &mut AsyncPgConnection,
    name: &str,
    is_public: bool,
    creator: UserId,
    now: DateTime<Utc>,
) -> QueryResult<Room> {
    let mut tries = 1;
    loop {
        let code = RoomCode::random();
        // A transaction of its own, as a failure would end the caller's.
        let inserted = conn
            .transaction(async |conn| {
                diesel::insert_into(rooms::table)
                    .values((
                        rooms::conversation_id.eq(ConversationId::new().0),
                        rooms::kind.eq(Kind::Group.as_str()),
                        rooms::room_code.eq(code.as_str()),
                        rooms::room_name.eq(name),
                        rooms::is_public.eq(is_public),
                        rooms::room_created_by.eq(creator.0),
                        rooms::room_created_at.eq(now),
                        rooms::room_updated_at.eq(now),
                    ))
                    .returning(RoomRow::as_returning())
                    .get_result::<RoomRow>(conn)
                    .await
            })
            .await;
        match inserted {
            Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, info))
                if tries < TRIES && info.constraint_name() == Some("rooms_room_code_key") =>
            {
                tries += 1;
            }
            other => return other.map(Room::from),
        }
    }
}

/// The room of these two, and whether it is new. Of two who make it at once, one does.
pub(crate) async fn insert_direct(
    conn: &mut AsyncPgConnection,
    creator: UserId,
    other: UserId,
    now: DateTime<Utc>,
) -> QueryResult<(Room, bool)> {
    let direct_of = format!("{}:{}", creator.min(other), creator.max(other));
    let inserted: Option<RoomRow> = diesel::insert_into(rooms::table)
        .values((
            rooms::conversation_id.eq(ConversationId::new().0),
            rooms::kind.eq(Kind::Direct.as_str()),
            rooms::direct_of.eq(&direct_of),
            rooms::room_created_by.eq(creator.0),
            rooms::room_created_at.eq(now),
            rooms::room_updated_at.eq(now),
        ))
        .on_conflict(rooms::direct_of)
        .do_nothing()
        .returning(RoomRow::as_returning())
        .get_result(conn)
        .await
        .optional()?;
    if let Some(row) = inserted {
        return Ok((row.into(), true));
    }
    let row: RoomRow =
        rooms::table.filter(rooms::direct_of.eq(&direct_of)).select(RoomRow::as_select()).first(conn).await?;
    Ok((row.into(), false))
}

pub(crate) async fn find(conn: &mut AsyncPgConnection, id: RoomId) -> QueryResult<Option<Room>> {
    let row: Option<RoomRow> = rooms::table.find(id.0).select(RoomRow::as_select()).first(conn).await.optional()?;
    Ok(row.map(Room::from))
}

pub(crate) async fn find_by_code(conn: &mut AsyncPgConnection, code: &RoomCode) -> QueryResult<Option<Room>> {
    let row: Option<RoomRow> = rooms::table
        .filter(rooms::room_code.eq(code.as_str()))
        .select(RoomRow::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(Room::from))
}

pub(crate) async fn find_of_stream(conn: &mut AsyncPgConnection, stream_id: StreamId) -> QueryResult<Option<Room>> {
    let of_stream = rooms::table.filter(rooms::stream_id.eq(stream_id.0));
    let row: Option<RoomRow> = of_stream.select(RoomRow::as_select()).first(conn).await.optional()?;
    Ok(row.map(Room::from))
}

/// The room, if the user is a member of it.
pub(crate) async fn find_for_member(
    conn: &mut AsyncPgConnection,
    room: RoomRef,
    user_id: UserId,
) -> QueryResult<Option<Room>> {
    let query = rooms::table
        .inner_join(room_members::table)
        .filter(room_members::user_uuid.eq(user_id.0))
        .select(RoomRow::as_select())
        .into_boxed();
    let query = match room {
        RoomRef::Id(id) => query.filter(rooms::room_id.eq(id.0)),
        RoomRef::Conversation(id) => query.filter(rooms::conversation_id.eq(id.0)),
        RoomRef::Stream(id) => query.filter(rooms::stream_id.eq(id.0)),
    };
    let row: Option<RoomRow> = query.first(conn).await.optional()?;
    Ok(row.map(Room::from))
}

/// The rooms of these kinds that the user is a member of, those first where something was said last.
pub(crate) async fn page_of(
    conn: &mut AsyncPgConnection,
    user_id: UserId,
    kinds: &[Kind],
    query: PageQuery,
) -> QueryResult<Page<Room>> {
    let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
    let of_user = || {
        let of_kinds = rooms::table.inner_join(room_members::table).filter(rooms::kind.eq_any(kinds.clone()));
        of_kinds.filter(room_members::user_uuid.eq(user_id.0))
    };
    let total = of_user().count().get_result(conn).await?;
    let rows: Vec<RoomRow> = of_user()
        .order((rooms::room_updated_at.desc(), rooms::room_id.desc()))
        .limit(i64::from(query.limit))
        .offset(query.offset())
        .select(RoomRow::as_select())
        .load(conn)
        .await?;
    Ok(Page::new(rows.into_iter().map(Room::from).collect(), query, total))
}

/// At most `most` conversations of the user, those first where something was said last.
pub(crate) async fn newest_conversations(
    conn: &mut AsyncPgConnection,
    user_id: UserId,
    most: i64,
) -> QueryResult<Vec<Place>> {
    let rows: Vec<(i64, Uuid)> = rooms::table
        .inner_join(room_members::table)
        .filter(room_members::user_uuid.eq(user_id.0))
        .filter(rooms::kind.ne(Kind::Stream.as_str()))
        .order((rooms::room_updated_at.desc(), rooms::room_id.desc()))
        .limit(most)
        .select((rooms::room_id, rooms::conversation_id))
        .load(conn)
        .await?;
    let places = rows.into_iter().map(|(room_id, conversation_id)| Place {
        room_id: RoomId(room_id),
        conversation_id: ConversationId(conversation_id),
        stream_id: None,
    });
    Ok(places.collect())
}

/// A room, and how far it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) place: Place,
    /// The number of its last message.
    pub(crate) last_seq: i64,
}

#[derive(QueryableByName)]
struct StandingRow {
    #[diesel(sql_type = BigInt)]
    room_id: i64,
    #[diesel(sql_type = sql_types::Uuid)]
    user_uuid: Uuid,
    #[diesel(sql_type = sql_types::Uuid)]
    conversation_id: Uuid,
    #[diesel(sql_type = Nullable<BigInt>)]
    stream_id: Option<i64>,
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
}

/// Those of `rooms` that the user at the same place in `users` is a member of.
pub(crate) async fn standings(
    conn: &mut AsyncPgConnection,
    rooms: &[i64],
    users: &[Uuid],
) -> QueryResult<HashMap<(RoomId, UserId), Standing>> {
    let rows: Vec<StandingRow> = statement(
        "SELECT r.room_id, m.user_uuid, r.conversation_id, r.stream_id, r.last_seq
         FROM unnest($1::bigint[], $2::uuid[]) AS asked (room_id, user_uuid)
         JOIN room_members m USING (room_id, user_uuid) JOIN rooms r USING (room_id)",
    )
    .bind::<Array<BigInt>, _>(rooms)
    .bind::<Array<sql_types::Uuid>, _>(users)
    .load(conn)
    .await?;
    let standings = rows.into_iter().map(|row| {
        let place = Place {
            room_id: RoomId(row.room_id),
            conversation_id: ConversationId(row.conversation_id),
            stream_id: row.stream_id.map(StreamId),
        };
        ((place.room_id, UserId(row.user_uuid)), Standing { place, last_seq: row.last_seq })
    });
    Ok(standings.collect())
}

/// The number of the last message of each of these rooms.
pub(crate) async fn last_seqs(conn: &mut AsyncPgConnection, ids: &[i64]) -> QueryResult<HashMap<RoomId, i64>> {
    let rows: Vec<(i64, i64)> =
        rooms::table.filter(rooms::room_id.eq_any(ids)).select((rooms::room_id, rooms::last_seq)).load(conn).await?;
    Ok(rows.into_iter().map(|(id, seq)| (RoomId(id), seq)).collect())
}
