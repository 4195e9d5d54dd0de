//! The HTTP interface of auth: every path in one table.

mod accounts;
mod jwks;

use actix_web::web;
use utoipa::OpenApi;

/// What auth serves, for the documents.
#[derive(OpenApi)]
#[openapi(
    info(title = "Auth", description = "Registration, login, sessions, and the keys that verify tokens."),
    paths(accounts::register, accounts::login, accounts::logout, accounts::me, jwks::jwks)
)]
pub struct ApiDoc;

pub(crate) fn configure(service: &mut web::ServiceConfig) {
    service
        .service(web::resource("/api/v1/auth/register").route(web::post().to(accounts::register)))
        .service(web::resource("/api/v1/auth/login").route(web::post().to(accounts::login)))
        .service(web::resource("/api/v1/auth/logout").route(web::post().to(accounts::logout)))
        .service(web::resource("/api/v1/auth/me").route(web::get().to(accounts::me)))
        .service(web::resource("/.well-known/jwks.json").route(web::get().to(jwks::jwks)));
}
