//! Registering, logging in and out, changing the password, and asking who one is.

use actix_web::cookie::{Cookie, SameSite, time};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use chassis::Stage;
use chrono::{DateTime, Utc};
use common::{Caller, Json, Role, Secret, SessionId, UserId, token};
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::App;
use crate::client::Client;
use crate::domain::{self, Email, Registration, User};
use crate::error::AuthError;
use crate::mail::{self, Purpose};
use crate::passwords::Verdict;
use crate::routes::invitations;
use crate::routes::owner::Owner;
use crate::store::users::NewUser;
use crate::store::{self, sessions, users};
use crate::throttle::Attempt;
use crate::tokens::AccessToken;
use crate::totp::{self, SecondFactor};

/// Who registers. The short names without `user_` are understood too.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Register {
    #[serde(alias = "email", alias = "userEmail")]
    #[schema(format = "email", max_length = 100, example = "ana@example.org")]
    user_email: String,
    #[serde(alias = "password", alias = "userPassword")]
    #[schema(min_length = 8, max_length = 128, example = "correct horse battery")]
    user_password: String,
    #[serde(alias = "fullname", alias = "userFullname")]
    /// No control characters, and not only white space.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$",
        example = "Ana Silva"
    )]
    user_fullname: String,
    /// What an administrator gave or sent them. Needed where registration is by invitation.
    #[serde(alias = "invitationCode")]
    invitation_code: Option<String>,
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
    #[serde(flatten)]
    second_factor: SecondFactor,
}

/// The password that is, and the one that shall be.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ChangePassword {
    #[serde(alias = "currentPassword")]
    #[schema(example = "correct horse battery")]
    current_password: String,
    #[serde(alias = "newPassword")]
    #[schema(min_length = 8, max_length = 128, example = "another horse battery")]
    new_password: String,
}

/// An account, as its owner and administrators see it.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserView {
    user_uuid: UserId,
    user_email: String,
    user_fullname: String,
    user_role: Role,
    /// Whether the user has shown that the address is theirs.
    user_email_verified: bool,
    /// Whether logins need a code of an authenticator.
    user_totp_enabled: bool,
    user_created_at: DateTime<Utc>,
    user_updated_at: DateTime<Utc>,
    /// Since when the user is shut out; null when they are not.
    #[schema(required)]
    user_suspended_at: Option<DateTime<Utc>>,
    #[schema(required)]
    user_suspended_reason: Option<String>,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        let (since, reason) = user.suspension.map(|suspension| (suspension.since, suspension.reason)).unzip();
        Self {
            user_uuid: user.user_id,
            user_email: user.email,
            user_fullname: user.full_name,
            user_role: user.role,
            user_email_verified: user.email_verified_at.is_some(),
            user_totp_enabled: user.totp_enabled_at.is_some(),
            user_created_at: user.created_at,
            user_updated_at: user.updated_at,
            user_suspended_at: since,
            user_suspended_reason: reason,
        }
    }
}

/// A login that succeeded. The token is in the cookie `auth_token` too.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoggedIn {
    /// Send it as `Authorization: Bearer …`, or let the browser send its cookie.
    token: String,
    expires_at: DateTime<Utc>,
    /// Exchange it at `/api/v1/auth/refresh` for the next pair of tokens. Keep it where no script reads it.
    refresh_token: String,
    refresh_expires_at: DateTime<Utc>,
    user: UserView,
}

/// Make an account and log in.
///
/// 403 when nobody may, or only who is invited; 409 when the e-mail address is taken; 422 names every field that is not
/// valid.
#[utoipa::path(
    post,
    path = "/api/v1/auth/register",
    tag = "auth",
    request_body = Register,
    responses(
        (status = 201, description = "Registered and logged in", body = LoggedIn),
        (status = 400, description = "`bad-request`"),
        (status = 403, description = "`registration-closed`, `invitation-required` or `invitation-invalid`"),
        (status = 409, description = "`email-taken`"),
        (status = 422, description = "`invalid-fields`"),
        (status = 503, description = "`unavailable`: many passwords wait to be hashed"),
    )
)]
#[tracing::instrument(name = "auth.user.register", skip_all)]
pub(crate) async fn register(
    app: web::Data<App>,
    client: Client,
    body: Json<Register>,
) -> Result<HttpResponse, AuthError> {
    let invitation_id = invitations::of_code(&app, body.invitation_code.as_deref())?;
    let registration = Registration::parse(&body.user_email, &body.user_password, &body.user_fullname)?;
    let hash = app.passwords.hash(registration.password.clone()).await?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    let begun = conn
        .transaction(async |conn| {
            let invitation = match invitation_id {
                Some(id) => Some(invitations::lock_for(conn, id, &registration.email, now).await?),
                None => None,
            };
            let role = invitation.as_ref().map_or(Role::Member, |invitation| invitation.role);
            let new = NewUser::new(&registration, hash, role, now);
            let user = users::insert(conn, &new).await?.ok_or(AuthError::EmailTaken)?;
            if let Some(invitation) = invitation {
                store::invitations::set_used(conn, invitation.invitation_id, user.user_id, now).await?;
            }
            mail::enqueue(conn, Purpose::VerifyEmail, user.user_id, now).await?;
            begin_session(&app, conn, user, &client, now).await
        })
        .await?;
    Ok(begun.answer(&app, HttpResponse::Created(), SetCookie::Yes))
}

/// Log in.
///
/// 401 when address and password do not belong together; which of them is wrong is not told. 429 after many attempts, with
/// the time to wait in `Retry-After`. When address and password are right, and the account is protected by an authenticator,
/// 401 until a code is right too.
#[utoipa::path(
    post,
    path = "/api/v1/auth/login",
    tag = "auth",
    request_body = Login,
    responses(
        (status = 200, description = "Logged in", body = LoggedIn),
        (status = 400, description = "`bad-request`"),
        (status = 401, description = "`bad-credentials`, `totp-required` or `totp-wrong`"),
        (status = 403, description = "`account-suspended`: told only with the right password"),
        (status = 429, description = "`too-many-attempts`"),
        (status = 503, description = "`unavailable`: many passwords wait to be checked"),
    )
)]
#[tracing::instrument(name = "auth.user.login", skip_all)]
pub(crate) async fn login(app: web::Data<App>, client: Client, body: Json<Login>) -> Result<HttpResponse, AuthError> {
    let Login { user_email, user_password, second_factor } = body.into_inner();
    // What is no address is looked for too: the time must not tell which addresses have accounts.
    let email = Email::parse(&user_email).map(|email| email.to_string()).unwrap_or_default();
    let password = Secret::new(user_password);
    let Proved { user, hash, is_weakly_hashed } = prove(&app, &client, &email, password.clone()).await?;
    let better_hash = match is_weakly_hashed {
        // It has waited for years: where there is no time for it, the next login will do.
        true => app.passwords.hash(password).await.ok(),
        false => None,
    };
    second_factor.count_attempt(&app, user.user_id).await?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    let begun = conn
        .transaction(async |conn| {
            let locked = users::lock(conn, user.user_id).await?;
            // It may have been changed since we looked.
            let user = locked.filter(|(_, now)| *now == hash).ok_or(AuthError::BadCredentials)?.0;
            if let Some(suspension) = user.suspension {
                return Err(AuthError::AccountSuspended(suspension.reason));
            }
            if user.totp_enabled_at.is_some() {
                totp::require(&app, conn, &user, &second_factor, now).await?;
            }
            if let Some(better_hash) = better_hash {
                users::set_password_hash(conn, user.user_id, &better_hash).await?;
            }
            begin_session(&app, conn, user, &client, now).await
        })
        .await?;
    second_factor.succeed(&app, begun.user.user_id).await;
    Ok(begun.answer(&app, HttpResponse::Ok(), SetCookie::Yes))
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
    Ok(HttpResponse::NoContent().cookie(no_cookie(&app)).finish())
}

/// Who am I?
///
/// 401 also when the session has ended since the token was made.
#[utoipa::path(
    get,
    path = "/api/v1/auth/me",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    responses((status = 200, description = "The caller's account", body = UserView), (status = 401, description = "`token-missing`, `token-invalid`, `token-expired` or `session-ended`"))
)]
#[tracing::instrument(name = "auth.user.me", skip_all)]
pub(crate) async fn me(app: web::Data<App>, caller: Caller) -> Result<web::Json<UserView>, AuthError> {
    let mut conn = app.pool.get().await?;
    Ok(web::Json(live_user(&app, &mut conn, &caller).await?.into()))
}

/// Change the password. All other sessions end.
///
/// 401 when the current password is wrong: attempts are limited as those of logging in are.
#[utoipa::path(
    post,
    path = "/api/v1/auth/password",
    tag = "auth",
    request_body = ChangePassword,
    security(("cookie" = []), ("bearer" = [])),
    responses(
        (status = 204, description = "Changed"),
        (status = 401, description = "`bad-credentials`, `session-ended`, or no token"),
        (status = 422, description = "`invalid-fields`"),
        (status = 429, description = "`too-many-attempts`"),
        (status = 503, description = "`unavailable`: many passwords wait to be checked"),
    )
)]
#[tracing::instrument(name = "auth.user.change_password", skip_all)]
pub(crate) async fn change_password(
    app: web::Data<App>,
    caller: Caller,
    client: Client,
    body: Json<ChangePassword>,
) -> Result<HttpResponse, AuthError> {
    let ChangePassword { current_password, new_password } = body.into_inner();
    let new_password = domain::password_of_field("new_password", &new_password)?;
    let owner = Owner::prove(&app, &caller, &client, &current_password).await?;
    let hash = app.passwords.hash(new_password).await?;
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    conn.transaction(async |conn| {
        // Of two changes at once, the second was not asked with the password that is.
        let user = owner.lock(conn).await?;
        users::set_password_hash(conn, user.user_id, &hash).await?;
        sessions::end_all_of(conn, user.user_id, Some(caller.session_id), now).await?;
        mail::enqueue(conn, Purpose::PasswordChanged, user.user_id, now).await?;
        Ok::<_, AuthError>(())
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A user who has shown that they know the password of this account.
pub(super) struct Proved {
    pub(super) user: User,
    /// Of the password that was right.
    pub(super) hash: String,
    pub(super) is_weakly_hashed: bool,
}

/// Looks whether `password` is that of the account with this address. However often somebody guesses is limited, and an
/// address without an account takes as long.
pub(super) async fn prove(app: &App, client: &Client, email: &str, password: Secret) -> Result<Proved, AuthError> {
    let attempt = Attempt::begin(&app.throttle, email, client).await?;
    let looked = async {
        let place = app.passwords.place()?;
        let (user, hash) = users::find_by_email(&mut *app.pool.get().await?, email).await?.unzip();
        let verdict = place.verify(password, hash.clone()).await?;
        Ok((user, hash, verdict))
    };
    match looked.await {
        Ok((Some(user), Some(hash), Verdict { is_right: true, is_weakly_hashed })) => {
            attempt.succeed().await;
            Ok(Proved { user, hash, is_weakly_hashed })
        }
        Ok(_) => Err(AuthError::BadCredentials),
        Err(error) => {
            // It was not looked at, so it is no guess.
            attempt.take_back().await;
            Err(error)
        }
    }
}

/// The caller as the database knows them now: the session has not ended, and the role is the present one.
pub(super) async fn live_user(app: &App, conn: &mut AsyncPgConnection, caller: &Caller) -> Result<User, AuthError> {
    sessions::see(conn, caller.session_id, app.clock.now()).await?.ok_or(AuthError::SessionEnded)
}

/// A session with its tokens, to be told to its client.
pub(super) struct Begun {
    pub(super) user: User,
    pub(super) access: AccessToken,
    pub(super) refresh_token: String,
    pub(super) refresh_expires_at: DateTime<Utc>,
}

/// Whether the answer sets the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetCookie {
    Yes,
    No,
}

impl SetCookie {
    /// Only for a client that has it already.
    pub(super) fn if_sent(request: &HttpRequest) -> Self {
        if request.cookie(token::COOKIE).is_some() { Self::Yes } else { Self::No }
    }
}

/// A new session of `user`, who is locked or new.
pub(super) async fn begin_session(
    app: &App,
    conn: &mut AsyncPgConnection,
    user: User,
    client: &Client,
    now: DateTime<Utc>,
) -> Result<Begun, AuthError> {
    let lifetimes = app.lifetimes(now);
    let (session_id, generation) = sessions::insert(conn, user.user_id, client, now, lifetimes).await?;
    Begun::new(app, user, session_id, generation, now, lifetimes)
}

impl Begun {
    /// Tokens of a session whose refresh token is of this generation.
    pub(super) fn new(
        app: &App,
        user: User,
        session_id: SessionId,
        generation: i64,
        now: DateTime<Utc>,
        lifetimes: sessions::Lifetimes,
    ) -> Result<Self, AuthError> {
        Ok(Self {
            access: app.access_token(&user, session_id, now, lifetimes.token_until)?,
            refresh_token: app.refresh_tokens.make(session_id, generation),
            refresh_expires_at: lifetimes.refresh_until,
            user,
        })
    }

    pub(super) fn answer(self, app: &App, mut response: HttpResponseBuilder, set_cookie: SetCookie) -> HttpResponse {
        let AccessToken { text, expires_at } = self.access;
        if set_cookie == SetCookie::Yes {
            let lifetime = time::Duration::seconds(expires_at.timestamp() - app.clock.now().timestamp());
            response.cookie(cookie(app, text.clone(), lifetime));
        }
        response.json(LoggedIn {
            token: text,
            expires_at,
            refresh_token: self.refresh_token,
            refresh_expires_at: self.refresh_expires_at,
            user: self.user.into(),
        })
    }
}

/// What takes the cookie away.
pub(super) fn no_cookie(app: &App) -> Cookie<'static> {
    let mut gone = cookie(app, String::new(), time::Duration::ZERO);
    gone.make_removal();
    gone
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
