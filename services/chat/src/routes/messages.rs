//! Messages over REST.

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use chrono::{DateTime, Utc};
use common::{Caller, Invalid, Json, MessageId, PageQuery, RoomId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::App;
use crate::domain::{ContentKind, Draft, Message, RawDraft, check_client_message_id};
use crate::error::{ChatError, invalid};
use crate::session::RoomRef;
use crate::store::messages;
use crate::store::rooms;
use crate::writer::Stored;

/// The header that names a message, where the body does not.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A message to be sent.
#[derive(Deserialize, ToSchema)]
pub(crate) struct PostMessage {
    /// May be empty if there is a file. At most 8,000 characters.
    #[serde(default)]
    #[schema(max_length = 8000, pattern = "^[^\\u0000]*$", example = "Hello everyone!")]
    content: String,
    #[serde(default, alias = "messageType", alias = "type")]
    message_type: ContentKind,
    #[serde(alias = "fileUrl")]
    #[schema(max_length = 2048, pattern = "^(https?:/)?/[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    file_url: Option<String>,
    /// Your own name for it: sent twice under the same name, it is one message.
    #[serde(alias = "clientMessageId")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[!-~]+$")]
    client_message_id: Option<String>,
}

/// Which messages: `page`, or one of `before`, `after` and `around`, each a message's id. Default: the newest.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WhichMessages {
    /// Those before this message.
    before: Option<MessageId>,
    /// Those after this message.
    after: Option<MessageId>,
    /// Those around this message, half of them older.
    around: Option<MessageId>,
    /// Which page, from 1: the newest messages are on the first. At most 10,000.
    #[param(minimum = 1, maximum = 10_000)]
    page: Option<u32>,
    /// How many. Default 20, at most 100.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
}

/// A message.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessageView {
    message_id: MessageId,
    room_id: RoomId,
    /// Within its room, from 1 without gaps.
    seq: i64,
    content: String,
    message_type: ContentKind,
    #[schema(required)]
    file_url: Option<String>,
    user_uuid: UserId,
    /// Once it is known here.
    #[schema(required)]
    user_fullname: Option<String>,
    /// The same. Null where it is hidden: in the chat of a stream, and with `CHAT_SHOW_EMAILS=false`.
    #[schema(required)]
    user_email: Option<String>,
    #[schema(required)]
    client_message_id: Option<String>,
    created_at: DateTime<Utc>,
}

impl From<Message> for MessageView {
    fn from(message: Message) -> Self {
        Self {
            message_id: message.id,
            room_id: message.room_id,
            seq: message.seq,
            content: message.content,
            message_type: message.kind,
            file_url: message.file_url,
            user_uuid: message.user_id,
            user_fullname: message.user_name,
            user_email: message.user_email,
            client_message_id: message.client_message_id,
            created_at: message.created_at,
        }
    }
}

/// Some messages of a room, the oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct History {
    items: Vec<MessageView>,
    limit: u32,
    /// Whether there are older ones than the first of these.
    has_older: bool,
    /// Whether there are newer ones than the last of these.
    has_newer: bool,
    /// How many messages the room has.
    total: i64,
}

/// Messages of a room, the oldest first. Its members only.
#[utoipa::path(
    get,
    path = "/api/v1/rooms/{room_id}/messages",
    tag = "messages",
    security(("cookie" = []), ("bearer" = [])),
    params(("room_id" = RoomId, Path), WhichMessages),
    responses(
        (status = 200, description = "Messages", body = History),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 404, description = "`no-such-room`"),
        (status = 422, description = "`invalid-fields`: no such page, or no such message in this room"),
    )
)]
#[tracing::instrument(name = "chat.message.list", skip_all, fields(room.id = %room_id))]
pub(crate) async fn history(
    app: web::Data<App>,
    caller: Caller,
    room_id: web::Path<RoomId>,
    query: web::Query<WhichMessages>,
) -> Result<web::Json<History>, ChatError> {
    Ok(web::Json(find(&app, caller.user_id, RoomRef::Id(*room_id), query.into_inner()).await?.into()))
}

/// Messages that a member has asked for, the oldest first.
pub(super) struct Found {
    pub(super) messages: Vec<Message>,
    pub(super) limit: u32,
    pub(super) has_older: bool,
    pub(super) has_newer: bool,
    /// How many messages the room has.
    pub(super) total: i64,
}

impl From<Found> for History {
    fn from(found: Found) -> Self {
        let Found { messages, limit, has_older, has_newer, total } = found;
        Self { items: messages.into_iter().map(MessageView::from).collect(), limit, has_older, has_newer, total }
    }
}

pub(super) async fn find(app: &App, user_id: UserId, room: RoomRef, which: WhichMessages) -> Result<Found, ChatError> {
    let WhichMessages { before, after, around, page, limit } = which;
    let page = PageQuery::of(page, limit)?;
    let limit = i64::from(page.limit);
    let mut conn = app.pool.get().await?;
    let room = rooms::find_for_member(&mut conn, room, user_id).await?.ok_or(ChatError::NotInRoom)?;
    let mut seq_of = async |field, id| {
        let seq = messages::seq_of(&mut conn, room.id, id).await?;
        seq.ok_or_else(|| invalid(field, "is no message of this room"))
    };
    // The first number that is wanted; numbers have no gaps.
    let (first, most) = match (before, after, around) {
        (Some(id), None, None) => {
            let seq = seq_of("before", id).await?;
            ((seq - limit).max(1), limit.min(seq - 1))
        }
        (None, Some(id), None) => (seq_of("after", id).await? + 1, limit),
        (None, None, Some(id)) => ((seq_of("around", id).await? - limit / 2).max(1), limit),
        (None, None, None) => {
            let last = room.last_seq - page.offset();
            ((last - limit + 1).max(1), limit.min(last.max(0)))
        }
        _ => return Err(invalid("before", "one of `before`, `after` and `around`")),
    };
    let found = messages::after(&mut conn, room.id, first - 1, most, app.config.emails).await?;
    let last = found.last().map_or(first - 1, |message| message.seq);
    Ok(Found {
        has_older: first > 1,
        has_newer: last < room.last_seq,
        limit: page.limit,
        total: room.last_seq,
        messages: found,
    })
}

/// Send a message. Answers when it is stored. Members only.
///
/// A message is named by `client_message_id` or by the header `Idempotency-Key`: sent twice under one name it is one
/// message, and the second answer is that of the first, as 200.
#[utoipa::path(
    post,
    path = "/api/v1/rooms/{room_id}/messages",
    tag = "messages",
    security(("cookie" = []), ("bearer" = [])),
    params(
        ("room_id" = RoomId, Path),
        (
            "Idempotency-Key" = Option<String>,
            Header,
            description = "As `client_message_id`",
            min_length = 1,
            max_length = 64,
            pattern = "^[!-~]+$",
        ),
    ),
    request_body = PostMessage,
    responses(
        (status = 201, description = "Stored", body = MessageView),
        (status = 200, description = "Stored before, under this name", body = MessageView),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 404, description = "`no-such-room`"),
        (status = 409, description = "`room-closed`"),
        (status = 422, description = "`invalid-fields`"),
        (status = 429, description = "`too-fast`"),
    )
)]
#[tracing::instrument(name = "chat.message.post", skip_all, fields(room.id = %room_id))]
pub(crate) async fn send(
    app: web::Data<App>,
    caller: Caller,
    room_id: web::Path<RoomId>,
    request: HttpRequest,
    body: Json<PostMessage>,
) -> Result<HttpResponse, ChatError> {
    let PostMessage { content, message_type: kind, file_url, client_message_id } = body.into_inner();
    let draft = RawDraft { kind, content, file_url, client_message_id };
    let stored = store(&app, &request, *room_id, caller.user_id, draft).await?;
    Ok(created_if(stored.is_new).json(MessageView::from(stored.message)))
}

/// Stores what a request sends.
pub(super) async fn store(
    app: &App,
    request: &HttpRequest,
    room_id: RoomId,
    user_id: UserId,
    mut draft: RawDraft,
) -> Result<Stored, ChatError> {
    if let Some(key) = request.headers().get(IDEMPOTENCY_KEY) {
        let key = String::from_utf8_lossy(key.as_bytes()).into_owned();
        let mut invalid = Invalid::default();
        check_client_message_id(IDEMPOTENCY_KEY, &key, &mut invalid);
        let key = invalid.or(key)?;
        draft.client_message_id.get_or_insert(key);
    }
    app.writer.store(room_id, user_id, Draft::parse(draft)?)?.await.unwrap_or(Err(ChatError::Busy))
}

/// 201 for what is new, 200 for what was there before.
pub(super) fn created_if(is_new: bool) -> HttpResponseBuilder {
    if is_new { HttpResponse::Created() } else { HttpResponse::Ok() }
}
