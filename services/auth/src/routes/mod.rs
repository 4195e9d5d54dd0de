//! The HTTP interface of auth: every path in one table.

mod accounts;
mod administration;
mod config;
mod invitations;
mod jwks;
mod own_account;
mod owner;
mod password_reset;
mod sessions;
mod tickets;
mod totp;
mod trust;
mod verification;

use actix_web::web;
use utoipa::OpenApi;

/// What auth serves, for the documents.
#[derive(OpenApi)]
#[openapi(
    info(title = "Auth", description = "Registration, login, sessions, users, and the keys that verify tokens."),
    paths(
        accounts::register,
        accounts::login,
        accounts::logout,
        accounts::me,
        accounts::change_password,
        sessions::refresh,
        sessions::list,
        sessions::end_others,
        sessions::end,
        tickets::make,
        administration::list,
        administration::get,
        administration::set_role,
        administration::suspend,
        administration::reinstate,
        password_reset::ask,
        password_reset::confirm,
        verification::ask,
        verification::confirm,
        verification::change,
        own_account::export,
        own_account::delete,
        config::config,
        invitations::create,
        invitations::list,
        invitations::withdraw,
        totp::begin,
        totp::confirm,
        totp::disable,
        totp::recovery_codes,
        jwks::jwks,
    )
)]
pub struct ApiDoc;

pub(crate) fn configure(service: &mut web::ServiceConfig) {
    service
        .service(web::resource("/api/v1/auth/register").route(web::post().to(accounts::register)))
        .service(web::resource("/api/v1/auth/login").route(web::post().to(accounts::login)))
        .service(web::resource("/api/v1/auth/logout").route(web::post().to(accounts::logout)))
        .service(web::resource("/api/v1/auth/password").route(web::post().to(accounts::change_password)))
        .service(web::resource("/api/v1/auth/refresh").route(web::post().to(sessions::refresh)))
        .service(
            web::resource("/api/v1/auth/sessions")
                .route(web::get().to(sessions::list))
                .route(web::delete().to(sessions::end_others)),
        )
        .service(web::resource("/api/v1/auth/sessions/{session_id}").route(web::delete().to(sessions::end)))
        .service(web::resource("/api/v1/auth/ws-ticket").route(web::post().to(tickets::make)))
        .service(web::resource("/api/v1/auth/users").route(web::get().to(administration::list)))
        .service(web::resource("/api/v1/auth/users/{user_uuid}").route(web::get().to(administration::get)))
        .service(web::resource("/api/v1/auth/users/{user_uuid}/role").route(web::put().to(administration::set_role)))
        .service(
            web::resource("/api/v1/auth/users/{user_uuid}/suspension")
                .route(web::put().to(administration::suspend))
                .route(web::delete().to(administration::reinstate)),
        )
        .service(
            web::resource("/api/v1/auth/me")
                .route(web::get().to(accounts::me))
                .route(web::delete().to(own_account::delete)),
        )
        .service(web::resource("/api/v1/auth/me/export").route(web::get().to(own_account::export)))
        .service(web::resource("/api/v1/auth/password-reset").route(web::post().to(password_reset::ask)))
        .service(web::resource("/api/v1/auth/password-reset/confirm").route(web::post().to(password_reset::confirm)))
        .service(web::resource("/api/v1/auth/email-verification").route(web::post().to(verification::ask)))
        .service(web::resource("/api/v1/auth/email-verification/confirm").route(web::post().to(verification::confirm)))
        .service(web::resource("/api/v1/auth/email").route(web::post().to(verification::change)))
        .service(web::resource("/api/v1/auth/config").route(web::get().to(config::config)))
        .service(
            web::resource("/api/v1/auth/invitations")
                .route(web::post().to(invitations::create))
                .route(web::get().to(invitations::list)),
        )
        .service(web::resource("/api/v1/auth/invitations/{id}").route(web::delete().to(invitations::withdraw)))
        .service(
            web::resource("/api/v1/auth/totp")
                .route(web::post().to(totp::begin))
                .route(web::delete().to(totp::disable)),
        )
        .service(web::resource("/api/v1/auth/totp/confirm").route(web::post().to(totp::confirm)))
        .service(web::resource("/api/v1/auth/totp/recovery-codes").route(web::post().to(totp::recovery_codes)))
        .service(web::resource("/.well-known/jwks.json").route(web::get().to(jwks::jwks)))
        // For processes of the installation. The gateway does not lead there.
        .service(web::resource(common::trust::PATH).route(web::get().to(trust::feed)))
        .service(web::resource("/internal/tickets/redeem").route(web::post().to(tickets::redeem)));
}
