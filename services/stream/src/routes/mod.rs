//! The HTTP interface of stream: every path in one table.

mod broadcasts;
mod keys;
mod news;
mod proof;
mod streams;
mod thumbnails;
mod webhook;
mod webhook_calls;

mod channels;
mod viewers;

use actix_web::web;
use utoipa::OpenApi;

/// What stream serves, for the documents.
#[derive(OpenApi)]
#[openapi(
    info(title = "Stream", description = "Live streams, and the webhooks of the media servers that carry them."),
    paths(
        streams::create,
        streams::update,
        streams::delete,
        streams::list,
        streams::get,
        streams::kick,
        keys::list,
        keys::create,
        keys::rotate,
        keys::revoke,
        broadcasts::list,
        webhook::stream_event,
        webhook_calls::list,
        webhook_calls::replay
    ),
    paths(viewers::view, viewers::get, channels::follow, channels::unfollow, channels::get, channels::list),
    paths(news::follow, thumbnails::get)
)]
pub struct ApiDoc;

pub(crate) fn configure(service: &mut web::ServiceConfig) {
    service
        .service(
            web::resource("/api/v1/streams").route(web::post().to(streams::create)).route(web::get().to(streams::list)),
        )
        // Before `{id}`, as the first that fits counts.
        .service(web::resource("/api/v1/streams/events").route(web::get().to(news::follow)))
        .service(web::resource("/api/v1/streams/{id}/thumbnail").route(web::get().to(thumbnails::get)))
        .service(
            web::resource("/api/v1/streams/{id}")
                .route(web::put().to(streams::update))
                .route(web::get().to(streams::get))
                .route(web::delete().to(streams::delete)),
        )
        .service(web::resource("/api/v1/streams/{id}/kick").route(web::post().to(streams::kick)))
        .service(
            web::resource("/api/v1/streams/{id}/keys")
                .route(web::get().to(keys::list))
                .route(web::post().to(keys::create)),
        )
        .service(web::resource("/api/v1/streams/{id}/keys/{key_id}").route(web::delete().to(keys::revoke)))
        .service(web::resource("/api/v1/streams/{id}/keys/{key_id}/rotate").route(web::post().to(keys::rotate)))
        .service(web::resource("/api/v1/streams/{id}/broadcasts").route(web::get().to(broadcasts::list)))
        .service(web::resource("/api/v1/webhook/stream-event").route(web::post().to(webhook::stream_event)))
        .service(web::resource("/api/v1/webhook/stream-event/{secret}").route(web::post().to(webhook::stream_event)))
        .service(web::resource("/api/v1/admin/webhooks").route(web::get().to(webhook_calls::list)))
        .service(web::resource("/api/v1/admin/webhooks/{id}/replay").route(web::post().to(webhook_calls::replay)))
        .service(web::resource("/api/v1/streams/{id}/view").route(web::post().to(viewers::view)))
        .service(web::resource("/api/v1/streams/{id}/viewers").route(web::get().to(viewers::get)))
        .service(web::resource("/api/v1/channels").route(web::get().to(channels::list)))
        .service(web::resource("/api/v1/channels/{user_id}").route(web::get().to(channels::get)))
        .service(
            web::resource("/api/v1/channels/{user_id}/follow")
                .route(web::put().to(channels::follow))
                .route(web::delete().to(channels::unfollow)),
        );
}
