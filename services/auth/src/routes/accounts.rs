//! Registering, logging in and out, and asking who one is.

use actix_web::cookie::{Cookie, SameSite, time};
use actix_web::{HttpResponse, web};
use chassis::Stage;
use chrono::{DateTime, Utc};
use common::{Caller, Claims, Role, Secret, UserId, token};
use diesel_async::AsyncConnection as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::App;
use crate::domain::{Email, Registration, User};
use crate::error::AuthError;
use crate::store::users::NewUser;
use crate::store::{sessions, users};

/// Who registers. The short names without `user_` are understood too.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Register {
    #[serde(alias = "email", alias = "userEmail")]
    #[schema(max_length = 100, example = "ana@example.org")]
    user_email: String,
    #[serde(alias = "password", alias = "userPassword")]
    #[schema(min_length = 8, max_length = 128, example = "correct horse battery")]
    user_password: String,
    #[serde(alias = "fullname", alias = "userFullname")]
    #[schema(min_length = 1, max_length = 100, example = "Ana Silva")]
    user_fullname: String,
}

/// Who logs in. The short names without `user_` are understood too.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Login {
    #[serde(alias = "email", alias = "userEmail")]
    #[schema(example = "ana@example.org")]
    user_email: String,
    #[serde(alias = "password", alias = "userPassword")]
    #[schema(example = "correct horse battery")]
    user_password: String,
}

/// An account, as its owner sees it.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserView {
    user_uuid: UserId,
    user_email: String,
    user_fullname: String,
    user_role: Role,
    user_created_at: DateTime<Utc>,
    user_updated_at: DateTime<Utc>,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            user_uuid: user.user_id,
            user_email: user.email,
            user_fullname: user.full_name,
            user_role: user.role,
            user_created_at: user.created_at,
            user_updated_at: user.updated_at,
        }
    }
}

/// A login that succeeded. The token is in the cookie `auth_token` too.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoggedIn {
    /// Send it as `Authorization: Bearer …`, or let the browser send its cookie.
    token: String,
    expires_at: DateTime<Utc>,
    user: UserView,
}

/// Make an account and log in.
///
/// 409 when the e-mail address is taken; 422 names every field that is not valid.
#[utoipa::path(
    post,
    path = "/api/v1/auth/register",
    tag = "auth",
    request_body = Register,
    responses(
        (status = 201, description = "Registered and logged in", body = LoggedIn),
        (status = 409, description = "`email-taken`"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "auth.user.register", skip_all)]
pub(crate) async fn register(app: web::Data<App>, body: web::Json<Register>) -> Result<HttpResponse, AuthError> {
    let registration = Registration::parse(&body.user_email, &body.user_password, &body.user_fullname)?;
    let hash = app.passwords.hash(registration.password.clone()).await?;
    let now = app.clock.now();
    let new = NewUser::new(&registration, hash, Role::Member, now);
    let mut conn = app.pool.get().await?;
    let (user, claims) = conn
        .transaction(async |conn| {
            let user = users::insert(conn, &new).await?.ok_or(AuthError::EmailTaken)?;
            let claims = begin_session(&app, conn, &user, now).await?;
            Ok::<_, AuthError>((user, claims))
        })
        .await?;
    logged_in(&app, user, &claims, HttpResponse::Created())
}

/// Log in.
///
/// 401 when address and password do not belong together; which of them is wrong is not told.
#[utoipa::path(
    post,
    path = "/api/v1/auth/login",
    tag = "auth",
    request_body = Login,
    responses(
        (status = 200, description = "Logged in", body = LoggedIn),
        (status = 401, description = "`bad-credentials`"),
    )
)]
#[tracing::instrument(name = "auth.user.login", skip_all)]
pub(crate) async fn login(app: web::Data<App>, body: web::Json<Login>) -> Result<HttpResponse, AuthError> {
    let Login { user_email, user_password } = body.into_inner();
    let found = match Email::parse(&user_email) {
        Ok(email) => users::find_by_email(&mut *app.pool.get().await?, &email).await?,
        Err(_) => None,
    };
    let (user, hash) = found.unzip();
    // Nobody's password is checked too: otherwise the time would tell which addresses have accounts.
    let is_right = app.passwords.verify(Secret::new(user_password), hash).await?;
    let user = user.filter(|_| is_right).ok_or(AuthError::BadCredentials)?;
    let claims = begin_session(&app, &mut *app.pool.get().await?, &user, app.clock.now()).await?;
    logged_in(&app, user, &claims, HttpResponse::Ok())
}

/// Log out: the session ends, and with it every token of it.
///
/// The cookie goes also when its token has expired or is none: whoever logs out is logged out.
#[utoipa::path(
    post,
    path = "/api/v1/auth/logout",
    tag = "auth",
    security((), ("cookie" = []), ("bearer" = [])),
    responses((status = 204, description = "Logged out; a repeat changes nothing"))
)]
#[tracing::instrument(name = "auth.user.logout", skip_all)]
pub(crate) async fn logout(app: web::Data<App>, caller: Option<Caller>) -> Result<HttpResponse, AuthError> {
    if let Some(caller) = caller {
        let now = app.clock.now();
        let mut conn = app.pool.get().await?;
        conn.transaction(async |conn| sessions::end(conn, caller.session_id, now).await).await?;
    }
    let mut gone = cookie(&app, String::new(), time::Duration::ZERO);
    gone.make_removal();
    Ok(HttpResponse::NoContent().cookie(gone).finish())
}

/// Who am I?
///
/// 401 also when the session has ended since the token was made.
#[utoipa::path(
    get,
    path = "/api/v1/auth/me",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    responses((status = 200, description = "The caller's account", body = UserView), (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"))
)]
#[tracing::instrument(name = "auth.user.me", skip_all)]
pub(crate) async fn me(app: web::Data<App>, caller: Caller) -> Result<web::Json<UserView>, AuthError> {
    let mut conn = app.pool.get().await?;
    let user = sessions::find_live_user(&mut conn, caller.session_id, app.clock.now()).await?;
    Ok(web::Json(user.ok_or(AuthError::SessionEnded)?.into()))
}

/// A new session of `user`, and what its token says.
async fn begin_session(
    app: &App,
    conn: &mut diesel_async::AsyncPgConnection,
    user: &User,
    now: DateTime<Utc>,
) -> Result<Claims, AuthError> {
    let expires_at = now + app.config.token_lifetime;
    let session_id = sessions::insert(conn, user.user_id, now, expires_at).await?;
    Ok(Claims {
        iss: app.config.issuer.clone(),
        aud: token::AUDIENCE.to_owned(),
        sub: user.user_id,
        name: user.full_name.clone(),
        role: user.role,
        sid: session_id,
        iat: now.timestamp(),
        nbf: None,
        exp: expires_at.timestamp(),
    })
}

fn logged_in(
    app: &App,
    user: User,
    claims: &Claims,
    mut response: actix_web::HttpResponseBuilder,
) -> Result<HttpResponse, AuthError> {
    let token = app.signing_key.sign(claims)?;
    let lifetime = time::Duration::seconds(claims.exp - claims.iat);
    let expires_at = DateTime::from_timestamp(claims.exp, 0).unwrap_or_default();
    let cookie = cookie(app, token.clone(), lifetime);
    Ok(response.cookie(cookie).json(LoggedIn { token, expires_at, user: user.into() }))
}

/// The cookie of 000 §2.2, which lives as long as the token in it.
fn cookie(app: &App, token: String, lifetime: time::Duration) -> Cookie<'static> {
    Cookie::build(token::COOKIE, token)
        .path("/")
        .http_only(true)
        .secure(app.config.stage == Stage::Production)
        .same_site(SameSite::Strict)
        .max_age(lifetime)
        .finish()
}
