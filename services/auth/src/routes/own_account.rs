//! Taking along what auth knows of oneself, and leaving.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION};
use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use common::{Caller, Json};
use diesel_async::AsyncConnection as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::App;
use crate::client::Client;
use crate::error::AuthError;
use crate::mail::Purpose;
use crate::routes::accounts::{UserView, live_user, no_cookie};
use crate::routes::administration::ensure_not_last;
use crate::routes::invitations::InvitationView;
use crate::routes::owner::Owner;
use crate::routes::sessions::SessionView;
use crate::store::{invitations, mails, sessions, totp as recovery_codes, users};
use crate::totp::{self, SecondFactor};

/// Everything that auth holds about the caller, but what would let others in: no hash, no key.
#[derive(Serialize, ToSchema)]
pub(crate) struct Export {
    exported_at: DateTime<Utc>,
    account: UserView,
    #[schema(required)]
    user_email_verified_at: Option<DateTime<Utc>>,
    #[schema(required)]
    user_totp_enabled_at: Option<DateTime<Utc>>,
    recovery_codes_left: i64,
    sessions: Vec<SessionView>,
    /// Issued or used by the caller.
    invitations: Vec<InvitationView>,
    /// Of the last days.
    mails: Vec<ExportedMail>,
}

/// A mail to the caller.
#[derive(Serialize, ToSchema)]
pub(crate) struct ExportedMail {
    #[schema(example = "verify-email")]
    purpose: String,
    to: String,
    created_at: DateTime<Utc>,
}

/// What shows that it is the owner who deletes the account.
#[derive(Deserialize, ToSchema)]
pub(crate) struct DeleteAccount {
    #[serde(alias = "password", alias = "userPassword")]
    #[schema(example = "correct horse battery")]
    user_password: String,
    #[serde(flatten)]
    second_factor: SecondFactor,
}

/// Everything that auth holds about the caller, as a file.
#[utoipa::path(
    get,
    path = "/api/v1/auth/me/export",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    responses(
        (status = 200, description = "What is known of the caller, but hashes and keys", body = Export),
        (status = 401, description = "`session-ended`, or no token"),
    )
)]
#[tracing::instrument(name = "auth.user.export", skip_all)]
pub(crate) async fn export(app: web::Data<App>, caller: Caller) -> Result<HttpResponse, AuthError> {
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    let user = live_user(&app, &mut conn, &caller).await?;
    let (id, email_verified_at, totp_enabled_at) = (user.user_id, user.email_verified_at, user.totp_enabled_at);
    let export = Export {
        exported_at: now,
        account: user.into(),
        user_email_verified_at: email_verified_at,
        user_totp_enabled_at: totp_enabled_at,
        recovery_codes_left: recovery_codes::count_recovery_codes(&mut conn, id).await?,
        sessions: sessions::of_user(&mut conn, id, now)
            .await?
            .into_iter()
            .map(|session| SessionView::of(session, &caller))
            .collect(),
        invitations: invitations::of_user(&mut conn, id).await?.into_iter().map(InvitationView::from).collect(),
        mails: mails::of_user(&mut conn, id)
            .await?
            .into_iter()
            .map(|(purpose, to, created_at)| ExportedMail { purpose, to, created_at })
            .collect(),
    };
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_DISPOSITION, "attachment; filename=\"amphi-account.json\""))
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(export))
}

/// Delete one's own account.
///
/// All sessions end at once. Every service forgets the user; streams are deleted. There is no way back.
#[utoipa::path(
    delete,
    path = "/api/v1/auth/me",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    request_body = DeleteAccount,
    responses(
        (status = 204, description = "The account is no more"),
        (status = 400, description = "`bad-request`"),
        (status = 401, description = "`bad-credentials`, `totp-required`, `totp-wrong`, `session-ended`, or no token"),
        (status = 409, description = "`last-administrator`"),
        (status = 429, description = "`too-many-attempts`"),
        (status = 503, description = "`unavailable`: many passwords wait to be checked"),
    )
)]
#[tracing::instrument(name = "auth.user.delete", skip_all)]
pub(crate) async fn delete(
    app: web::Data<App>,
    caller: Caller,
    client: Client,
    body: Json<DeleteAccount>,
) -> Result<HttpResponse, AuthError> {
    let owner = Owner::prove(&app, &caller, &client, &body.user_password).await?;
    body.second_factor.count_attempt(&app, owner.user().user_id).await?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    conn.transaction(async |conn| {
        users::lock_admins(conn).await?;
        let user = owner.lock(conn).await?;
        if user.totp_enabled_at.is_some() {
            totp::require(&app, conn, &user, &body.second_factor, now).await?;
        }
        ensure_not_last(conn, &user).await?;
        sessions::end_all_of(conn, user.user_id, None, now).await?;
        mails::delete_unclaimed(conn, Purpose::ResetPassword, &user.email).await?;
        users::delete(conn, user.user_id, now).await?;
        Ok::<_, AuthError>(())
    })
    .await?;
    Ok(HttpResponse::NoContent().cookie(no_cookie(&app)).finish())
}
