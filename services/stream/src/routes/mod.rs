//! The HTTP interface of stream: every path in one table.

mod proof;
mod streams;
mod webhook;
mod webhook_calls;

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
        webhook_calls::list,
        webhook_calls::replay
    )
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
        .service(web::resource("/api/v1/admin/webhooks").route(web::get().to(webhook_calls::list)))
        .service(web::resource("/api/v1/admin/webhooks/{id}/replay").route(web::post().to(webhook_calls::replay)));
}
