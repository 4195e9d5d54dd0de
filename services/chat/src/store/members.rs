//! Who is a member of which room.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use common::{MessageId, Page, PageQuery, RoomId, UserId};
use diesel::dsl::exists;
use diesel::prelude::*;
use diesel::sql_types::{self, Array, BigInt, Integer, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::domain::{Kind, MemberRole};
use crate::store::users::users;

diesel::table! {
    room_members (room_id, user_uuid) {
        room_id -> BigInt,
        user_uuid -> Uuid,
        member_role -> Text,
        last_read_seq -> BigInt,
        last_read_at -> Nullable<Timestamptz>,
        room_member_created_at -> Timestamptz,
        room_member_updated_at -> Timestamptz,
    }
}

diesel::table! {
    former_members (room_id, user_uuid) {
        room_id -> BigInt,
        user_uuid -> Uuid,
    }
}

diesel::allow_tables_to_appear_in_same_query!(room_members, users);

/// A member of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) user_id: UserId,
    /// Once auth has told us of the user.
    pub(crate) user_name: Option<String>,
    pub(crate) role: MemberRole,
    pub(crate) last_read_seq: i64,
    pub(crate) last_read_at: Option<DateTime<Utc>>,
    pub(crate) joined_at: DateTime<Utc>,
}

/// No more unread messages of a room are counted.
pub(crate) const MOST_UNREAD: i64 = 1000;

/// How far a member has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// 0: nothing.
    pub(crate) last_read_seq: i64,
    pub(crate) last_read_at: Option<DateTime<Utc>>,
    /// The message with this number, if there is one.
    pub(crate) last_read_id: Option<MessageId>,
    /// How many messages of others came after, at most [`MOST_UNREAD`].
    pub(crate) unread: i64,
}

/// Makes these users members, who have read what was written before; returns who was none already.
pub(crate) async fn insert(
    conn: &mut AsyncPgConnection,
    room_id: RoomId,
    users: &[UserId],
    role: MemberRole,
    now: DateTime<Utc>,
) -> QueryResult<Vec<UserId>> {
    #[derive(QueryableByName)]
    struct Inserted {
        #[diesel(sql_type = sql_types::Uuid)]
        user_uuid: Uuid,
    }
    let inserted: Vec<Inserted> = diesel::sql_query(
        "INSERT INTO room_members (room_id, user_uuid, member_role, last_read_seq, last_read_at,
                                   room_member_created_at, room_member_updated_at)
         SELECT room_id, user_uuid, $3, last_seq, $4, $4, $4
         FROM rooms CROSS JOIN unnest($2::uuid[]) AS new (user_uuid) WHERE room_id = $1
         ON CONFLICT DO NOTHING RETURNING user_uuid",
    )
    .bind::<BigInt, _>(room_id.0)
    .bind::<Array<sql_types::Uuid>, _>(users.iter().map(|user| user.0).collect::<Vec<_>>())
    .bind::<Text, _>(role.as_str())
    .bind::<Timestamptz, _>(now)
    .load(conn)
    .await?;
    Ok(inserted.into_iter().map(|row| UserId(row.user_uuid)).collect())
}

/// Takes out a user who wants to leave, and may come back.
pub(crate) async fn leave(conn: &mut AsyncPgConnection, room_id: RoomId, user_id: UserId) -> QueryResult<()> {
    diesel::sql_query(
        "WITH gone AS (DELETE FROM room_members WHERE room_id = $1 AND user_uuid = $2 RETURNING room_id, user_uuid)
         INSERT INTO former_members SELECT room_id, user_uuid FROM gone ON CONFLICT DO NOTHING",
    )
    .bind::<BigInt, _>(room_id.0)
    .bind::<sql_types::Uuid, _>(user_id.0)
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether the user is a member, or was one and has left.
pub(crate) async fn has_been(conn: &mut AsyncPgConnection, room_id: RoomId, user_id: UserId) -> QueryResult<bool> {
    let key = (room_id.0, user_id.0);
    let (is, was) = (exists(room_members::table.find(key)), exists(former_members::table.find(key)));
    diesel::select(is.or(was)).get_result(conn).await
}

/// Takes the user out of all rooms, and returns which these were.
pub(crate) async fn delete_all_of(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<Vec<RoomId>> {
    diesel::delete(former_members::table.filter(former_members::user_uuid.eq(user_id.0))).execute(conn).await?;
    let rooms: Vec<i64> = diesel::delete(room_members::table.filter(room_members::user_uuid.eq(user_id.0)))
        .returning(room_members::room_id)
        .get_results(conn)
        .await?;
    Ok(rooms.into_iter().map(RoomId).collect())
}

/// The conversations of these users.
pub(crate) async fn conversations_of(
    conn: &mut AsyncPgConnection,
    users: &[Uuid],
) -> QueryResult<Vec<(UserId, RoomId)>> {
    use crate::store::rooms::rooms;
    let rows: Vec<(Uuid, i64)> = room_members::table
        .inner_join(rooms::table)
        .filter(room_members::user_uuid.eq_any(users))
        .filter(rooms::kind.ne(Kind::Stream.as_str()))
        .select((room_members::user_uuid, room_members::room_id))
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(|(user_id, room_id)| (UserId(user_id), RoomId(room_id))).collect())
}

/// The member has read all up to this number, or to the newest. `false`: had so before.
pub(crate) async fn mark_read(
    conn: &mut AsyncPgConnection,
    room_id: RoomId,
    user_id: UserId,
    seq: Option<i64>,
    now: DateTime<Utc>,
) -> QueryResult<bool> {
    let moved = diesel::sql_query(
        "UPDATE room_members SET last_read_seq = asked.seq, last_read_at = $4, room_member_updated_at = $4
         FROM (SELECT room_id, coalesce($3, last_seq) AS seq FROM rooms WHERE room_id = $1) AS asked
         WHERE room_members.room_id = asked.room_id AND user_uuid = $2 AND last_read_seq < asked.seq",
    )
    .bind::<BigInt, _>(room_id.0)
    .bind::<sql_types::Uuid, _>(user_id.0)
    .bind::<Nullable<BigInt>, _>(seq)
    .bind::<Timestamptz, _>(now)
    .execute(conn)
    .await?;
    Ok(moved > 0)
}

/// How far the user has read in this room; `None`: is no member.
pub(crate) async fn standing(
    conn: &mut AsyncPgConnection,
    room_id: RoomId,
    user_id: UserId,
) -> QueryResult<Option<Standing>> {
    Ok(standings(conn, user_id, &[room_id.0]).await?.remove(&room_id))
}

/// How far the user has read in each of these rooms, where a member.
pub(crate) async fn standings(
    conn: &mut AsyncPgConnection,
    user_id: UserId,
    rooms: &[i64],
) -> QueryResult<HashMap<RoomId, Standing>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        room_id: i64,
        #[diesel(sql_type = BigInt)]
        last_read_seq: i64,
        #[diesel(sql_type = Nullable<Timestamptz>)]
        last_read_at: Option<DateTime<Utc>>,
        #[diesel(sql_type = Nullable<BigInt>)]
        last_read_id: Option<i64>,
        #[diesel(sql_type = BigInt)]
        unread: i64,
    }
    let rows: Vec<Row> = diesel::sql_query(
        "SELECT m.room_id, m.last_read_seq, m.last_read_at, read.message_id AS last_read_id,
                (SELECT count(*) FROM (
                     SELECT FROM messages WHERE room_id = m.room_id AND seq > m.last_read_seq AND user_uuid <> $1 LIMIT $3
                 ) AS unread) AS unread
         FROM room_members m LEFT JOIN messages read ON read.room_id = m.room_id AND read.seq = m.last_read_seq
         WHERE m.user_uuid = $1 AND m.room_id = ANY($2)",
    )
    .bind::<sql_types::Uuid, _>(user_id.0)
    .bind::<Array<BigInt>, _>(rooms)
    .bind::<BigInt, _>(MOST_UNREAD)
    .load(conn)
    .await?;
    let standings = rows.into_iter().map(|row| {
        let Row { room_id, last_read_seq, last_read_at, last_read_id, unread } = row;
        (RoomId(room_id), Standing { last_read_seq, last_read_at, last_read_id: last_read_id.map(MessageId), unread })
    });
    Ok(standings.collect())
}

#[derive(QueryableByName)]
struct MemberRow {
    #[diesel(sql_type = BigInt)]
    room_id: i64,
    #[diesel(sql_type = sql_types::Uuid)]
    user_uuid: Uuid,
    #[diesel(sql_type = Nullable<Text>)]
    full_name: Option<String>,
    #[diesel(sql_type = Text)]
    member_role: String,
    #[diesel(sql_type = BigInt)]
    last_read_seq: i64,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    last_read_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Timestamptz)]
    room_member_created_at: DateTime<Utc>,
    #[diesel(sql_type = BigInt)]
    total: i64,
}

impl From<MemberRow> for Member {
    fn from(row: MemberRow) -> Self {
        Self {
            user_id: UserId(row.user_uuid),
            user_name: row.full_name,
            role: MemberRole::of(&row.member_role),
            last_read_seq: row.last_read_seq,
            last_read_at: row.last_read_at,
            joined_at: row.room_member_created_at,
        }
    }
}

/// The first members of each of these rooms, at most `most`, in the order that they joined; and how many it has.
pub(crate) async fn first(
    conn: &mut AsyncPgConnection,
    rooms: &[i64],
    most: i32,
) -> QueryResult<HashMap<RoomId, (Vec<Member>, i64)>> {
    let rows: Vec<MemberRow> = diesel::sql_query(
        "SELECT first.*, users.full_name, (SELECT count(*) FROM room_members WHERE room_id = first.room_id) AS total
         FROM unnest($1::bigint[]) AS asked (id)
         CROSS JOIN LATERAL (
             SELECT * FROM room_members WHERE room_id = asked.id ORDER BY room_member_created_at, user_uuid LIMIT $2
         ) AS first
         LEFT JOIN users ON users.user_id = first.user_uuid
         ORDER BY first.room_id, first.room_member_created_at, first.user_uuid",
    )
    .bind::<Array<BigInt>, _>(rooms)
    .bind::<Integer, _>(most)
    .load(conn)
    .await?;
    let mut first: HashMap<_, (Vec<_>, i64)> = HashMap::new();
    for row in rows {
        let (members, total) = first.entry(RoomId(row.room_id)).or_default();
        *total = row.total;
        members.push(row.into());
    }
    Ok(first)
}

/// A page of the room's members, in the order that they joined.
pub(crate) async fn page(conn: &mut AsyncPgConnection, room_id: RoomId, query: PageQuery) -> QueryResult<Page<Member>> {
    type Row = (Uuid, Option<String>, String, i64, Option<DateTime<Utc>>, DateTime<Utc>);
    let of_room = || room_members::table.filter(room_members::room_id.eq(room_id.0));
    let total = of_room().count().get_result(conn).await?;
    let rows: Vec<Row> = of_room()
        .left_join(users::table.on(users::user_id.eq(room_members::user_uuid)))
        .order((room_members::room_member_created_at, room_members::user_uuid))
        .limit(i64::from(query.limit))
        .offset(query.offset())
        .select((
            room_members::user_uuid,
            users::full_name.nullable(),
            room_members::member_role,
            room_members::last_read_seq,
            room_members::last_read_at,
            room_members::room_member_created_at,
        ))
        .load(conn)
        .await?;
    let members = rows.into_iter().map(|(user_id, user_name, role, last_read_seq, last_read_at, joined_at)| Member {
        user_id: UserId(user_id),
        user_name,
        role: MemberRole::of(&role),
        last_read_seq,
        last_read_at,
        joined_at,
    });
    Ok(Page::new(members.collect(), query, total))
}
