//! Managing users: for administrators, whose role is read from the database at every request.

use actix_web::{HttpResponse, web};
use common::page::{Page, PageQuery};
use common::{Caller, Invalid, Json, Role, UserId};
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::App;
use crate::domain::User;
use crate::error::AuthError;
use crate::routes::accounts::UserView;
use crate::store::{sessions, users};

/// As the table has it, in characters.
const LONGEST_REASON: usize = 500;
/// The longest text to search for, in characters: that of a name or an address.
const LONGEST_SEARCH: usize = 100;

/// Which users.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UsersQuery {
    /// Which page, from 1. Default 1, at most 10,000.
    #[param(minimum = 1, maximum = 10_000)]
    page: Option<u32>,
    /// How many items a page has. Default 20, at most 100.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Part of a name or an e-mail address, in upper or lower case.
    #[param(max_length = 100, pattern = "^[^\\u0000]*$")]
    search: Option<String>,
}

/// The role that the user shall have.
#[derive(Deserialize, ToSchema)]
pub(crate) struct SetRole {
    #[serde(alias = "userRole", alias = "role")]
    user_role: Role,
}

/// Why the user is shut out. The user is told when they log in.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Suspend {
    /// No control characters, and not only white space.
    #[schema(
        min_length = 1,
        max_length = 500,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$",
        example = "Sold stolen lessons."
    )]
    reason: String,
}

/// List users, the oldest account first.
#[utoipa::path(
    get,
    path = "/api/v1/auth/users",
    tag = "administration",
    params(UsersQuery),
    security(("cookie" = []), ("bearer" = [])),
    responses(
        (status = 200, description = "A page of users", body = Page<UserView>),
        (status = 401, description = "`session-ended`, or no token"),
        (status = 403, description = "`forbidden`"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "auth.user.list", skip_all)]
pub(crate) async fn list(
    app: web::Data<App>,
    caller: Caller,
    query: web::Query<UsersQuery>,
) -> Result<web::Json<Page<UserView>>, AuthError> {
    let mut conn = app.pool.get().await?;
    ensure_admin(&app, &mut conn, &caller).await?;
    let page = PageQuery::of(query.page, query.limit)?;
    let search = query.search.as_deref().unwrap_or_default().trim();
    let mut invalid = Invalid::default();
    if search.chars().count() > LONGEST_SEARCH || search.contains('\0') {
        invalid.field("search", "must have at most 100 characters, none of them null");
    }
    invalid.or(())?;
    let (items, total) = users::page(&mut conn, search, page).await?;
    Ok(web::Json(Page::new(items, page, total).map(UserView::from)))
}

/// One user.
#[utoipa::path(
    get,
    path = "/api/v1/auth/users/{user_uuid}",
    tag = "administration",
    params(("user_uuid" = UserId, Path)),
    security(("cookie" = []), ("bearer" = [])),
    responses(
        (status = 200, description = "The user", body = UserView),
        (status = 401, description = "`session-ended`, or no token"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`no-such-user`"),
    )
)]
#[tracing::instrument(name = "auth.user.get", skip_all)]
pub(crate) async fn get(
    app: web::Data<App>,
    caller: Caller,
    user_id: web::Path<UserId>,
) -> Result<web::Json<UserView>, AuthError> {
    let mut conn = app.pool.get().await?;
    ensure_admin(&app, &mut conn, &caller).await?;
    let user = users::find(&mut conn, *user_id).await?;
    Ok(web::Json(user.ok_or(AuthError::NoSuchUser(*user_id))?.into()))
}

/// Give a user another role. They stay logged in, and it holds everywhere within a second.
#[utoipa::path(
    put,
    path = "/api/v1/auth/users/{user_uuid}/role",
    tag = "administration",
    params(("user_uuid" = UserId, Path)),
    request_body = SetRole,
    security(("cookie" = []), ("bearer" = [])),
    responses(
        (status = 200, description = "The user as they are now; a repeat changes nothing", body = UserView),
        (status = 401, description = "`session-ended`, or no token"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`no-such-user`"),
        (status = 409, description = "`last-administrator`"),
    )
)]
#[tracing::instrument(name = "auth.user.set_role", skip_all)]
pub(crate) async fn set_role(
    app: web::Data<App>,
    caller: Caller,
    user_id: web::Path<UserId>,
    body: Json<SetRole>,
) -> Result<web::Json<UserView>, AuthError> {
    let user = change(&app, &caller, *user_id, Change::Role(body.user_role)).await?;
    Ok(web::Json(user.into()))
}

/// Shut a user out: all their sessions end within a second, and none begins. A repeat changes the reason.
#[utoipa::path(
    put,
    path = "/api/v1/auth/users/{user_uuid}/suspension",
    tag = "administration",
    params(("user_uuid" = UserId, Path)),
    request_body = Suspend,
    security(("cookie" = []), ("bearer" = [])),
    responses(
        (status = 200, description = "The user as they are now", body = UserView),
        (status = 401, description = "`session-ended`, or no token"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`no-such-user`"),
        (status = 409, description = "`last-administrator`"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "auth.user.suspend", skip_all)]
pub(crate) async fn suspend(
    app: web::Data<App>,
    caller: Caller,
    user_id: web::Path<UserId>,
    body: Json<Suspend>,
) -> Result<web::Json<UserView>, AuthError> {
    let reason = body.reason.trim();
    let mut invalid = Invalid::default();
    if reason.is_empty() || reason.chars().count() > LONGEST_REASON || reason.chars().any(char::is_control) {
        invalid.field("reason", "must have from 1 to 500 characters, none of them a control character");
    }
    invalid.or(())?;
    let user = change(&app, &caller, *user_id, Change::Suspend(reason)).await?;
    Ok(web::Json(user.into()))
}

/// Let a user in again.
#[utoipa::path(
    delete,
    path = "/api/v1/auth/users/{user_uuid}/suspension",
    tag = "administration",
    params(("user_uuid" = UserId, Path)),
    security(("cookie" = []), ("bearer" = [])),
    responses(
        (status = 204, description = "Let in; a repeat changes nothing"),
        (status = 401, description = "`session-ended`, or no token"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`no-such-user`"),
    )
)]
#[tracing::instrument(name = "auth.user.reinstate", skip_all)]
pub(crate) async fn reinstate(
    app: web::Data<App>,
    caller: Caller,
    user_id: web::Path<UserId>,
) -> Result<HttpResponse, AuthError> {
    change(&app, &caller, *user_id, Change::Reinstate).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// What an administrator does to a user.
enum Change<'a> {
    Role(Role),
    /// For this reason.
    Suspend(&'a str),
    Reinstate,
}

/// Makes the change, and answers what the user is then. The caller must still be an administrator when it commits.
async fn change(app: &App, caller: &Caller, user_id: UserId, change: Change<'_>) -> Result<User, AuthError> {
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    conn.transaction(async |conn| {
        // First, so that of two administrators who shut each other out only one succeeds.
        users::lock_admins(conn).await?;
        ensure_admin(app, conn, caller).await?;
        let (user, _) = users::lock(conn, user_id).await?.ok_or(AuthError::NoSuchUser(user_id))?;
        if matches!(change, Change::Role(Role::Member) | Change::Suspend(_)) {
            ensure_not_last(conn, &user).await?;
        }
        match change {
            Change::Role(role) if role == user.role => {}
            Change::Role(role) => users::set_role(conn, &user, role, now).await?,
            Change::Suspend(reason) => users::suspend(conn, &user, reason, now).await?,
            Change::Reinstate if user.suspension.is_none() => {}
            Change::Reinstate => users::reinstate(conn, &user, now).await?,
        }
        users::find(conn, user_id).await?.ok_or(AuthError::NoSuchUser(user_id))
    })
    .await
}

/// The caller, if they are an administrator now, whatever the token says.
pub(super) async fn ensure_admin(app: &App, conn: &mut AsyncPgConnection, caller: &Caller) -> Result<User, AuthError> {
    let user = sessions::find_live_user(conn, caller.session_id, app.clock.now()).await?;
    let user = user.ok_or(AuthError::SessionEnded)?;
    match user.role {
        Role::Admin => Ok(user),
        Role::Member => Err(AuthError::NotAdministrator),
    }
}

/// Somebody else can manage the installation, if this user cannot any more.
pub(super) async fn ensure_not_last(conn: &mut AsyncPgConnection, user: &User) -> Result<(), AuthError> {
    let is_active_admin = user.role == Role::Admin && user.suspension.is_none();
    if is_active_admin && !users::has_other_admin(conn, user.user_id).await? {
        return Err(AuthError::LastAdministrator);
    }
    Ok(())
}
