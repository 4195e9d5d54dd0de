//! Rooms and who is in them.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use backplane::Pace;
use chrono::{DateTime, Utc};
use common::{Caller, ConversationId, Invalid, Json, Page, PageQuery, RoomId, StreamId, UserId};
use diesel_async::AsyncConnection as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::App;
use crate::domain::{Kind, MemberRole, Room, RoomCode, room_name};
use crate::error::ChatError;
use crate::event::Event;
use crate::session::RoomRef;
use crate::store::members::{self, Member};
use crate::store::rooms;

/// All that a list of rooms has.
const KINDS: [Kind; 3] = [Kind::Group, Kind::Direct, Kind::Stream];
/// Codes that were typed wrong: a few are mistakes, more are guesses.
const GUESSES: Pace = Pace {
    free: 10,
    first: Duration::from_secs(2),
    longest: Duration::from_secs(60),
    forget: Duration::from_secs(600),
};

/// A room to be made.
#[derive(Deserialize, ToSchema)]
pub(crate) struct CreateRoom {
    #[serde(alias = "roomName", alias = "name")]
    #[schema(max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", example = "Cooking with Ana")]
    room_name: Option<String>,
    /// Whether everybody may join it by its id. Default: no, it takes the code.
    #[serde(default, alias = "roomIsPublic", alias = "is_public")]
    room_is_public: bool,
}

/// What one joins a room with.
#[derive(Deserialize, ToSchema)]
pub(crate) struct JoinByCode {
    #[serde(alias = "roomCode", alias = "code")]
    #[schema(example = "K7WXQ2")]
    room_code: String,
}

/// Which page of a list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WhichPage {
    /// Which page, from 1. Default 1, at most 10,000.
    #[param(minimum = 1, maximum = 10_000)]
    pub(super) page: Option<u32>,
    /// How many items a page has. Default 20, at most 100.
    #[param(minimum = 1, maximum = 100)]
    pub(super) limit: Option<u32>,
}

/// A room, as its members see it.
#[derive(Serialize, ToSchema)]
pub(crate) struct RoomView {
    room_id: RoomId,
    /// What the room is called where rooms are conversations.
    conversation_id: ConversationId,
    kind: Kind,
    /// What others join with; null for rooms that are not joined.
    #[schema(required)]
    room_code: Option<String>,
    room_name: String,
    #[schema(required)]
    avatar_url: Option<String>,
    room_is_direct_chat: bool,
    /// Whether everybody may join it by its id.
    room_is_public: bool,
    /// The stream whose chat it is.
    #[schema(required)]
    stream_id: Option<StreamId>,
    /// The number of its last message; 0: nothing was said.
    last_seq: i64,
    #[schema(required)]
    room_created_by: Option<UserId>,
    room_created_at: DateTime<Utc>,
    room_updated_at: DateTime<Utc>,
}

impl From<Room> for RoomView {
    fn from(room: Room) -> Self {
        Self {
            room_id: room.id,
            conversation_id: room.conversation_id,
            kind: room.kind,
            room_code: room.code.map(|code| code.as_str().to_owned()),
            room_name: room.name,
            avatar_url: room.avatar_url,
            room_is_direct_chat: room.kind == Kind::Direct,
            room_is_public: room.is_public,
            stream_id: room.stream_id,
            last_seq: room.last_seq,
            room_created_by: room.created_by,
            room_created_at: room.created_at,
            room_updated_at: room.updated_at,
        }
    }
}

/// A member of a room.
#[derive(Serialize, ToSchema)]
pub(crate) struct MemberView {
    user_uuid: UserId,
    /// Once it is known here.
    #[schema(required)]
    user_fullname: Option<String>,
    member_role: MemberRole,
    room_member_created_at: DateTime<Utc>,
}

impl From<Member> for MemberView {
    fn from(member: Member) -> Self {
        Self {
            user_uuid: member.user_id,
            user_fullname: member.user_name,
            member_role: member.role,
            room_member_created_at: member.joined_at,
        }
    }
}

/// Who has a room open.
#[derive(Serialize, ToSchema)]
pub(crate) struct RoomStatus {
    room_id: RoomId,
    /// How many users have it open.
    online_count: usize,
    online_users: Vec<UserId>,
    last_seq: i64,
}

/// List the rooms that you are a member of, those first where something was said last.
#[utoipa::path(
    get,
    path = "/api/v1/rooms",
    tag = "rooms",
    security(("cookie" = []), ("bearer" = [])),
    params(WhichPage),
    responses(
        (status = 200, description = "A page of rooms", body = Page<RoomView>),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "chat.room.list", skip_all)]
pub(crate) async fn list(
    app: web::Data<App>,
    caller: Caller,
    query: web::Query<WhichPage>,
) -> Result<web::Json<Page<RoomView>>, ChatError> {
    let query = PageQuery::of(query.page, query.limit)?;
    let page = rooms::page_of(&mut *app.pool.get().await?, caller.user_id, &KINDS, query).await?;
    Ok(web::Json(page.map(RoomView::from)))
}

/// Make a room, with a code that others join with.
#[utoipa::path(
    post,
    path = "/api/v1/rooms",
    tag = "rooms",
    security(("cookie" = []), ("bearer" = [])),
    request_body = CreateRoom,
    responses(
        (status = 201, description = "Made; you are its owner", body = RoomView),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "chat.room.create", skip_all)]
pub(crate) async fn create(
    app: web::Data<App>,
    caller: Caller,
    body: Json<CreateRoom>,
) -> Result<HttpResponse, ChatError> {
    let CreateRoom { room_name: name, room_is_public: is_public } = body.into_inner();
    let name = room_name("room_name", name)?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    let room = conn
        .transaction(async |conn| {
            let room = rooms::insert_group(conn, &name, is_public, caller.user_id, now).await?;
            members::insert(conn, room.id, &[caller.user_id], MemberRole::Owner, now).await?;
            Ok::<_, ChatError>(room)
        })
        .await?;
    drop(conn);
    app.hub.enter(room.id, caller.user_id).await;
    Ok(HttpResponse::Created().json(RoomView::from(room)))
}

/// Join the room that has this code. Joining twice is fine.
#[utoipa::path(
    post,
    path = "/api/v1/rooms/join-by-code",
    tag = "rooms",
    security(("cookie" = []), ("bearer" = [])),
    request_body = JoinByCode,
    responses(
        (status = 200, description = "You are a member", body = RoomView),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 404, description = "`no-such-code`"),
        (status = 422, description = "`invalid-fields`"),
        (status = 429, description = "`too-fast`: too many codes that do not exist"),
    )
)]
#[tracing::instrument(name = "chat.room.join_by_code", skip_all)]
pub(crate) async fn join_by_code(
    app: web::Data<App>,
    caller: Caller,
    body: Json<JoinByCode>,
) -> Result<web::Json<RoomView>, ChatError> {
    let Some(code) = RoomCode::parse(&body.room_code) else {
        let mut invalid = Invalid::default();
        invalid.field("room_code", "has 6 letters and digits, without 0, O, 1, I and L");
        invalid.or(())?;
        return Err(ChatError::NoSuchCode);
    };
    // Without the backplane guesses are slowed by the gateway's rates alone.
    let guesses = format!("chat:codes:{}", caller.user_id);
    if let Ok(Some(wait)) = app.backplane.attempt(&[(guesses.clone(), GUESSES)]).await {
        return Err(ChatError::TooFast(wait));
    }
    let room = rooms::find_by_code(&mut *app.pool.get().await?, &code).await?.ok_or(ChatError::NoSuchCode)?;
    let _ = app.backplane.take_back(&guesses).await; // It was no guess.
    enter(&app, &room, caller.user_id).await?;
    Ok(web::Json(room.into()))
}

/// Join a public group, or the chat of a stream, by its id; or come back to any group that you have left. Joining twice is
/// fine.
///
/// Ids follow each other, so any other group is joined with its code only: to whoever was never in it, it is not there.
#[utoipa::path(
    post,
    path = "/api/v1/rooms/{room_id}/join",
    tag = "rooms",
    security(("cookie" = []), ("bearer" = [])),
    params(("room_id" = RoomId, Path)),
    responses(
        (status = 200, description = "You are a member", body = RoomView),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 404, description = "`no-such-room`"),
        (status = 409, description = "`not-a-group`"),
    )
)]
#[tracing::instrument(name = "chat.room.join", skip_all, fields(room.id = %room_id))]
pub(crate) async fn join(
    app: web::Data<App>,
    caller: Caller,
    room_id: web::Path<RoomId>,
) -> Result<web::Json<RoomView>, ChatError> {
    let mut conn = app.pool.get().await?;
    let room = rooms::find(&mut conn, *room_id).await?.ok_or(ChatError::NotJoinedById(*room_id))?;
    if !room.is_public && !members::has_been(&mut conn, room.id, caller.user_id).await? {
        return Err(ChatError::NotJoinedById(room.id));
    }
    drop(conn);
    enter(&app, &room, caller.user_id).await?;
    Ok(web::Json(room.into()))
}

async fn enter(app: &App, room: &Room, user_id: UserId) -> Result<(), ChatError> {
    if room.kind == Kind::Direct {
        return Err(ChatError::NotAGroup(room.id));
    }
    let mut conn = app.pool.get().await?;
    let new = members::insert(&mut conn, room.id, &[user_id], MemberRole::Member, app.clock.now()).await?;
    drop(conn);
    // The chat of a stream is no conversation.
    for user_id in new.into_iter().filter(|_| room.kind != Kind::Stream) {
        app.hub.enter(room.id, user_id).await;
    }
    Ok(())
}

/// Leave a room: its messages reach you no more.
#[utoipa::path(
    post,
    path = "/api/v1/rooms/{room_id}/leave",
    tag = "rooms",
    security(("cookie" = []), ("bearer" = [])),
    params(("room_id" = RoomId, Path)),
    responses(
        (status = 204, description = "You are no member any more"),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 404, description = "`no-such-room`"),
        (status = 409, description = "`not-a-group`"),
    )
)]
#[tracing::instrument(name = "chat.room.leave", skip_all, fields(room.id = %room_id))]
pub(crate) async fn leave(
    app: web::Data<App>,
    caller: Caller,
    room_id: web::Path<RoomId>,
) -> Result<HttpResponse, ChatError> {
    let mut conn = app.pool.get().await?;
    let room = rooms::find_for_member(&mut conn, RoomRef::Id(*room_id), caller.user_id).await?;
    if room.ok_or(ChatError::NoSuchRoom(*room_id))?.kind == Kind::Direct {
        return Err(ChatError::NotAGroup(*room_id));
    }
    members::leave(&mut conn, *room_id, caller.user_id).await?;
    app.hub.tell(*room_id, Event::Removed { user_id: caller.user_id }).await;
    Ok(HttpResponse::NoContent().finish())
}

/// Who is a member of a room, in the order that they joined. Its members only.
#[utoipa::path(
    get,
    path = "/api/v1/rooms/{room_id}/members",
    tag = "rooms",
    security(("cookie" = []), ("bearer" = [])),
    params(("room_id" = RoomId, Path), WhichPage),
    responses(
        (status = 200, description = "A page of members", body = Page<MemberView>),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 404, description = "`no-such-room`"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "chat.room.members", skip_all, fields(room.id = %room_id))]
pub(crate) async fn members(
    app: web::Data<App>,
    caller: Caller,
    room_id: web::Path<RoomId>,
    query: web::Query<WhichPage>,
) -> Result<web::Json<Page<MemberView>>, ChatError> {
    let query = PageQuery::of(query.page, query.limit)?;
    let mut conn = app.pool.get().await?;
    let room = rooms::find_for_member(&mut conn, RoomRef::Id(*room_id), caller.user_id).await?;
    let room = room.ok_or(ChatError::NoSuchRoom(*room_id))?;
    let page = members::page(&mut conn, room.id, query).await?;
    Ok(web::Json(page.map(MemberView::from)))
}

/// Who has a room open now. Its members only.
#[utoipa::path(
    get,
    path = "/api/v1/chat/rooms/{room_id}/status",
    tag = "rooms",
    security(("cookie" = []), ("bearer" = [])),
    params(("room_id" = RoomId, Path)),
    responses(
        (status = 200, description = "Who has it open", body = RoomStatus),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 404, description = "`no-such-room`"),
    )
)]
#[tracing::instrument(name = "chat.room.status", skip_all, fields(room.id = %room_id))]
pub(crate) async fn status(
    app: web::Data<App>,
    caller: Caller,
    room_id: web::Path<RoomId>,
) -> Result<web::Json<RoomStatus>, ChatError> {
    let room = rooms::find_for_member(&mut *app.pool.get().await?, RoomRef::Id(*room_id), caller.user_id).await?;
    let room = room.ok_or(ChatError::NoSuchRoom(*room_id))?;
    let online_users = app.hub.present(room.id).await;
    Ok(web::Json(RoomStatus {
        room_id: room.id,
        online_count: online_users.len(),
        online_users: online_users.into_iter().collect(),
        last_seq: room.last_seq,
    }))
}
