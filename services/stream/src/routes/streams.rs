//! Streams, as streamers and viewers see them.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use common::{Caller, Invalid, Json, Page, PageQuery, StreamId, UserId};
use diesel_async::AsyncConnection as _;
use events::EndReason;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::App;
use crate::broadcasting::{self, Effects};
use crate::domain::{Description, Status, Stream, StreamKey};
use crate::error::StreamError;
use crate::machine::Happening;
use crate::store::{keys, streams};

/// A stream as it is announced.
#[derive(Deserialize, ToSchema)]
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
}

/// What is to change of a stream. A field left out stays as it is.
#[derive(Deserialize, ToSchema)]
pub(crate) struct UpdateStream {
    #[schema(max_length = 255, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
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
    /// `ended` ends a live stream; only publishing makes it `live`.
    #[schema(value_type = Option<String>, pattern = "^ended$", example = "ended")]
    status: Option<Status>,
}

/// Which streams, and which page of them.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListStreams {
    /// Only streams that are on air, or only those that are not. Default: all, live ones first.
    status: Option<Status>,
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
    /// When it last went live.
    #[schema(required)]
    start_time: Option<DateTime<Utc>>,
    /// When it last ended; null while it is live.
    #[schema(required)]
    end_time: Option<DateTime<Utc>>,
    /// How many players came over RTMP since it went live and are still there. A few seconds old at most.
    viewer_count: i32,
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
    StreamView {
        playback_url: format!("{}/{}/index.m3u8", app.config.playback_base_url, stream.playback_id),
        id: stream.id,
        user_id: stream.user_id,
        user_name: stream.user_name,
        title: stream.title,
        description: stream.description,
        status: stream.status,
        start_time: stream.start_time,
        end_time: stream.end_time,
        viewer_count: stream.viewer_count,
        thumbnail: stream.thumbnail,
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
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "stream.stream.create", skip_all)]
pub(crate) async fn create(
    app: web::Data<App>,
    caller: Caller,
    body: Json<CreateStream>,
) -> Result<HttpResponse, StreamError> {
    let CreateStream { title, description, thumbnail } = body.into_inner();
    let about = Description::parse(title, description, thumbnail)?;
    let key = StreamKey::new();
    let mut conn = app.pool.get().await?;
    let stream = conn
        .transaction(async |conn| {
            let now = app.clock.now();
            let id = streams::insert(conn, caller.user_id, &about, now).await?;
            keys::insert(conn, id, "default", &key, now).await?;
            streams::find(conn, id).await?.ok_or(StreamError::NoSuchStream(id))
        })
        .await?;
    app.cache.forget(&[stream.id]).await;
    Ok(HttpResponse::Created().json(CreatedStream {
        // The owner's name may not have reached us yet; the token has it.
        stream: view(&app, Stream { user_name: stream.user_name.or(Some(caller.name)), ..stream }),
        stream_key: key.expose().to_owned(),
        ingest_url: app.config.ingest_url.clone(),
    }))
}

/// Change what a stream says of itself, or end it while it is live. Its owner only.
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
        (status = 403, description = "`not-your-stream`"),
        (status = 404, description = "`no-such-stream`"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "stream.stream.update", skip_all, fields(stream.id = %id))]
pub(crate) async fn update(
    app: web::Data<App>,
    caller: Caller,
    id: web::Path<StreamId>,
    body: Json<UpdateStream>,
) -> Result<web::Json<StreamView>, StreamError> {
    let (id, UpdateStream { title, description, thumbnail, status }) = (*id, body.into_inner());
    let about = Description::parse(title, description, thumbnail)?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    let stream = conn
        .transaction(async |conn| {
            let mut effects = Effects::new(now, app.config.rules());
            let stream = streams::lock(conn, id).await?.ok_or(StreamError::NoSuchStream(id))?;
            if stream.user_id != caller.user_id {
                return Err(StreamError::NotYours(id));
            }
            match (status, stream.status) {
                (Some(Status::Live), Status::Ended) => {
                    let mut invalid = Invalid::default();
                    invalid.field("status", "becomes `live` by publishing only");
                    invalid.or(())?;
                }
                (Some(Status::Ended), Status::Live) => {
                    let stop = Happening::Stop { reason: EndReason::StoppedByOwner };
                    broadcasting::happen_within(conn, &mut effects, &[(id, stop)]).await?;
                }
                _ => {}
            }
            streams::describe(conn, id, &about, now).await?;
            effects.tell(conn).await?;
            streams::find(conn, id).await?.ok_or(StreamError::NoSuchStream(id))
        })
        .await?;
    app.cache.forget(&[id]).await;
    Ok(web::Json(view(&app, stream)))
}

/// List streams: live ones first, the newest first among each.
#[utoipa::path(
    get,
    path = "/api/v1/streams",
    tag = "streams",
    params(ListStreams),
    responses(
        (status = 200, description = "A page of streams", body = Page<StreamView>),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "stream.stream.list", skip_all)]
pub(crate) async fn list(app: web::Data<App>, query: web::Query<ListStreams>) -> Result<HttpResponse, StreamError> {
    let ListStreams { status, page, limit } = query.into_inner();
    let query = PageQuery::of(page, limit)?;
    let key = format!("list:{}:{}:{}", status.map_or("all", Status::as_str), query.page, query.limit);
    let load = async {
        let page = streams::page(&mut *app.pool.get().await?, status, query).await?;
        Ok(serde_json::to_vec(&page.map(|stream| view(&app, stream)))?)
    };
    Ok(json(app.cache.get_or(&key, load).await?))
}

/// One stream.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{id}",
    tag = "streams",
    params(("id" = StreamId, Path)),
    responses(
        (status = 200, description = "The stream", body = StreamView),
        (status = 404, description = "`no-such-stream`"),
    )
)]
#[tracing::instrument(name = "stream.stream.get", skip_all, fields(stream.id = %id))]
pub(crate) async fn get(app: web::Data<App>, id: web::Path<StreamId>) -> Result<HttpResponse, StreamError> {
    let load = async {
        let stream = streams::find(&mut *app.pool.get().await?, *id).await?.ok_or(StreamError::NoSuchStream(*id))?;
        Ok(serde_json::to_vec(&view(&app, stream))?)
    };
    Ok(json(app.cache.get_or(&format!("one:{id}"), load).await?))
}

fn json(body: Vec<u8>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(body)
}
