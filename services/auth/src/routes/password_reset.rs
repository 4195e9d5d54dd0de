//! A new password for who has forgotten the old one.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use backplane::Pace;
use common::Json;
use diesel_async::AsyncConnection as _;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::App;
use crate::client::Client;
use crate::domain::{Email, password_of_field};
use crate::error::AuthError;
use crate::mail::{self, Purpose};
use crate::store::{mails, sessions, users};
use crate::throttle::Limit;

/// From one place, for whatever addresses: a school may share it.
const PLACE: Limit = Limit {
    name: "reset",
    pace: Pace {
        free: 50,
        first: Duration::from_secs(1),
        longest: Duration::from_secs(5 * 60),
        forget: Duration::from_secs(60 * 60),
    },
};

/// Whose password is forgotten.
#[derive(Deserialize, ToSchema)]
pub(crate) struct AskForReset {
    #[serde(alias = "email", alias = "userEmail")]
    #[schema(format = "email", max_length = 100, example = "ana@example.org")]
    user_email: String,
}

/// The token of the mail, and the password to set.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ConfirmReset {
    /// From the link in the mail.
    #[schema(
        min_length = 64,
        max_length = 64,
        example = "AZI2m0w9f3K5d8Xv1n4tqkF6mR2yTz0bWcP7uJhLsEoGvQxN3iDaYrVtKf5wZ1e8"
    )]
    token: String,
    #[serde(alias = "newPassword")]
    #[schema(min_length = 8, max_length = 128, example = "another horse battery")]
    new_password: String,
}

/// Ask for a mail that lets one set a new password.
///
/// The answer is the same, and takes as long, whether the address has an account or not.
#[utoipa::path(
    post,
    path = "/api/v1/auth/password-reset",
    tag = "auth",
    request_body = AskForReset,
    responses(
        (status = 202, description = "If the address has an account, a mail is on its way"),
        (status = 400, description = "`bad-request`"),
        (status = 422, description = "`invalid-fields`"),
        (status = 429, description = "`too-many-mails` to this address, or `too-many-attempts` from one place"),
    )
)]
#[tracing::instrument(name = "auth.password_reset.ask", skip_all)]
pub(crate) async fn ask(
    app: web::Data<App>,
    client: Client,
    body: Json<AskForReset>,
) -> Result<HttpResponse, AuthError> {
    let email = Email::of_field("user_email", &body.user_email)?;
    app.throttle.attempt(&[(&PLACE, &client.network())]).await?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    conn.transaction(async |conn| {
        // Whose it is, is looked up when it is sent.
        mail::enqueue_asked_for(conn, Purpose::ResetPassword, email.as_str(), None, now).await
    })
    .await?;
    Ok(HttpResponse::Accepted().finish())
}

/// Set a new password.
///
/// All sessions of the user end, and every other mail of this kind to them is void. The token counts once. That it came
/// by mail also confirms the e-mail address.
#[utoipa::path(
    post,
    path = "/api/v1/auth/password-reset/confirm",
    tag = "auth",
    request_body = ConfirmReset,
    responses(
        (status = 204, description = "The password is set; log in with it"),
        (status = 400, description = "`bad-request`"),
        (status = 403, description = "`link-invalid`"),
        (status = 422, description = "`invalid-fields`"),
        (status = 503, description = "`unavailable`: many passwords wait to be hashed"),
    )
)]
#[tracing::instrument(name = "auth.password_reset.confirm", skip_all)]
pub(crate) async fn confirm(app: web::Data<App>, body: Json<ConfirmReset>) -> Result<HttpResponse, AuthError> {
    let password = password_of_field("new_password", &body.new_password)?;
    let (_, mail_id) = app.links.open(&body.token, &[Purpose::ResetPassword]).ok_or(AuthError::LinkInvalid)?;
    let hash = app.passwords.hash(password).await?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    conn.transaction(async |conn| {
        let mail = mails::find_live(conn, mail_id, now).await?.ok_or(AuthError::LinkInvalid)?;
        let user_id = mail.user_id.ok_or(AuthError::LinkInvalid)?;
        let (user, _) = users::lock(conn, user_id).await?.ok_or(AuthError::LinkInvalid)?;
        if user.email != mail.to || !mails::use_up(conn, mail_id, now).await? {
            return Err(AuthError::LinkInvalid);
        }
        users::set_password_hash(conn, user_id, &hash).await?;
        users::set_email_verified(conn, user_id, now).await?;
        mails::void(conn, user_id, &[Purpose::ResetPassword, Purpose::VerifyEmail]).await?;
        sessions::end_all_of(conn, user_id, None, now).await?;
        mail::enqueue(conn, Purpose::PasswordChanged, user_id, now).await?;
        Ok(())
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}
