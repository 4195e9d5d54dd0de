//! The picture of a stream.

use actix_web::http::header::{CACHE_CONTROL, ETAG, EntityTag, Header as _, IfNoneMatch};
use actix_web::{HttpRequest, HttpResponse, web};
use common::Caller;

use crate::App;
use crate::domain::{StreamName, Visibility};
use crate::error::StreamError;
use crate::routes::streams::find_visible;
use crate::store::thumbnails;

/// The last picture of a stream's broadcast.
///
/// Taken from the live picture every minute (`THUMBNAIL_EVERY`), 640 pixels wide. Whoever may see the stream may see it.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{id}/thumbnail",
    tag = "streams",
    params((
        "id" = String,
        Path,
        description = "The stream's id, or its playback id",
        pattern = "^([0-9]{1,18}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$",
        example = "42",
    )),
    responses(
        (status = 200, description = "The picture", content_type = "image/jpeg", body = Vec<u8>),
        (status = 304, description = "The picture is the one that the client has (`If-None-Match`)"),
        (status = 404, description = "`no-such-stream`, or `no-thumbnail`: none was taken yet"),
    )
)]
#[tracing::instrument(name = "stream.thumbnail.get", skip_all)]
pub(crate) async fn get(
    app: web::Data<App>,
    request: HttpRequest,
    caller: Option<Caller>,
    name: web::Path<StreamName>,
) -> Result<HttpResponse, StreamError> {
    let mut conn = app.pool.get().await?;
    let stream = find_visible(&mut conn, *name, caller.as_ref()).await?;
    let taken_at = thumbnails::taken_at(&mut conn, stream.id).await?.ok_or(StreamError::NoThumbnail)?;
    let tag_of = |at: chrono::DateTime<chrono::Utc>| EntityTag::new_strong(format!("{:x}", at.timestamp_micros()));
    let cache = match stream.visibility {
        Visibility::Public => "public, max-age=30",
        Visibility::Unlisted | Visibility::Private => "private, max-age=30",
    };
    let is_theirs = match IfNoneMatch::parse(&request) {
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|tag| tag.weak_eq(&tag_of(taken_at))),
        Ok(IfNoneMatch::Any) => true,
        Err(_) => false,
    };
    if is_theirs && request.headers().contains_key(actix_web::http::header::IF_NONE_MATCH) {
        let tag = tag_of(taken_at).to_string();
        return Ok(HttpResponse::NotModified()
            .insert_header((ETAG, tag))
            .insert_header((CACHE_CONTROL, cache))
            .finish());
    }
    let (jpeg, taken_at) = thumbnails::find(&mut conn, stream.id).await?.ok_or(StreamError::NoThumbnail)?;
    Ok(HttpResponse::Ok()
        .content_type("image/jpeg")
        .insert_header((ETAG, tag_of(taken_at).to_string()))
        .insert_header((CACHE_CONTROL, cache))
        .insert_header(("x-content-type-options", "nosniff"))
        .body(jpeg))
}
