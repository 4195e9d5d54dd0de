//! A user's sessions: where they are logged in, and how to end that. And tokens that keep a session going.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use common::{Caller, Json, SessionId};
use diesel_async::AsyncConnection as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::App;
use crate::error::AuthError;
use crate::routes::accounts::{Begun, LoggedIn, SetCookie, live_user};
use crate::store::{sessions, users};

/// One login of the caller.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionView {
    session_id: SessionId,
    /// Whether the request came with a token of this session.
    is_current: bool,
    /// What the program said of itself when it logged in.
    session_user_agent: String,
    /// Where the login came from.
    session_address: String,
    session_created_at: DateTime<Utc>,
    /// To within five minutes; by asking who one is and by refreshing tokens.
    session_last_seen_at: DateTime<Utc>,
    session_expires_at: DateTime<Utc>,
}

impl SessionView {
    pub(super) fn of(session: sessions::Session, caller: &Caller) -> Self {
        Self {
            session_id: SessionId(session.session_id),
            is_current: session.session_id == caller.session_id.0,
            session_user_agent: session.session_user_agent,
            session_address: session.session_address,
            session_created_at: session.session_created_at,
            session_last_seen_at: session.session_last_seen_at,
            session_expires_at: session.session_expires_at,
        }
    }
}

/// The caller's sessions.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionsView {
    sessions: Vec<SessionView>,
}

/// How many sessions have ended.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionsEnded {
    ended: usize,
}

/// A refresh token that was not used before.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Refresh {
    #[serde(alias = "refreshToken")]
    refresh_token: String,
}

/// Where am I logged in?
///
/// The session seen last comes first. There are at most a hundred: a login beyond that ends the oldest.
#[utoipa::path(
    get,
    path = "/api/v1/auth/sessions",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    responses((status = 200, description = "The caller's sessions", body = SessionsView), (status = 401, description = "`session-ended`, or no token"))
)]
#[tracing::instrument(name = "auth.session.list", skip_all)]
pub(crate) async fn list(app: web::Data<App>, caller: Caller) -> Result<web::Json<SessionsView>, AuthError> {
    let mut conn = app.pool.get().await?;
    let user = live_user(&app, &mut conn, &caller).await?;
    let sessions = sessions::of_user(&mut conn, user.user_id, app.clock.now()).await?;
    let view = |session| SessionView::of(session, &caller);
    Ok(web::Json(SessionsView { sessions: sessions.into_iter().map(view).collect() }))
}

/// End one session.
#[utoipa::path(
    delete,
    path = "/api/v1/auth/sessions/{session_id}",
    tag = "auth",
    params(("session_id" = SessionId, Path)),
    security(("cookie" = []), ("bearer" = [])),
    responses(
        (status = 204, description = "Ended"),
        (status = 401, description = "`session-ended`, or no token"),
        (status = 404, description = "`no-such-session`"),
    )
)]
#[tracing::instrument(name = "auth.session.end", skip_all)]
pub(crate) async fn end(
    app: web::Data<App>,
    caller: Caller,
    session_id: web::Path<SessionId>,
) -> Result<HttpResponse, AuthError> {
    let (session_id, now) = (session_id.into_inner(), app.clock.now());
    let mut conn = app.pool.get().await?;
    let user = live_user(&app, &mut conn, &caller).await?;
    let is_ended = conn.transaction(async |conn| sessions::end_own(conn, user.user_id, session_id, now).await).await?;
    if is_ended { Ok(HttpResponse::NoContent().finish()) } else { Err(AuthError::NoSuchSession(session_id)) }
}

/// End all sessions but this one.
#[utoipa::path(
    delete,
    path = "/api/v1/auth/sessions",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    responses((status = 200, description = "Ended", body = SessionsEnded), (status = 401, description = "`session-ended`, or no token"))
)]
#[tracing::instrument(name = "auth.session.end_others", skip_all)]
pub(crate) async fn end_others(app: web::Data<App>, caller: Caller) -> Result<web::Json<SessionsEnded>, AuthError> {
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    let user = live_user(&app, &mut conn, &caller).await?;
    let ended = conn
        .transaction(async |conn| {
            users::lock(conn, user.user_id).await?;
            sessions::end_all_of(conn, user.user_id, Some(caller.session_id), now).await
        })
        .await?;
    Ok(web::Json(SessionsEnded { ended: ended.len() }))
}

/// Exchange a refresh token for the next, and for an access token that says what is true of the user now.
///
/// A repeat is answered with the same refresh token as long as that was not used: so a lost answer loses nothing. A token
/// whose successor was used is a copy in other hands, and ends the session. The cookie is set if it was sent.
#[utoipa::path(
    post,
    path = "/api/v1/auth/refresh",
    tag = "auth",
    request_body = Refresh,
    responses(
        (status = 200, description = "The next tokens", body = LoggedIn),
        (status = 401, description = "`refresh-token-invalid`, or `refresh-token-reused`: the session has ended"),
    )
)]
#[tracing::instrument(name = "auth.session.refresh", skip_all)]
pub(crate) async fn refresh(
    app: web::Data<App>,
    request: HttpRequest,
    body: Json<Refresh>,
) -> Result<HttpResponse, AuthError> {
    let read = app.refresh_tokens.read(&body.refresh_token);
    let (session_id, generation) = read.ok_or(AuthError::RefreshTokenInvalid)?;
    let now = app.clock.now();
    let lifetimes = app.lifetimes(now);
    let mut conn = app.pool.get().await?;
    let user = conn
        .transaction(async |conn| {
            let user = sessions::lock_user(conn, session_id).await?.filter(|user| user.suspension.is_none());
            let Some(user) = user else { return Ok(Err(AuthError::RefreshTokenInvalid)) };
            if sessions::advance(conn, session_id, generation, now, lifetimes).await? {
                return Ok(Ok(user));
            }
            // Committed, although it is an error for this client.
            Ok::<_, AuthError>(Err(match sessions::end_if_reused(conn, session_id, generation, now).await? {
                true => AuthError::RefreshTokenReused,
                false => AuthError::RefreshTokenInvalid,
            }))
        })
        .await??;
    let begun = Begun::new(&app, user, session_id, generation + 1, now, lifetimes)?;
    Ok(begun.answer(&app, HttpResponse::Ok(), SetCookie::if_sent(&request)))
}
