//! What a client has to know before anybody logs in.

use actix_web::web;
use serde::Serialize;
use utoipa::ToSchema;

use crate::App;
use crate::config::Registration;
use crate::domain::PASSWORD_LENGTHS;

/// How one registers here.
#[derive(Serialize, ToSchema)]
pub(crate) struct ConfigView {
    registration: Registration,
    /// In characters.
    #[schema(example = 8)]
    password_min_length: usize,
    /// In characters.
    #[schema(example = 128)]
    password_max_length: usize,
}

/// What a client has to know to show the right forms.
#[utoipa::path(
    get,
    path = "/api/v1/auth/config",
    tag = "auth",
    responses((status = 200, description = "How one registers here", body = ConfigView))
)]
pub(crate) async fn config(app: web::Data<App>) -> web::Json<ConfigView> {
    web::Json(ConfigView {
        registration: app.config.registration,
        password_min_length: *PASSWORD_LENGTHS.start(),
        password_max_length: *PASSWORD_LENGTHS.end(),
    })
}
