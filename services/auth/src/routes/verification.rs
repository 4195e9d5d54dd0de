//! Showing that an e-mail address is one's own, and changing to another.

use actix_web::{HttpResponse, web};
use common::{Caller, Json};
use diesel_async::AsyncConnection as _;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::App;
use crate::client::Client;
use crate::domain::Email;
use crate::error::AuthError;
use crate::mail::{self, Purpose};
use crate::routes::accounts::live_user;
use crate::routes::owner::Owner;
use crate::store::{mails, users};

/// The token of the mail.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ConfirmEmail {
    /// From the link in the mail.
    #[schema(
        min_length = 64,
        max_length = 64,
        example = "AZI2m0w9f3K5d8Xv1n4tqkF6mR2yTz0bWcP7uJhLsEoGvQxN3iDaYrVtKf5wZ1e8"
    )]
    token: String,
}

/// The address to use from now on.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ChangeEmail {
    #[serde(alias = "email", alias = "userEmail")]
    #[schema(format = "email", max_length = 100, example = "ana@example.net")]
    user_email: String,
    #[serde(alias = "password", alias = "userPassword")]
    #[schema(example = "correct horse battery")]
    user_password: String,
}

/// Ask once more for the mail that confirms one's address.
///
/// The first is sent when one registers.
#[utoipa::path(
    post,
    path = "/api/v1/auth/email-verification",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    responses(
        (status = 202, description = "A mail is on its way"),
        (status = 401, description = "`session-ended`, or no token"),
        (status = 409, description = "`email-verified`"),
        (status = 429, description = "`too-many-mails`"),
    )
)]
#[tracing::instrument(name = "auth.email.ask", skip_all)]
pub(crate) async fn ask(app: web::Data<App>, caller: Caller) -> Result<HttpResponse, AuthError> {
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    let user = live_user(&app, &mut conn, &caller).await?;
    if user.email_verified_at.is_some() {
        return Err(AuthError::EmailVerified);
    }
    conn.transaction(async |conn| {
        mail::enqueue_asked_for(conn, Purpose::VerifyEmail, &user.email, Some(user.user_id), now).await
    })
    .await?;
    Ok(HttpResponse::Accepted().finish())
}

/// Confirm an e-mail address.
///
/// With the token of a change, the address becomes the user's now: 409 when somebody else has it by now.
#[utoipa::path(
    post,
    path = "/api/v1/auth/email-verification/confirm",
    tag = "auth",
    request_body = ConfirmEmail,
    responses(
        (status = 204, description = "Confirmed"),
        (status = 400, description = "`bad-request`"),
        (status = 403, description = "`link-invalid`"),
        (status = 409, description = "`email-taken`"),
    )
)]
#[tracing::instrument(name = "auth.email.confirm", skip_all)]
pub(crate) async fn confirm(app: web::Data<App>, body: Json<ConfirmEmail>) -> Result<HttpResponse, AuthError> {
    let purposes = [Purpose::VerifyEmail, Purpose::ChangeEmail];
    let (purpose, mail_id) = app.links.open(&body.token, &purposes).ok_or(AuthError::LinkInvalid)?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    conn.transaction(async |conn| {
        let mail = mails::find_live(conn, mail_id, now).await?.ok_or(AuthError::LinkInvalid)?;
        let user_id = mail.user_id.ok_or(AuthError::LinkInvalid)?;
        let (user, _) = users::lock(conn, user_id).await?.ok_or(AuthError::LinkInvalid)?;
        if !mails::use_up(conn, mail_id, now).await? {
            return Err(AuthError::LinkInvalid);
        }
        if purpose == Purpose::VerifyEmail {
            // The user may have changed to another address since.
            if user.email != mail.to {
                return Err(AuthError::LinkInvalid);
            }
            users::set_email_verified(conn, user_id, now).await?;
            mails::void(conn, user_id, &[Purpose::VerifyEmail]).await?;
        } else {
            if !users::set_email(conn, user_id, &mail.to, now).await? {
                return Err(AuthError::EmailTaken);
            }
            // Who reads the old mailbox has no say any more.
            mails::void(conn, user_id, &[Purpose::ResetPassword, Purpose::VerifyEmail, Purpose::ChangeEmail]).await?;
        }
        Ok(())
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Change to another e-mail address.
///
/// A mail to the new address asks to confirm it, and one to the old address tells of it. Nothing changes before.
#[utoipa::path(
    post,
    path = "/api/v1/auth/email",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    request_body = ChangeEmail,
    responses(
        (status = 202, description = "A mail to the new address is on its way"),
        (status = 400, description = "`bad-request`"),
        (status = 401, description = "`bad-credentials`, `session-ended`, or no token"),
        (status = 409, description = "`email-taken`, also by oneself"),
        (status = 422, description = "`invalid-fields`"),
        (status = 429, description = "`too-many-mails` or `too-many-attempts`"),
        (status = 503, description = "`unavailable`: many passwords wait to be checked"),
    )
)]
#[tracing::instrument(name = "auth.email.change", skip_all)]
pub(crate) async fn change(
    app: web::Data<App>,
    caller: Caller,
    client: Client,
    body: Json<ChangeEmail>,
) -> Result<HttpResponse, AuthError> {
    let email = Email::of_field("user_email", &body.user_email)?;
    let owner = Owner::prove(&app, &caller, &client, &body.user_password).await?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    conn.transaction(async |conn| {
        let user = owner.lock(conn).await?;
        if users::find_id_by_email(conn, email.as_str()).await?.is_some() {
            return Err(AuthError::EmailTaken);
        }
        let user_id = Some(user.user_id);
        mail::enqueue_asked_for(conn, Purpose::EmailChangeRequested, &user.email, user_id, now).await?;
        mail::enqueue_asked_for(conn, Purpose::ChangeEmail, email.as_str(), user_id, now).await
    })
    .await?;
    Ok(HttpResponse::Accepted().finish())
}
