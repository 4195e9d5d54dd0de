//! The keys that verify our tokens.

use actix_web::http::header::{CACHE_CONTROL, CacheControl, CacheDirective};
use actix_web::{HttpResponse, web};
use common::token::Jwks;

use crate::App;

/// The public keys that verify tokens (RFC 7517).
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "auth",
    responses((status = 200, description = "The keys", body = Jwks))
)]
pub(crate) async fn jwks(app: web::Data<App>) -> HttpResponse {
    let a_minute = CacheControl(vec![CacheDirective::Public, CacheDirective::MaxAge(60)]);
    HttpResponse::Ok().insert_header((CACHE_CONTROL, a_minute.to_string())).json(app.trust.jwks())
}
