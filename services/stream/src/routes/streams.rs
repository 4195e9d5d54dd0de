//! Streams, as streamers and viewers see them.

use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use common::{Caller, Invalid, Json, Page, PageQuery, Role, StreamId, UserId};
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use events::EndReason;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::App;
use crate::broadcasting::{self, Effects};
use crate::cache::{Detail, ListKey};
use crate::domain::{
    Connection, Description, Search, Sort, Status, Stream, StreamKey, StreamName, Visibility, Wanted, Which,
    check_schedule,
};
use crate::error::StreamError;
use crate::store::{broadcasts, keys, situations, streams};

/// A stream as it is announced.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateStream {
    #[schema(max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", example = "Cooking with Ana")]
    title: Option<String>,
    /// No control characters but line breaks and tabs.
    #[schema(max_length = 5000, pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$")]
    description: Option<String>,
    /// An http or https address, or empty for none.
    #[schema(
        max_length = 255,
        pattern = "^(https?://[^\\u0000-\\u001f\\u007f-\\u009f]*)?$",
        example = "https://example.org/a.jpg"
    )]
    thumbnail: Option<String>,
    /// When it is to begin: in the future, within two years. Until then it is among the upcoming ones.
    #[serde(alias = "scheduled_at")]
    scheduled_at: Option<DateTime<Utc>>,
    /// Default: `public`.
    visibility: Option<Visibility>,
    /// Whether it is among the featured ones. Administrators only.
    featured: Option<bool>,
}

/// What is to change of a stream. A field left out stays as it is; null clears it, where there need not be one.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UpdateStream {
    #[serde(default, deserialize_with = "said")]
    #[schema(value_type = Option<String>, max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    title: Option<Option<String>>,
    /// No control characters but line breaks and tabs.
    #[serde(default, deserialize_with = "said")]
    #[schema(
        value_type = Option<String>,
        max_length = 5000,
        pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$"
    )]
    description: Option<Option<String>>,
    /// An http or https address, or empty for none.
    #[serde(default, deserialize_with = "said")]
    #[schema(
        value_type = Option<String>,
        max_length = 255,
        pattern = "^(https?://[^\\u0000-\\u001f\\u007f-\\u009f]*)?$",
        example = "https://example.org/a.jpg"
    )]
    thumbnail: Option<Option<String>>,
    /// When it is to begin: in the future, within two years, or as it was.
    #[serde(default, deserialize_with = "said", alias = "scheduled_at")]
    #[schema(value_type = Option<DateTime<Utc>>)]
    scheduled_at: Option<Option<DateTime<Utc>>>,
    /// A stream that becomes `private` gets another playback id, as the former one is known. Not while it is live.
    visibility: Option<Visibility>,
    /// Whether it is among the featured ones. Administrators only.
    featured: Option<bool>,
    /// `ended` ends a live stream; only publishing makes it `live`.
    #[schema(value_type = Option<String>, pattern = "^ended$", example = "ended")]
    status: Option<Status>,
}

/// Tells null from a field that was left out.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Which streams, in which order, and which page of them.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListStreams {
    /// Only streams that are on air, announced, featured, or not on air. Default: all.
    #[param(inline)]
    status: Option<Which>,
    /// Only streams of this user. The user sees all of them, everybody else the public ones.
    owner: Option<UserId>,
    /// Only streams with all of these words, or words that begin so, in title or description.
    #[param(max_length = 200)]
    search: Option<String>,
    /// Default: live ones first, the newest first among each; those announced by their time.
    #[param(inline)]
    sort: Option<Sort>,
    /// Which page, from 1. Default 1, at most 10,000.
    #[param(minimum = 1, maximum = 10_000)]
    page: Option<u32>,
    /// How many items a page has. Default 20, at most 100.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
}

/// A stream, as everybody may see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamView {
    id: StreamId,
    user_id: UserId,
    /// The owner's name, once it is known here.
    #[schema(required)]
    user_name: Option<String>,
    title: String,
    #[schema(required)]
    description: Option<String>,
    status: Status,
    visibility: Visibility,
    featured: bool,
    /// When it is to begin.
    #[schema(required)]
    scheduled_at: Option<DateTime<Utc>>,
    /// When it last went live.
    #[schema(required)]
    start_time: Option<DateTime<Utc>>,
    /// When it last ended; null while it is live.
    #[schema(required)]
    end_time: Option<DateTime<Utc>>,
    /// How many are watching. A few seconds old at most.
    viewer_count: i32,
    /// What its owner has set, else a picture of its last broadcast, if one was taken.
    #[schema(required)]
    thumbnail: Option<String>,
    playback_id: Uuid,
    /// The HLS playlist, while the stream is live.
    #[schema(example = "http://127.0.0.1:8080/hls/3b241101-e2bb-4255-8caf-4136c566a962/index.m3u8")]
    playback_url: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// A stream that was just made, with what its owner needs to publish.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreatedStream {
    #[serde(flatten)]
    stream: StreamView,
    /// What the encoder publishes with. Shown this once; keep it secret.
    stream_key: String,
    /// Where the encoder publishes to: `<ingestUrl>/<streamKey>`.
    #[schema(example = "rtmp://127.0.0.1:1935/live")]
    ingest_url: String,
}

fn view(app: &App, stream: Stream) -> StreamView {
    let thumbnail = stream.thumbnail.or_else(|| {
        // As it can be asked for by whoever may see it; and another address for each picture, so that it can be kept.
        let name = match stream.visibility {
            Visibility::Unlisted => StreamName::Playback(stream.playback_id),
            Visibility::Public | Visibility::Private => StreamName::Id(stream.id),
        };
        let taken_at = stream.pictured_at?.timestamp();
        Some(format!("{}/api/v1/streams/{name}/thumbnail?t={taken_at}", app.config.public_url))
    });
    StreamView {
        playback_url: format!("{}/{}/index.m3u8", app.config.playback_base_url, stream.playback_id),
        id: stream.id,
        user_id: stream.user_id,
        user_name: stream.user_name,
        title: stream.title,
        description: stream.description,
        status: stream.status,
        visibility: stream.visibility,
        featured: stream.featured,
        scheduled_at: stream.scheduled_at,
        start_time: stream.start_time,
        end_time: stream.end_time,
        viewer_count: stream.viewer_count,
        thumbnail,
        playback_id: stream.playback_id,
        created_at: stream.created_at,
        updated_at: stream.updated_at,
    }
}

/// Make a stream, and get the key to publish it with.
#[utoipa::path(
    post,
    path = "/api/v1/streams",
    tag = "streams",
    security(("cookie" = []), ("bearer" = [])),
    request_body = CreateStream,
    responses(
        (status = 201, description = "Made. The key is shown this once", body = CreatedStream),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 403, description = "`forbidden`: only administrators say what is featured"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "stream.stream.create", skip_all)]
pub(crate) async fn create(
    app: web::Data<App>,
    caller: Caller,
    body: Json<CreateStream>,
) -> Result<HttpResponse, StreamError> {
    let CreateStream { title, description, thumbnail, scheduled_at, visibility, featured } = body.into_inner();
    let now = app.clock.now();
    let about = Description::parse(Description {
        title,
        description: Some(description),
        thumbnail: Some(thumbnail),
        scheduled_at: Some(scheduled_at),
        visibility,
        featured,
    })?;
    if let Some(Some(at)) = about.scheduled_at {
        check_schedule(at, now)?;
    }
    if about.featured == Some(true) && caller.role != Role::Admin {
        return Err(StreamError::NotAdministrator);
    }
    let key = StreamKey::new();
    let mut conn = app.pool.get().await?;
    let stream = conn
        .transaction(async |conn| {
            let id = streams::insert(conn, caller.user_id, &about, now).await?;
            keys::insert(conn, id, "default", &key, now).await?;
            streams::find(conn, id).await?.ok_or(StreamError::NoSuchStream(id))
        })
        .await?;
    app.cache.forget_existing(&[stream.id]).await;
    let created = CreatedStream {
        // The owner's name may not have reached us yet; the token has it.
        stream: view(&app, Stream { user_name: stream.user_name.or(Some(caller.name)), ..stream }),
        stream_key: key.expose().to_owned(),
        ingest_url: app.config.ingest_url.clone(),
    };
    Ok(HttpResponse::Created().insert_header((header::CACHE_CONTROL, "no-store")).json(created))
}

/// Change what is said of a stream, or end it while it is live. Its owner and administrators only.
#[utoipa::path(
    put,
    path = "/api/v1/streams/{id}",
    tag = "streams",
    security(("cookie" = []), ("bearer" = [])),
    params(("id" = StreamId, Path)),
    request_body = UpdateStream,
    responses(
        (status = 200, description = "Changed", body = StreamView),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 403, description = "`not-your-stream`, or `forbidden`: only administrators say what is featured"),
        (status = 404, description = "`no-such-stream`"),
        (status = 409, description = "`stream-live`: it cannot become private while it is live"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "stream.stream.update", skip_all, fields(stream.id = %id))]
pub(crate) async fn update(
    app: web::Data<App>,
    caller: Caller,
    id: web::Path<StreamId>,
    body: Json<UpdateStream>,
) -> Result<HttpResponse, StreamError> {
    let (id, body) = (*id, body.into_inner());
    let mut about = Description::parse(Description {
        title: body.title.map(Option::unwrap_or_default),
        description: body.description,
        thumbnail: body.thumbnail,
        scheduled_at: body.scheduled_at,
        visibility: body.visibility,
        featured: body.featured,
    })?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    let (stream, sent_away, is_for_others) = conn
        .transaction(async |conn| {
            let mut effects = Effects::new(now, app.config.rules());
            let stream = lock_to_change(conn, id, &caller, Changer::OwnerOrAdministrator).await?;
            about.scheduled_at = about.scheduled_at.filter(|at| *at != stream.scheduled_at);
            if let Some(Some(at)) = about.scheduled_at {
                check_schedule(at, now)?;
            }
            if about.featured.is_some_and(|featured| featured != stream.featured) && caller.role != Role::Admin {
                return Err(StreamError::NotAdministrator);
            }
            let sent_away = match (body.status, stream.status) {
                (Some(Status::Live), Status::Ended) => {
                    let mut invalid = Invalid::default();
                    invalid.field("status", "becomes `live` by publishing only");
                    return Err(invalid.problem().into());
                }
                // One that is off the air may wait for its encoder to come back.
                (Some(Status::Ended), _) => {
                    broadcasting::stop(conn, &mut effects, id, stopped_by(&caller, &stream)).await?
                }
                _ => Vec::new(),
            };
            let visibility = about.visibility.filter(|visibility| *visibility != stream.visibility);
            if visibility == Some(Visibility::Private) {
                if broadcasts::is_open(conn, id).await? {
                    return Err(StreamError::Live(id));
                }
                streams::rename_playback(conn, id).await?;
            }
            streams::describe(conn, id, &about, now).await?;
            effects.tell(conn).await?;
            let stream = streams::find(conn, id).await?.ok_or(StreamError::NoSuchStream(id))?;
            Ok((stream, sent_away, visibility.is_some()))
        })
        .await?;
    drop(conn);
    if is_for_others {
        app.cache.forget_existing(&[id]).await;
    } else {
        app.cache.forget(&[id]).await;
    }
    send_away(&app, &sent_away).await;
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(view(&app, stream)))
}

/// Delete a stream, with its keys, its history and its recordings. A live one ends. Its owner and administrators only.
#[utoipa::path(
    delete,
    path = "/api/v1/streams/{id}",
    tag = "streams",
    security(("cookie" = []), ("bearer" = [])),
    params(("id" = StreamId, Path)),
    responses(
        (status = 204, description = "Deleted"),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 403, description = "`not-your-stream`"),
        (status = 404, description = "`no-such-stream`"),
    )
)]
#[tracing::instrument(name = "stream.stream.delete", skip_all, fields(stream.id = %id))]
pub(crate) async fn delete(
    app: web::Data<App>,
    caller: Caller,
    id: web::Path<StreamId>,
) -> Result<HttpResponse, StreamError> {
    let id = *id;
    let mut conn = app.pool.get().await?;
    let sent_away = conn
        .transaction(async |conn| {
            lock_to_change(conn, id, &caller, Changer::OwnerOrAdministrator).await?;
            let mut effects = Effects::new(app.clock.now(), app.config.rules());
            let on_air = situations::find_on_air(conn, &[], Some(id)).await?;
            broadcasting::end_before_deletion(conn, &mut effects, &[id]).await?;
            effects.tell(conn).await?;
            Ok::<_, StreamError>(on_air.into_iter().map(|on_air| on_air.encoder).collect::<Vec<_>>())
        })
        .await?;
    drop(conn);
    app.cache.forget_existing(&[id]).await;
    send_away(&app, &sent_away).await;
    Ok(HttpResponse::NoContent().finish())
}

/// End what is on air, and disconnect its encoder. The stream's owner and administrators only.
#[utoipa::path(
    post,
    path = "/api/v1/streams/{id}/kick",
    tag = "streams",
    security(("cookie" = []), ("bearer" = [])),
    params(("id" = StreamId, Path)),
    responses(
        (status = 204, description = "Ended"),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 403, description = "`not-your-stream`"),
        (status = 404, description = "`no-such-stream`"),
        (status = 409, description = "`not-live`: nobody publishes"),
    )
)]
#[tracing::instrument(name = "stream.stream.kick", skip_all, fields(stream.id = %id))]
pub(crate) async fn kick(
    app: web::Data<App>,
    caller: Caller,
    id: web::Path<StreamId>,
) -> Result<HttpResponse, StreamError> {
    let id = *id;
    let mut conn = app.pool.get().await?;
    let sent_away = conn
        .transaction(async |conn| {
            let stream = lock_to_change(conn, id, &caller, Changer::OwnerOrAdministrator).await?;
            let mut effects = Effects::new(app.clock.now(), app.config.rules());
            let sent_away = broadcasting::stop(conn, &mut effects, id, stopped_by(&caller, &stream)).await?;
            if sent_away.is_empty() {
                return Err(StreamError::NotLive(id));
            }
            effects.tell(conn).await?;
            Ok(sent_away)
        })
        .await?;
    drop(conn);
    app.cache.forget(&[id]).await;
    send_away(&app, &sent_away).await;
    Ok(HttpResponse::NoContent().finish())
}

/// List streams. Everybody sees the public ones; a user who lists their own sees all of them.
// No span of its own: most answers are kept ones, and the request has a span.
#[utoipa::path(
    get,
    path = "/api/v1/streams",
    tag = "streams",
    security((), ("cookie" = []), ("bearer" = [])),
    params(ListStreams),
    responses(
        (status = 200, description = "A page of streams", body = Page<StreamView>),
        (status = 422, description = "`invalid-fields`"),
    )
)]
pub(crate) async fn list(
    app: web::Data<App>,
    caller: Option<Caller>,
    query: web::Query<ListStreams>,
) -> Result<HttpResponse, StreamError> {
    let ListStreams { status, owner, search, sort, page, limit } = query.into_inner();
    let query = PageQuery::of(page, limit)?;
    let search = Search::parse(search.as_deref().unwrap_or_default())?;
    let is_owners = owner.is_some() && owner == caller.map(|caller| caller.user_id);
    let wanted = Wanted { which: status, owner, is_owners, search, sort };
    if is_owners {
        return Ok(answer(load_page(app, wanted, query).await?, Visibility::Private));
    }
    let key = ListKey { wanted: wanted.clone(), page: query.page, limit: query.limit };
    let body = app.cache.list(key, || load_page(app.clone(), wanted, query)).await?;
    Ok(answer(body, Visibility::Public))
}

async fn load_page(app: web::Data<App>, wanted: Wanted, query: PageQuery) -> Result<Bytes, StreamError> {
    let now = app.clock.now();
    let total = total(&app, &wanted, now).await?;
    let streams = streams::page(&mut *app.pool.get().await?, &wanted, query, now).await?;
    let page = Page::new(streams, query, total).map(|stream| view(&app, stream));
    Ok(serde_json::to_vec(&page)?.into())
}

/// How many streams there are of those wanted.
///
/// All public streams are many to count, and going live does not change how many there are: that number is kept by itself.
async fn total(app: &web::Data<App>, wanted: &Wanted, now: DateTime<Utc>) -> Result<i64, StreamError> {
    let everybody = Wanted { which: None, owner: None, is_owners: false, search: None, sort: None };
    let with_status = Wanted { which: wanted.which, sort: None, ..everybody.clone() };
    let is_simple = Wanted { sort: None, ..wanted.clone() } == with_status;
    let count = async |wanted: &Wanted| Ok(streams::count(&mut *app.pool.get().await?, wanted, now).await?);
    let load = || {
        let (app, everybody) = (app.clone(), everybody.clone());
        async move { Ok(streams::count(&mut *app.pool.get().await?, &everybody, now).await?) }
    };
    match wanted.which {
        None if is_simple => app.cache.total(load).await,
        Some(Which::Ended) if is_simple => {
            let live = count(&Wanted { which: Some(Which::Live), ..everybody.clone() }).await?;
            Ok((app.cache.total(load).await? - live).max(0))
        }
        _ => count(wanted).await,
    }
}

/// One stream, by its id or its playback id. An unlisted one answers to its playback id, a private one to its owner alone.
// No span of its own: most answers are kept ones, and the request has a span.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{id}",
    tag = "streams",
    security((), ("cookie" = []), ("bearer" = [])),
    params(("id" = String, Path, description = "The stream's id or its playback id")),
    responses(
        (status = 200, description = "The stream", body = StreamView),
        (status = 404, description = "`no-such-stream`"),
    )
)]
pub(crate) async fn get(
    app: web::Data<App>,
    caller: Option<Caller>,
    name: web::Path<StreamName>,
) -> Result<HttpResponse, StreamError> {
    let name = *name;
    let find_id = |playback_id| {
        let app = app.clone();
        async move { Ok(streams::find_id(&mut *app.pool.get().await?, playback_id).await?) }
    };
    let id = app.cache.id_of(name, find_id).await?.ok_or(StreamError::NoSuchName(name))?;
    let load = || {
        let app = app.clone();
        async move {
            let Some(stream) = streams::find(&mut *app.pool.get().await?, id).await? else { return Ok(None) };
            let (owner, visibility, playback_id) = (stream.user_id, stream.visibility, stream.playback_id);
            let body = serde_json::to_vec(&view(&app, stream))?.into();
            Ok(Some(Detail { body, owner, visibility, playback_id }.into()))
        }
    };
    let detail = app.cache.detail(id, load).await?.ok_or(StreamError::NoSuchName(name))?;
    if !is_visible(name, detail.visibility, detail.playback_id, detail.owner, caller.as_ref()) {
        return Err(StreamError::NoSuchName(name));
    }
    Ok(answer(detail.body.clone(), detail.visibility))
}

/// Whether `caller` may see a stream that was asked for as `name`.
fn is_visible(
    name: StreamName,
    visibility: Visibility,
    playback_id: Uuid,
    owner: UserId,
    caller: Option<&Caller>,
) -> bool {
    let is_public_name = match name {
        StreamName::Id(_) => false,
        // It has another one since.
        StreamName::Playback(asked) if asked != playback_id => return false,
        StreamName::Playback(_) => true,
    };
    let is_theirs = caller.is_some_and(|caller| caller.user_id == owner || caller.role == Role::Admin);
    match visibility {
        Visibility::Public => true,
        Visibility::Unlisted => is_public_name || is_theirs,
        Visibility::Private => is_theirs,
    }
}

/// The stream that is asked for as `name`, if `caller` may see it.
pub(crate) async fn find_visible(
    conn: &mut AsyncPgConnection,
    name: StreamName,
    caller: Option<&Caller>,
) -> Result<Stream, StreamError> {
    let is_theirs = |stream: &Stream| is_visible(name, stream.visibility, stream.playback_id, stream.user_id, caller);
    streams::find_called(conn, name).await?.filter(is_theirs).ok_or(StreamError::NoSuchName(name))
}

/// Who may do something to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changer {
    Owner,
    OwnerOrAdministrator,
}

/// The stream, held until the transaction ends, if `caller` may change it. See [`check_changer`].
pub(crate) async fn lock_to_change(
    conn: &mut AsyncPgConnection,
    id: StreamId,
    caller: &Caller,
    changer: Changer,
) -> Result<Stream, StreamError> {
    let stream = streams::lock(conn, id).await?.ok_or(StreamError::NoSuchStream(id))?;
    check_changer(&stream, caller, changer)?;
    Ok(stream)
}

/// Whether `caller` may change the stream: else 403, or 404 where they may not know of it.
pub(crate) fn check_changer(stream: &Stream, caller: &Caller, changer: Changer) -> Result<(), StreamError> {
    let may_change = match changer {
        Changer::Owner => stream.user_id == caller.user_id,
        Changer::OwnerOrAdministrator => stream.user_id == caller.user_id || caller.role == Role::Admin,
    };
    let name = StreamName::Id(stream.id);
    match is_visible(name, stream.visibility, stream.playback_id, stream.user_id, Some(caller)) {
        _ if may_change => Ok(()),
        true => Err(StreamError::NotYours(stream.id)),
        false => Err(StreamError::NoSuchStream(stream.id)),
    }
}

fn stopped_by(caller: &Caller, stream: &Stream) -> EndReason {
    if caller.user_id == stream.user_id { EndReason::StoppedByOwner } else { EndReason::StoppedByAdministrator }
}

/// Has media servers disconnect these, after the commit that ended them.
pub(crate) async fn send_away(app: &App, connections: &[Connection]) {
    for connection in connections {
        app.media.send_away(connection).await;
    }
}

/// An answer that others may keep only if it would be the same for everybody.
pub(crate) fn answer(body: Bytes, visibility: Visibility) -> HttpResponse {
    let mut answer = HttpResponse::Ok();
    answer.content_type("application/json");
    if visibility != Visibility::Public {
        answer.insert_header((header::CACHE_CONTROL, "no-store"));
    }
    answer.body(body)
}
