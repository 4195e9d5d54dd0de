//! Protecting an account with an authenticator app.

use actix_web::{HttpResponse, web};
use common::{Caller, Json};
use diesel_async::AsyncConnection as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::App;
use crate::client::Client;
use crate::error::AuthError;
use crate::routes::accounts::live_user;
use crate::routes::owner::Owner;
use crate::store::{totp as store, users};
use crate::totp::{self, SecondFactor};

/// The caller's password, which changes to the protection of an account need.
#[derive(Deserialize, ToSchema)]
pub(crate) struct WithPassword {
    #[serde(alias = "password", alias = "userPassword")]
    #[schema(example = "correct horse battery")]
    user_password: String,
}

/// What the authenticator needs. It does not count before a code has confirmed it.
#[derive(Serialize, ToSchema)]
pub(crate) struct PendingTotp {
    /// For typing into the app, in base32.
    #[schema(example = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")]
    secret: String,
    /// For a QR code.
    #[schema(example = "otpauth://totp/Amphi:ana%40example.org?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Amphi")]
    otpauth_url: String,
}

/// The first code of the authenticator.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ConfirmTotp {
    #[serde(alias = "totp_code", alias = "totpCode")]
    #[schema(min_length = 6, max_length = 6, pattern = "^[0-9]{6}$", example = "492039")]
    code: String,
}

/// A password and a code.
#[derive(Deserialize, ToSchema)]
pub(crate) struct WithCode {
    #[serde(alias = "password", alias = "userPassword")]
    #[schema(example = "correct horse battery")]
    user_password: String,
    #[serde(alias = "totp_code", alias = "totpCode")]
    #[schema(min_length = 6, max_length = 6, pattern = "^[0-9]{6}$", example = "492039")]
    code: String,
}

/// A password, and a code of the authenticator or a recovery code.
#[derive(Deserialize, ToSchema)]
pub(crate) struct DisableTotp {
    #[serde(alias = "password", alias = "userPassword")]
    #[schema(example = "correct horse battery")]
    user_password: String,
    #[serde(alias = "totp_code", alias = "totpCode")]
    #[schema(min_length = 6, max_length = 6, pattern = "^[0-9]{6}$", example = "492039")]
    code: Option<String>,
    #[serde(alias = "recoveryCode")]
    #[schema(max_length = 100, example = "3f9a1-0c77e-b2d48-65e0f")]
    recovery_code: Option<String>,
}

/// Codes that stand in for the authenticator, each once.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecoveryCodes {
    /// Shown this once.
    #[schema(min_items = 10, max_items = 10, example = json!(["3f9a1-0c77e-b2d48-65e0f"]))]
    recovery_codes: Vec<String>,
}

/// Ask for a secret to set up an authenticator with.
///
/// It does not count before `POST /api/v1/auth/totp/confirm`; asked for again, it is another.
#[utoipa::path(
    post,
    path = "/api/v1/auth/totp",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    request_body = WithPassword,
    responses(
        (status = 200, description = "The secret, shown this once", body = PendingTotp),
        (status = 400, description = "`bad-request`"),
        (status = 401, description = "`bad-credentials`, `session-ended`, or no token"),
        (status = 409, description = "`totp-enabled`"),
        (status = 429, description = "`too-many-attempts`"),
        (status = 503, description = "`unavailable`: many passwords wait to be checked"),
    )
)]
#[tracing::instrument(name = "auth.totp.begin", skip_all)]
pub(crate) async fn begin(
    app: web::Data<App>,
    caller: Caller,
    client: Client,
    body: Json<WithPassword>,
) -> Result<HttpResponse, AuthError> {
    let owner = Owner::prove(&app, &caller, &client, &body.user_password).await?;
    let secret = totp::new_secret(&app, owner.user())?;
    let mut conn = app.pool.get().await?;
    conn.transaction(async |conn| {
        let user = owner.lock(conn).await?;
        if user.totp_enabled_at.is_some() {
            return Err(AuthError::TotpEnabled);
        }
        Ok(store::put_pending(conn, user.user_id, &secret.sealed).await?)
    })
    .await?;
    let pending = PendingTotp { secret: secret.base32, otpauth_url: secret.otpauth_url };
    Ok(no_store(HttpResponse::Ok()).json(pending))
}

/// Show that the authenticator works: from now on each login needs a code.
#[utoipa::path(
    post,
    path = "/api/v1/auth/totp/confirm",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    request_body = ConfirmTotp,
    responses(
        (status = 200, description = "The account is protected; the recovery codes, shown this once", body = RecoveryCodes),
        (status = 400, description = "`bad-request`"),
        (status = 401, description = "`totp-wrong`, `session-ended`, or no token"),
        (status = 409, description = "`totp-enabled`, or `totp-not-enabled` when no secret was asked for"),
    )
)]
#[tracing::instrument(name = "auth.totp.confirm", skip_all)]
pub(crate) async fn confirm(
    app: web::Data<App>,
    caller: Caller,
    body: Json<ConfirmTotp>,
) -> Result<HttpResponse, AuthError> {
    let (recovery_codes, hashes) = totp::new_recovery_codes()?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    let user = live_user(&app, &mut conn, &caller).await?;
    conn.transaction(async |conn| {
        let (user, _) = users::lock(conn, user.user_id).await?.ok_or(AuthError::SessionEnded)?;
        if user.totp_enabled_at.is_some() {
            return Err(AuthError::TotpEnabled);
        }
        if store::find_secret(conn, user.user_id).await?.is_none() {
            return Err(AuthError::TotpNotEnabled);
        }
        if !totp::accept_code(&app, conn, &user, &body.code, now).await? {
            return Err(AuthError::TotpWrong);
        }
        store::enable(conn, user.user_id, now).await?;
        Ok(store::put_recovery_codes(conn, user.user_id, &hashes).await?)
    })
    .await?;
    Ok(no_store(HttpResponse::Ok()).json(RecoveryCodes { recovery_codes }))
}

/// Take the authenticator away, and the recovery codes with it.
#[utoipa::path(
    delete,
    path = "/api/v1/auth/totp",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    request_body = DisableTotp,
    responses(
        (status = 204, description = "Logins need the password alone"),
        (status = 400, description = "`bad-request`"),
        (status = 401, description = "`bad-credentials`, `totp-required`, `totp-wrong`, `session-ended`, or no token"),
        (status = 409, description = "`totp-not-enabled`"),
        (status = 429, description = "`too-many-attempts`"),
        (status = 503, description = "`unavailable`: many passwords wait to be checked"),
    )
)]
#[tracing::instrument(name = "auth.totp.disable", skip_all)]
pub(crate) async fn disable(
    app: web::Data<App>,
    caller: Caller,
    client: Client,
    body: Json<DisableTotp>,
) -> Result<HttpResponse, AuthError> {
    let DisableTotp { user_password, code, recovery_code } = body.into_inner();
    let owner = Owner::prove(&app, &caller, &client, &user_password).await?;
    let factor = SecondFactor { totp_code: code, recovery_code };
    factor.count_attempt(&app, owner.user().user_id).await?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    conn.transaction(async |conn| {
        let user = owner.lock(conn).await?;
        if user.totp_enabled_at.is_none() {
            return Err(AuthError::TotpNotEnabled);
        }
        totp::require(&app, conn, &user, &factor, now).await?;
        Ok(store::disable(conn, user.user_id).await?)
    })
    .await?;
    factor.succeed(&app, owner.user().user_id).await;
    Ok(HttpResponse::NoContent().finish())
}

/// Get new recovery codes. Those before do not count any more.
#[utoipa::path(
    post,
    path = "/api/v1/auth/totp/recovery-codes",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    request_body = WithCode,
    responses(
        (status = 200, description = "The new codes, shown this once", body = RecoveryCodes),
        (status = 400, description = "`bad-request`"),
        (status = 401, description = "`bad-credentials`, `totp-required`, `totp-wrong`, `session-ended`, or no token"),
        (status = 409, description = "`totp-not-enabled`"),
        (status = 429, description = "`too-many-attempts`"),
        (status = 503, description = "`unavailable`: many passwords wait to be checked"),
    )
)]
#[tracing::instrument(name = "auth.totp.recovery_codes", skip_all)]
pub(crate) async fn recovery_codes(
    app: web::Data<App>,
    caller: Caller,
    client: Client,
    body: Json<WithCode>,
) -> Result<HttpResponse, AuthError> {
    let WithCode { user_password, code } = body.into_inner();
    let owner = Owner::prove(&app, &caller, &client, &user_password).await?;
    let factor = SecondFactor { totp_code: Some(code), recovery_code: None };
    factor.count_attempt(&app, owner.user().user_id).await?;
    let (recovery_codes, hashes) = totp::new_recovery_codes()?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    conn.transaction(async |conn| {
        let user = owner.lock(conn).await?;
        if user.totp_enabled_at.is_none() {
            return Err(AuthError::TotpNotEnabled);
        }
        totp::require(&app, conn, &user, &factor, now).await?;
        Ok(store::put_recovery_codes(conn, user.user_id, &hashes).await?)
    })
    .await?;
    factor.succeed(&app, owner.user().user_id).await;
    Ok(no_store(HttpResponse::Ok()).json(RecoveryCodes { recovery_codes }))
}

/// No cache on the way keeps what is shown once.
fn no_store(mut response: actix_web::HttpResponseBuilder) -> actix_web::HttpResponseBuilder {
    response.insert_header((actix_web::http::header::CACHE_CONTROL, "no-store"));
    response
}
