//! The HTTP interface of stream: every path in one table.

mod news;
mod streams;
mod thumbnails;
mod webhook;

use actix_web::web;
use utoipa::OpenApi;

/// What stream serves, for the documents.
#[derive(OpenApi)]
#[openapi(
    info(title = "Stream", description = "Live streams, and the webhooks of the media servers that carry them."),
    paths(
        streams::create,
        streams::update,
        streams::list,
        streams::get,
        webhook::stream_event,
        news::follow,
        thumbnails::get,
    )
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
                .route(web::get().to(streams::get)),
        )
        .service(web::resource("/api/v1/webhook/stream-event").route(web::post().to(webhook::stream_event)))
        .service(web::resource("/api/v1/webhook/stream-event/{secret}").route(web::post().to(webhook::stream_event)));
}
