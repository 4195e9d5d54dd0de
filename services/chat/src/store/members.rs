//! Who is a member of which room.

use chrono::{DateTime, Utc};
use common::{Page, PageQuery, RoomId, UserId};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::domain::MemberRole;
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

diesel::allow_tables_to_appear_in_same_query!(room_members, users);

/// A member of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) user_id: UserId,
    /// Once auth has told us of the user.
    pub(crate) user_name: Option<String>,
    pub(crate) role: MemberRole,
    pub(crate) joined_at: DateTime<Utc>,
}

/// Makes the user a member. `false`: was one already.
pub(crate) async fn insert(
    conn: &mut AsyncPgConnection,
    room_id: RoomId,
    user_id: UserId,
    role: MemberRole,
    now: DateTime<Utc>,
) -> QueryResult<bool> {
    let inserted = diesel::insert_into(room_members::table)
        .values((
            room_members::room_id.eq(room_id.0),
            room_members::user_uuid.eq(user_id.0),
            room_members::member_role.eq(role.as_str()),
            room_members::room_member_created_at.eq(now),
            room_members::room_member_updated_at.eq(now),
        ))
        .on_conflict_do_nothing()
        .execute(conn)
        .await?;
    Ok(inserted > 0)
}

/// Takes the user out. `false`: was no member.
pub(crate) async fn delete(conn: &mut AsyncPgConnection, room_id: RoomId, user_id: UserId) -> QueryResult<bool> {
    let deleted = diesel::delete(room_members::table.find((room_id.0, user_id.0))).execute(conn).await?;
    Ok(deleted > 0)
}

/// Takes the user out of all rooms, and returns which these were.
pub(crate) async fn delete_all_of(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<Vec<RoomId>> {
    let rooms: Vec<i64> = diesel::delete(room_members::table.filter(room_members::user_uuid.eq(user_id.0)))
        .returning(room_members::room_id)
        .get_results(conn)
        .await?;
    Ok(rooms.into_iter().map(RoomId).collect())
}

/// A page of the room's members, in the order that they joined.
pub(crate) async fn page(conn: &mut AsyncPgConnection, room_id: RoomId, query: PageQuery) -> QueryResult<Page<Member>> {
    type Row = (Uuid, Option<String>, String, DateTime<Utc>);
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
            room_members::room_member_created_at,
        ))
        .load(conn)
        .await?;
    let members = rows.into_iter().map(|(user_id, user_name, role, joined_at)| Member {
        user_id: UserId(user_id),
        user_name,
        role: MemberRole::of(&role),
        joined_at,
    });
    Ok(Page::new(members.collect(), query, total))
}
