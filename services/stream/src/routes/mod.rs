//! The HTTP interface of stream: every path in one table.

mod streams;
mod webhook;

mod channels;
mod viewers;

use actix_web::web;
use utoipa::OpenApi;

/// What stream serves, for the documents.
#[derive(OpenApi)]
#[openapi(
    info(title = "Stream", description = "Live streams, and the webhooks of the media servers that carry them."),
    paths(streams::create, streams::update, streams::list, streams::get, webhook::stream_event),
    paths(viewers::view, viewers::get, channels::follow, channels::unfollow, channels::get, channels::list)
)]
pub struct ApiDoc;

pub(crate) fn configure(service: &mut web::ServiceConfig) {
    service
        .service(
            web::resource("/api/v1/streams").route(web::post().to(streams::create)).route(web::get().to(streams::list)),
        )
        .service(
            web::resource("/api/v1/streams/{id}")
                .route(web::put().to(streams::update))
                .route(web::get().to(streams::get)),
        )
        .service(web::resource("/api/v1/webhook/stream-event").route(web::post().to(webhook::stream_event)))
        .service(web::resource("/api/v1/webhook/stream-event/{secret}").route(web::post().to(webhook::stream_event)))
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
