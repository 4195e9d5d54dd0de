//! Rooms as conversations, as 004 has them: private ones of two users, and groups.

use std::collections::HashMap;

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use common::{Caller, ConversationId, Json, MessageId, Page, PageQuery, RoomId, UserId};
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::App;
use crate::domain::{ContentKind, Kind, MemberRole, Message, RawDraft, Room, room_name};
use crate::error::{ChatError, invalid};
use crate::receipts;
use crate::routes::messages::{self, Found, WhichMessages, created_if};
use crate::routes::rooms::WhichPage;
use crate::session::RoomRef;
use crate::store::members::{self, Member, Standing};
use crate::store::{messages as stored, rooms, users};

/// The most users that a group begins with, with whoever makes it.
const MOST_PARTICIPANTS: usize = 256;
/// How many participants a conversation shows.
const SHOWN: i32 = 10;
/// The chat of a stream is no conversation.
const KINDS: [Kind; 2] = [Kind::Direct, Kind::Group];

/// What a conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ConversationKind {
    Private,
    Group,
}

/// A conversation to begin.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateConversation {
    #[serde(rename = "type")]
    kind: ConversationKind,
    /// The other of a private one.
    #[serde(alias = "user_id")]
    user_id: Option<UserId>,
    /// The others: one of a private conversation, up to 255 of a group.
    #[serde(default, alias = "participant_ids")]
    #[schema(max_items = 255)]
    participant_ids: Vec<UserId>,
    /// Of a group.
    #[schema(max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    name: Option<String>,
}

/// A conversation, as whoever takes part sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConversationView {
    id: ConversationId,
    #[serde(rename = "type")]
    kind: ConversationKind,
    /// Null where it has none: private ones show the other's name.
    #[schema(required)]
    name: Option<String>,
    #[schema(required)]
    avatar_url: Option<String>,
    /// What the conversation is called where it is a room.
    room_id: RoomId,
    /// Up to 10, in the order that they came.
    participants: Vec<ParticipantView>,
    /// How many there are.
    participant_count: i64,
    #[schema(required)]
    last_message: Option<ConversationMessage>,
    /// The number of its last message; 0: nothing was said.
    last_seq: i64,
    /// How many messages of others you have not read, at most 1,000.
    unread_count: i64,
    #[schema(required)]
    last_read_at: Option<DateTime<Utc>>,
    /// The number of the last message that you have read.
    last_read_seq: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// Somebody who takes part.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParticipantView {
    user_id: UserId,
    /// Once it is known here.
    #[schema(required)]
    name: Option<String>,
    role: MemberRole,
    joined_at: DateTime<Utc>,
    #[schema(required)]
    last_read_at: Option<DateTime<Utc>>,
    last_read_seq: i64,
}

impl From<Member> for ParticipantView {
    fn from(member: Member) -> Self {
        let Member { user_id, user_name, role, last_read_seq, last_read_at, joined_at } = member;
        Self { user_id, name: user_name, role, joined_at, last_read_at, last_read_seq }
    }
}

/// A message of a conversation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConversationMessage {
    id: MessageId,
    conversation_id: ConversationId,
    /// Within its conversation, from 1 without gaps.
    seq: i64,
    sender_id: UserId,
    /// Once it is known here.
    #[schema(required)]
    sender_name: Option<String>,
    content: String,
    #[serde(rename = "type")]
    kind: ContentKind,
    #[schema(required)]
    file_url: Option<String>,
    #[schema(required)]
    client_message_id: Option<String>,
    created_at: DateTime<Utc>,
}

impl From<Message> for ConversationMessage {
    fn from(message: Message) -> Self {
        Self {
            id: message.id,
            conversation_id: message.conversation_id,
            seq: message.seq,
            sender_id: message.user_id,
            sender_name: message.user_name,
            content: message.content,
            kind: message.kind,
            file_url: message.file_url,
            client_message_id: message.client_message_id,
            created_at: message.created_at,
        }
    }
}

/// Some messages of a conversation, the oldest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConversationHistory {
    items: Vec<ConversationMessage>,
    limit: u32,
    /// Whether there are older ones than the first of these.
    has_older: bool,
    /// Whether there are newer ones than the last of these.
    has_newer: bool,
    /// How many messages the conversation has.
    total: i64,
}

impl From<Found> for ConversationHistory {
    fn from(found: Found) -> Self {
        let Found { messages, limit, has_older, has_newer, total } = found;
        Self {
            items: messages.into_iter().map(ConversationMessage::from).collect(),
            limit,
            has_older,
            has_newer,
            total,
        }
    }
}

/// A message to be sent.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PostConversationMessage {
    /// May be empty if there is a file. At most 8,000 characters.
    #[serde(default)]
    #[schema(max_length = 8000, pattern = "^[^\\u0000]*$")]
    content: String,
    #[serde(default, rename = "type", alias = "messageType", alias = "message_type")]
    kind: ContentKind,
    #[serde(alias = "file_url")]
    #[schema(max_length = 2048, pattern = "^(https?:/)?/[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    file_url: Option<String>,
    /// Your own name for it: sent twice under the same name, it is one message.
    #[serde(alias = "client_message_id")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[!-~]+$")]
    client_message_id: Option<String>,
}

/// How far you have read.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MarkRead {
    /// All up to this message. Default: the newest.
    #[serde(alias = "message_id")]
    message_id: Option<MessageId>,
}

/// How far you have read.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReadView {
    #[schema(required)]
    last_read_at: Option<DateTime<Utc>>,
    /// The number of the last message that you have read.
    last_read_seq: i64,
    /// How many messages of others you have not read, at most 1,000.
    unread_count: i64,
}

impl From<Standing> for ReadView {
    fn from(standing: Standing) -> Self {
        let Standing { last_read_seq, last_read_at, unread, .. } = standing;
        Self { last_read_at, last_read_seq, unread_count: unread }
    }
}

/// List your conversations, those first where something was said last.
#[utoipa::path(
    get,
    path = "/api/v1/conversations",
    tag = "conversations",
    security(("cookie" = []), ("bearer" = [])),
    params(WhichPage),
    responses(
        (status = 200, description = "A page of conversations", body = Page<ConversationView>),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "chat.conversation.list", skip_all)]
pub(crate) async fn list(
    app: web::Data<App>,
    caller: Caller,
    query: web::Query<WhichPage>,
) -> Result<web::Json<Page<ConversationView>>, ChatError> {
    let query = PageQuery::of(query.page, query.limit)?;
    let mut conn = app.pool.get().await?;
    let Page { items, page, limit, total } = rooms::page_of(&mut conn, caller.user_id, &KINDS, query).await?;
    let items = views(&mut conn, caller.user_id, items).await?;
    Ok(web::Json(Page { items, page, limit, total }))
}

/// Begin a conversation. Two users have one private conversation: whoever begins it again gets the one that there is.
#[utoipa::path(
    post,
    path = "/api/v1/conversations",
    tag = "conversations",
    security(("cookie" = []), ("bearer" = [])),
    request_body = CreateConversation,
    responses(
        (status = 201, description = "Begun", body = ConversationView),
        (status = 200, description = "The private conversation that you had already", body = ConversationView),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 404, description = "`no-such-user`"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "chat.conversation.create", skip_all)]
pub(crate) async fn create(
    app: web::Data<App>,
    caller: Caller,
    body: Json<CreateConversation>,
) -> Result<HttpResponse, ChatError> {
    let CreateConversation { kind, user_id, participant_ids, name } = body.into_inner();
    let mut others: Vec<_> = user_id.into_iter().chain(participant_ids).filter(|id| *id != caller.user_id).collect();
    others.sort_unstable();
    others.dedup();
    if kind == ConversationKind::Private && others.len() != 1 {
        return Err(invalid("userId", "is the one other of a private conversation"));
    }
    if others.len() >= MOST_PARTICIPANTS {
        return Err(invalid("participantIds", format!("at most {MOST_PARTICIPANTS} take part, with you")));
    }
    let name = room_name("name", name)?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    if let Some(unknown) = users::find_unknown(&mut conn, &others).await? {
        return Err(ChatError::NoSuchUser(unknown));
    }
    let (room, is_new) = conn
        .transaction(async |conn| {
            let (room, is_new) = match kind {
                ConversationKind::Private => rooms::insert_direct(conn, caller.user_id, others[0], now).await?,
                ConversationKind::Group => (rooms::insert_group(conn, &name, false, caller.user_id, now).await?, true),
            };
            if is_new {
                members::insert(conn, room.id, &[caller.user_id], MemberRole::Owner, now).await?;
                members::insert(conn, room.id, &others, MemberRole::Member, now).await?;
            }
            Ok::<_, ChatError>((room, is_new))
        })
        .await?;
    let room_id = room.id;
    let view = view(&mut conn, caller.user_id, room).await?;
    drop(conn);
    if is_new {
        for user_id in [caller.user_id].into_iter().chain(others) {
            app.hub.enter(room_id, user_id).await;
        }
    }
    Ok(created_if(is_new).json(view))
}

/// A conversation that you take part in.
#[utoipa::path(
    get,
    path = "/api/v1/conversations/{conversation_id}",
    tag = "conversations",
    security(("cookie" = []), ("bearer" = [])),
    params(("conversation_id" = ConversationId, Path)),
    responses(
        (status = 200, description = "The conversation", body = ConversationView),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 404, description = "`no-such-room`"),
    )
)]
#[tracing::instrument(name = "chat.conversation.show", skip_all, fields(conversation.id = %conversation_id))]
pub(crate) async fn show(
    app: web::Data<App>,
    caller: Caller,
    conversation_id: web::Path<ConversationId>,
) -> Result<web::Json<ConversationView>, ChatError> {
    let mut conn = app.pool.get().await?;
    let room = find(&mut conn, caller.user_id, *conversation_id).await?;
    Ok(web::Json(view(&mut conn, caller.user_id, room).await?))
}

/// Messages of a conversation, the oldest first.
#[utoipa::path(
    get,
    path = "/api/v1/conversations/{conversation_id}/messages",
    tag = "conversations",
    security(("cookie" = []), ("bearer" = [])),
    params(("conversation_id" = ConversationId, Path), WhichMessages),
    responses(
        (status = 200, description = "Messages", body = ConversationHistory),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 404, description = "`no-such-room`"),
        (status = 422, description = "`invalid-fields`: no such page, or no such message in this conversation"),
    )
)]
#[tracing::instrument(name = "chat.conversation.history", skip_all, fields(conversation.id = %conversation_id))]
pub(crate) async fn history(
    app: web::Data<App>,
    caller: Caller,
    conversation_id: web::Path<ConversationId>,
    query: web::Query<WhichMessages>,
) -> Result<web::Json<ConversationHistory>, ChatError> {
    let room = RoomRef::Conversation(*conversation_id);
    Ok(web::Json(messages::find(&app, caller.user_id, room, query.into_inner()).await?.into()))
}

/// Send a message. Answers when it is stored.
///
/// A message is named by `clientMessageId` or by the header `Idempotency-Key`: sent twice under one name it is one message,
/// and the second answer is that of the first, as 200.
#[utoipa::path(
    post,
    path = "/api/v1/conversations/{conversation_id}/messages",
    tag = "conversations",
    security(("cookie" = []), ("bearer" = [])),
    params(
        ("conversation_id" = ConversationId, Path),
        (
            "Idempotency-Key" = Option<String>,
            Header,
            description = "As `clientMessageId`",
            min_length = 1,
            max_length = 64,
            pattern = "^[!-~]+$",
        ),
    ),
    request_body = PostConversationMessage,
    responses(
        (status = 201, description = "Stored", body = ConversationMessage),
        (status = 200, description = "Stored before, under this name", body = ConversationMessage),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 404, description = "`no-such-room`"),
        (status = 409, description = "`room-closed`"),
        (status = 422, description = "`invalid-fields`"),
        (status = 429, description = "`too-fast`"),
    )
)]
#[tracing::instrument(name = "chat.conversation.post", skip_all, fields(conversation.id = %conversation_id))]
pub(crate) async fn send(
    app: web::Data<App>,
    caller: Caller,
    conversation_id: web::Path<ConversationId>,
    request: HttpRequest,
    body: Json<PostConversationMessage>,
) -> Result<HttpResponse, ChatError> {
    let PostConversationMessage { content, kind, file_url, client_message_id } = body.into_inner();
    let room = find(&mut *app.pool.get().await?, caller.user_id, *conversation_id).await?;
    let draft = RawDraft { kind, content, file_url, client_message_id };
    let stored = messages::store(&app, &request, room.id, caller.user_id, draft).await?;
    Ok(created_if(stored.is_new).json(ConversationMessage::from(stored.message)))
}

/// Say how far you have read. What was read before stays read.
#[utoipa::path(
    method(post, put),
    path = "/api/v1/conversations/{conversation_id}/read",
    tag = "conversations",
    security(("cookie" = []), ("bearer" = [])),
    params(("conversation_id" = ConversationId, Path)),
    request_body = MarkRead,
    responses(
        (status = 200, description = "How far you have read", body = ReadView),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 404, description = "`no-such-room`"),
        (status = 422, description = "`invalid-fields`: no such message in this conversation"),
    )
)]
#[tracing::instrument(name = "chat.conversation.read", skip_all, fields(conversation.id = %conversation_id))]
pub(crate) async fn read(
    app: web::Data<App>,
    caller: Caller,
    conversation_id: web::Path<ConversationId>,
    body: Json<MarkRead>,
) -> Result<web::Json<ReadView>, ChatError> {
    let room = find(&mut *app.pool.get().await?, caller.user_id, *conversation_id).await?;
    let standing = receipts::mark(&app, room.id, caller.user_id, body.message_id).await?;
    Ok(web::Json(standing.into()))
}

async fn find(conn: &mut AsyncPgConnection, user_id: UserId, id: ConversationId) -> Result<Room, ChatError> {
    rooms::find_for_member(conn, RoomRef::Conversation(id), user_id).await?.ok_or(ChatError::NotInRoom)
}

async fn view(conn: &mut AsyncPgConnection, user_id: UserId, room: Room) -> Result<ConversationView, ChatError> {
    views(conn, user_id, vec![room]).await?.pop().ok_or(ChatError::NotInRoom)
}

/// These rooms as the user sees them, without those that the user is out of by now.
async fn views(
    conn: &mut AsyncPgConnection,
    user_id: UserId,
    rooms: Vec<Room>,
) -> Result<Vec<ConversationView>, ChatError> {
    let ids: Vec<_> = rooms.iter().map(|room| room.id.0).collect();
    let mut standings = members::standings(conn, user_id, &ids).await?;
    let mut newest: HashMap<RoomId, Message> = stored::newest(conn, &ids).await?;
    let mut first = members::first(conn, &ids, SHOWN).await?;
    let views = rooms.into_iter().filter_map(|room| {
        let Standing { last_read_seq, last_read_at, unread, .. } = standings.remove(&room.id)?;
        let (participants, participant_count) = first.remove(&room.id).unwrap_or_default();
        let last_message = newest.remove(&room.id);
        Some(ConversationView {
            id: room.conversation_id,
            kind: match room.kind {
                Kind::Direct => ConversationKind::Private,
                Kind::Group | Kind::Stream => ConversationKind::Group,
            },
            name: Some(room.name).filter(|name| !name.is_empty()),
            avatar_url: room.avatar_url,
            room_id: room.id,
            participants: participants.into_iter().map(ParticipantView::from).collect(),
            participant_count,
            last_seq: last_message.as_ref().map_or(room.last_seq, |message| message.seq),
            last_message: last_message.map(ConversationMessage::from),
            unread_count: unread,
            last_read_at,
            last_read_seq,
            created_at: room.created_at,
            updated_at: room.updated_at,
        })
    });
    Ok(views.collect())
}
