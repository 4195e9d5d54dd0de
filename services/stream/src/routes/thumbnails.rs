//! The picture of a stream.

use actix_web::http::header::{CACHE_CONTROL, ETAG, EntityTag, Header as _, IfNoneMatch};
use actix_web::{HttpRequest, HttpResponse, web};
use common::{Caller, StreamId};
use diesel_async::AsyncPgConnection;
use uuid::Uuid;

use crate::App;
use crate::domain::{Stream, Visibility};
use crate::error::StreamError;
use crate::store::{streams, thumbnails};

/// How a stream is asked for: by its number, or by its playback id.
#[derive(Debug, Clone, Copy)]
enum Which {
    Id(StreamId),
    Playback(Uuid),
}

/// The last picture of a stream's broadcast.
///
/// Taken from the live picture every minute (`THUMBNAIL_EVERY`), 640 pixels wide. By its id a public stream is found, by its
/// playback id any; its owner finds it by both.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{id}/thumbnail",
    tag = "streams",
    params(("id" = String, Path, description = "The stream's id, or its playback id")),
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
    path: web::Path<String>,
) -> Result<HttpResponse, StreamError> {
    let text = path.into_inner();
    let which = match (text.parse(), Uuid::try_parse(&text)) {
        (Ok(id), _) => Which::Id(id),
        (_, Ok(playback_id)) => Which::Playback(playback_id),
        _ => return Err(common::problem::kinds::NO_SUCH_PATH.say("a stream has a number or a playback id").into()),
    };
    let mut conn = app.pool.get().await?;
    let stream = find(&mut conn, which).await?.filter(|stream| match which {
        Which::Id(_) => {
            stream.visibility == Visibility::Public
                || caller.as_ref().is_some_and(|caller| caller.user_id == stream.user_id)
        }
        Which::Playback(_) => true,
    });
    let stream = stream.ok_or(match which {
        Which::Id(id) => StreamError::NoSuchStream(id),
        Which::Playback(_) => StreamError::NoSuchPlayback,
    })?;
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

async fn find(conn: &mut AsyncPgConnection, which: Which) -> Result<Option<Stream>, StreamError> {
    Ok(match which {
        Which::Id(id) => streams::find(conn, id).await?,
        Which::Playback(playback_id) => streams::find_by_playback(conn, playback_id).await?,
    })
}
