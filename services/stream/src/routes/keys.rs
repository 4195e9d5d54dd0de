//! Keys to publish with, for a stream's owner alone.

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use common::{Caller, Json, StreamId};
use diesel_async::AsyncConnection as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::App;
use crate::broadcasting::{self, Effects};
use crate::domain::{Connection, KeyId, StreamKey, key_name};
use crate::error::StreamError;
use crate::routes::streams::{Changer, check_changer, lock_to_change, send_away};
use crate::store::keys::{self, Key};
use crate::store::situations::{self, OnAir};
use crate::store::streams;

/// A stream has no more keys: one for each place that one publishes from.
const MOST_KEYS: usize = 10;

/// What a new key is to be called.
#[derive(Deserialize, ToSchema)]
pub(crate) struct CreateKey {
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$",
        example = "Studio"
    )]
    name: String,
}

/// A key, without itself.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyView {
    id: KeyId,
    name: String,
    /// When it was made, or last replaced.
    created_at: DateTime<Utc>,
    /// When somebody last went live with it.
    #[schema(required)]
    last_used_at: Option<DateTime<Utc>>,
    /// Whether it is what the stream is on air with.
    is_live: bool,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreatedKey {
    #[serde(flatten)]
    key: KeyView,
    /// What the encoder publishes with. Shown this once; keep it secret.
    stream_key: String,
    /// Where the encoder publishes to: `<ingestUrl>/<streamKey>`.
    #[schema(example = "rtmp://127.0.0.1:1935/live")]
    ingest_url: String,
}

fn view(key: Key, live: Option<&OnAir>) -> KeyView {
    let id = KeyId(key.id);
    KeyView {
        id,
        name: key.name,
        created_at: key.created_at,
        last_used_at: key.last_used_at,
        is_live: live.is_some_and(|on_air| on_air.key_id == Some(id)),
    }
}

fn created(app: &App, key: Key, value: &StreamKey) -> CreatedKey {
    let ingest_url = app.config.ingest_url.clone();
    CreatedKey { key: view(key, None), stream_key: value.expose().to_owned(), ingest_url }
}

/// List the keys of a stream, without the keys themselves. Its owner only.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{id}/keys",
    tag = "keys",
    security(("cookie" = []), ("bearer" = [])),
    params(("id" = StreamId, Path)),
    responses(
        (status = 200, description = "All keys, the oldest first", body = [KeyView]),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 403, description = "`not-your-stream`"),
        (status = 404, description = "`no-such-stream`"),
    )
)]
#[tracing::instrument(name = "stream.key.list", skip_all, fields(stream.id = %id))]
pub(crate) async fn list(
    app: web::Data<App>,
    caller: Caller,
    id: web::Path<StreamId>,
) -> Result<HttpResponse, StreamError> {
    let mut conn = app.pool.get().await?;
    let stream = streams::find(&mut conn, *id).await?.ok_or(StreamError::NoSuchStream(*id))?;
    check_changer(&stream, &caller, Changer::Owner)?;
    let on_air = situations::find_on_air(&mut conn, &[], Some(*id)).await?;
    let keys = keys::all_of(&mut conn, *id).await?;
    let keys: Vec<_> = keys.into_iter().map(|key| view(key, on_air.first())).collect();
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(keys))
}

/// Make another key for a stream. Its owner only.
#[utoipa::path(
    post,
    path = "/api/v1/streams/{id}/keys",
    tag = "keys",
    security(("cookie" = []), ("bearer" = [])),
    params(("id" = StreamId, Path)),
    request_body = CreateKey,
    responses(
        (status = 201, description = "Made. The key is shown this once", body = CreatedKey),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 403, description = "`not-your-stream`"),
        (status = 404, description = "`no-such-stream`"),
        (status = 409, description = "`too-many-keys`: a stream has at most 10"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "stream.key.create", skip_all, fields(stream.id = %id))]
pub(crate) async fn create(
    app: web::Data<App>,
    caller: Caller,
    id: web::Path<StreamId>,
    body: Json<CreateKey>,
) -> Result<HttpResponse, StreamError> {
    let name = key_name(body.into_inner().name)?;
    let value = StreamKey::new();
    let mut conn = app.pool.get().await?;
    let key = conn
        .transaction(async |conn| {
            lock_to_change(conn, *id, &caller, Changer::Owner).await?;
            if keys::all_of(conn, *id).await?.len() >= MOST_KEYS {
                return Err(StreamError::TooManyKeys(MOST_KEYS));
            }
            Ok(keys::insert(conn, *id, &name, &value, app.clock.now()).await?)
        })
        .await?;
    let answer = created(&app, key, &value);
    Ok(HttpResponse::Created().insert_header((header::CACHE_CONTROL, "no-store")).json(answer))
}

/// Replace a key: the former one publishes nothing from now on, and what is on air with it ends. Its owner only.
#[utoipa::path(
    post,
    path = "/api/v1/streams/{id}/keys/{key_id}/rotate",
    tag = "keys",
    security(("cookie" = []), ("bearer" = [])),
    params(("id" = StreamId, Path), ("key_id" = KeyId, Path)),
    responses(
        (status = 200, description = "Replaced. The new key is shown this once", body = CreatedKey),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 403, description = "`not-your-stream`"),
        (status = 404, description = "`no-such-stream` or `no-such-key`"),
    )
)]
#[tracing::instrument(name = "stream.key.rotate", skip_all, fields(stream.id = %path.0))]
pub(crate) async fn rotate(
    app: web::Data<App>,
    caller: Caller,
    path: web::Path<(StreamId, KeyId)>,
) -> Result<HttpResponse, StreamError> {
    let (id, key_id) = path.into_inner();
    let value = StreamKey::new();
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    let (key, sent_away) = conn
        .transaction(async |conn| {
            lock_to_change(conn, id, &caller, Changer::Owner).await?;
            let key = keys::replace(conn, id, key_id, &value, now).await?.ok_or(StreamError::NoSuchKey)?;
            let mut effects = Effects::new(now, app.config.rules());
            let sent_away = broadcasting::end_of_key(conn, &mut effects, id, key_id).await?;
            effects.tell(conn).await?;
            Ok::<_, StreamError>((key, sent_away))
        })
        .await?;
    drop(conn);
    settle(&app, id, &sent_away).await;
    Ok(HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(created(&app, key, &value)))
}

/// Revoke a key: it publishes nothing from now on, and what is on air with it ends. Its owner only.
#[utoipa::path(
    delete,
    path = "/api/v1/streams/{id}/keys/{key_id}",
    tag = "keys",
    security(("cookie" = []), ("bearer" = [])),
    params(("id" = StreamId, Path), ("key_id" = KeyId, Path)),
    responses(
        (status = 204, description = "Revoked"),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 403, description = "`not-your-stream`"),
        (status = 404, description = "`no-such-stream` or `no-such-key`"),
    )
)]
#[tracing::instrument(name = "stream.key.revoke", skip_all, fields(stream.id = %path.0))]
pub(crate) async fn revoke(
    app: web::Data<App>,
    caller: Caller,
    path: web::Path<(StreamId, KeyId)>,
) -> Result<HttpResponse, StreamError> {
    let (id, key_id) = path.into_inner();
    let mut conn = app.pool.get().await?;
    let sent_away = conn
        .transaction(async |conn| {
            lock_to_change(conn, id, &caller, Changer::Owner).await?;
            let mut effects = Effects::new(app.clock.now(), app.config.rules());
            // Before the key goes: a publication remembers it no longer than that.
            let sent_away = broadcasting::end_of_key(conn, &mut effects, id, key_id).await?;
            if !keys::delete(conn, id, key_id).await? {
                return Err(StreamError::NoSuchKey);
            }
            effects.tell(conn).await?;
            Ok(sent_away)
        })
        .await?;
    drop(conn);
    settle(&app, id, &sent_away).await;
    Ok(HttpResponse::NoContent().finish())
}

/// What follows the commit.
async fn settle(app: &App, id: StreamId, sent_away: &[Connection]) {
    if !sent_away.is_empty() {
        app.cache.forget(&[id]).await;
        send_away(app, sent_away).await;
    }
}
