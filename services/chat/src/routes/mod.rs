//! The HTTP interface of chat: every path in one table.

mod conversations;
mod messages;
mod rooms;
mod socket_io;
mod ws;

use actix_web::web;
use utoipa::OpenApi;

/// What chat serves, for the documents. Its WebSockets are described in `proto-docs/websocket.md`.
#[derive(OpenApi)]
#[openapi(
    info(title = "Chat", description = "Rooms, and the messages in them, as they are written."),
    paths(
        rooms::list,
        rooms::create,
        rooms::join_by_code,
        rooms::join,
        rooms::leave,
        rooms::members,
        rooms::status,
        messages::history,
        messages::send,
        conversations::list,
        conversations::create,
        conversations::show,
        conversations::history,
        conversations::send,
        conversations::read,
    )
)]
pub struct ApiDoc;

pub(crate) fn configure(service: &mut web::ServiceConfig) {
    service
        .service(web::resource("/api/v1/rooms").route(web::get().to(rooms::list)).route(web::post().to(rooms::create)))
        .service(web::resource("/api/v1/rooms/join-by-code").route(web::post().to(rooms::join_by_code)))
        .service(web::resource("/api/v1/rooms/{room_id}/join").route(web::post().to(rooms::join)))
        .service(web::resource("/api/v1/rooms/{room_id}/leave").route(web::post().to(rooms::leave)))
        .service(web::resource("/api/v1/rooms/{room_id}/members").route(web::get().to(rooms::members)))
        .service(
            web::resource("/api/v1/rooms/{room_id}/messages")
                .route(web::get().to(messages::history))
                .route(web::post().to(messages::send)),
        )
        .service(web::resource("/api/v1/chat/rooms/{room_id}/status").route(web::get().to(rooms::status)))
        .service(web::resource("/api/v1/chat/ws").route(web::get().to(ws::rooms)))
        .service(
            web::resource("/api/v1/conversations")
                .route(web::get().to(conversations::list))
                .route(web::post().to(conversations::create)),
        )
        .service(web::resource("/api/v1/conversations/{conversation_id}").route(web::get().to(conversations::show)))
        .service(
            web::resource("/api/v1/conversations/{conversation_id}/messages")
                .route(web::get().to(conversations::history))
                .route(web::post().to(conversations::send)),
        )
        .service(
            web::resource("/api/v1/conversations/{conversation_id}/read")
                .route(web::post().to(conversations::read))
                .route(web::put().to(conversations::read)),
        )
        .service(web::resource("/ws/chat").route(web::get().to(ws::conversations)))
        .service(web::resource("/socket.io/").to(socket_io::serve));
}
