//! Who may register.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, TimeDelta, Utc};
use common::{Caller, Invalid, InvitationId, Json, Page, PageQuery, Role, UserId};
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::App;
use crate::config::Registration;
use crate::domain::{Email, Invitation};
use crate::error::AuthError;
use crate::mail::{Mail, Purpose};
use crate::routes::administration::ensure_admin;
use crate::store::{invitations, mails, users};

/// An invitation counts this long if nothing else is said, in hours: a week.
const DEFAULT_HOURS: u32 = 7 * 24;
/// It counts at most a year.
const LONGEST_HOURS: u32 = 365 * 24;

/// Whom to invite, and for how long.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Invite {
    /// Who alone may use it, and gets it by mail. Left out: whoever has the code.
    #[serde(alias = "email", alias = "userEmail")]
    #[schema(format = "email", max_length = 100, example = "ben@example.org")]
    user_email: Option<String>,
    /// What they become. Default `Member`.
    #[serde(alias = "role", alias = "userRole")]
    user_role: Option<Role>,
    /// Default 168, a week; at most 8760, a year.
    #[serde(default, alias = "expiresInHours", deserialize_with = "whole_number")]
    #[schema(minimum = 1, maximum = 8760, example = 168)]
    expires_in_hours: Option<u32>,
}

/// To JSON, `168.0` is as whole as `168`.
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(deserializer)? else { return Ok(None) };
    let is_whole = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    is_whole
        .then_some(Some(number as u32))
        .ok_or_else(|| D::Error::custom(format!("expected a whole number, not {number}")))
}

/// An invitation, as administrators see it.
#[derive(Serialize, ToSchema)]
pub(crate) struct InvitationView {
    invitation_id: InvitationId,
    /// Null once that account is deleted: then it does not count any more.
    #[schema(required)]
    invited_by: Option<UserId>,
    /// Null: whoever has the code.
    #[schema(required)]
    user_email: Option<String>,
    user_role: Role,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    #[schema(required)]
    used_at: Option<DateTime<Utc>>,
    /// Null before, and once that account is deleted.
    #[schema(required)]
    used_by: Option<UserId>,
}

/// An invitation that was just made.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedInvitation {
    #[serde(flatten)]
    invitation: InvitationView,
    /// What to register with. Shown this once.
    invitation_code: String,
}

impl From<Invitation> for InvitationView {
    fn from(invitation: Invitation) -> Self {
        Self {
            invitation_id: invitation.invitation_id,
            invited_by: invitation.invited_by,
            user_email: invitation.email,
            user_role: invitation.role,
            created_at: invitation.created_at,
            expires_at: invitation.expires_at,
            used_at: invitation.used_at,
            used_by: invitation.used_by,
        }
    }
}

/// Which page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListInvitations {
    /// Which page, from 1. Default 1, at most 10,000.
    #[param(minimum = 1, maximum = 10_000)]
    page: Option<u32>,
    /// How many items a page has. Default 20, at most 100.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
}

/// Invite somebody to register.
#[utoipa::path(
    post,
    path = "/api/v1/auth/invitations",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    request_body = Invite,
    responses(
        (status = 201, description = "Invited; the code is shown this once", body = CreatedInvitation),
        (status = 400, description = "`bad-request`"),
        (status = 401, description = "`session-ended`, or no token"),
        (status = 403, description = "`forbidden`: for administrators"),
        (status = 409, description = "`email-taken`: they have registered already"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "auth.invitation.create", skip_all)]
pub(crate) async fn create(app: web::Data<App>, caller: Caller, body: Json<Invite>) -> Result<HttpResponse, AuthError> {
    let now = app.clock.now();
    let mut conn = app.pool.get().await?;
    let admin = ensure_admin(&app, &mut conn, &caller).await?;
    let invitation = parse(body.into_inner(), admin.user_id, now)?;
    conn.transaction(async |conn| {
        if let Some(email) = &invitation.email {
            if users::find_id_by_email(conn, email).await?.is_some() {
                return Err(AuthError::EmailTaken);
            }
            let mut mail = Mail::new(Purpose::Invitation, email, None, now);
            // Its token is the invitation's code.
            mail.mail_id = invitation.invitation_id.0;
            mails::insert(conn, &mail).await?;
        }
        Ok(invitations::insert(conn, &invitation).await?)
    })
    .await?;
    let invitation_code = app.links.token(Purpose::Invitation, invitation.invitation_id.0);
    let created = CreatedInvitation { invitation: invitation.into(), invitation_code };
    Ok(HttpResponse::Created().insert_header(("cache-control", "no-store")).json(created))
}

fn parse(body: Invite, invited_by: UserId, now: DateTime<Utc>) -> Result<Invitation, AuthError> {
    let mut invalid = Invalid::default();
    let email = body.user_email.and_then(|text| {
        Email::parse(&text).map_err(|reason| invalid.field("user_email", reason)).ok().map(|email| email.to_string())
    });
    let hours = body.expires_in_hours.unwrap_or(DEFAULT_HOURS);
    if !(1..=LONGEST_HOURS).contains(&hours) {
        invalid.field("expires_in_hours", format!("must be from 1 to {LONGEST_HOURS}"));
    }
    Ok(invalid.or(Invitation {
        invitation_id: InvitationId::new(),
        invited_by: Some(invited_by),
        email,
        role: body.user_role.unwrap_or(Role::Member),
        created_at: now,
        expires_at: now + TimeDelta::hours(i64::from(hours)),
        used_at: None,
        used_by: None,
    })?)
}

/// Every invitation, the newest first. The codes are not in it.
#[utoipa::path(
    get,
    path = "/api/v1/auth/invitations",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    params(ListInvitations),
    responses(
        (status = 200, description = "A page of invitations", body = Page<InvitationView>),
        (status = 400, description = "`bad-request`"),
        (status = 401, description = "`session-ended`, or no token"),
        (status = 403, description = "`forbidden`: for administrators"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "auth.invitation.list", skip_all)]
pub(crate) async fn list(
    app: web::Data<App>,
    caller: Caller,
    query: web::Query<ListInvitations>,
) -> Result<web::Json<Page<InvitationView>>, AuthError> {
    let mut conn = app.pool.get().await?;
    ensure_admin(&app, &mut conn, &caller).await?;
    let page = invitations::page(&mut conn, PageQuery::of(query.page, query.limit)?).await?;
    Ok(web::Json(page.map(InvitationView::from)))
}

/// Withdraw an invitation. One that was used is only forgotten: the account stays.
#[utoipa::path(
    delete,
    path = "/api/v1/auth/invitations/{id}",
    tag = "auth",
    security(("cookie" = []), ("bearer" = [])),
    params(("id" = InvitationId, Path)),
    responses(
        (status = 204, description = "Withdrawn"),
        (status = 401, description = "`session-ended`, or no token"),
        (status = 403, description = "`forbidden`: for administrators"),
        (status = 404, description = "`no-such-invitation`"),
    )
)]
#[tracing::instrument(name = "auth.invitation.withdraw", skip_all, fields(invitation.id = %id))]
pub(crate) async fn withdraw(
    app: web::Data<App>,
    caller: Caller,
    id: web::Path<InvitationId>,
) -> Result<HttpResponse, AuthError> {
    let mut conn = app.pool.get().await?;
    ensure_admin(&app, &mut conn, &caller).await?;
    conn.transaction(async |conn| {
        mails::delete(conn, id.0).await?;
        if invitations::delete(conn, *id).await? { Ok(()) } else { Err(AuthError::NoSuchInvitation) }
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Which invitation `code` is of. Fails when registration needs one and it is missing, and when it is none of ours.
pub(crate) fn of_code(app: &App, code: Option<&str>) -> Result<Option<InvitationId>, AuthError> {
    match (app.config.registration, code) {
        (Registration::Closed, _) => Err(AuthError::RegistrationClosed),
        (Registration::Invitation, None) => Err(AuthError::InvitationRequired),
        (Registration::Open, None) => Ok(None),
        (_, Some(code)) => {
            let opened = app.links.open(code, &[Purpose::Invitation]);
            let (_, id) = opened.ok_or(AuthError::InvitationInvalid)?;
            Ok(Some(InvitationId(id)))
        }
    }
}

/// The invitation that lets `email` register, held until the transaction ends, so that one of several wins.
pub(crate) async fn lock_for(
    conn: &mut AsyncPgConnection,
    id: InvitationId,
    email: &Email,
    now: DateTime<Utc>,
) -> Result<Invitation, AuthError> {
    let invitation = invitations::lock_open(conn, id, now).await?.ok_or(AuthError::InvitationInvalid)?;
    let is_for_them = invitation.email.as_deref().is_none_or(|invited| invited == email.as_str());
    let is_by_admin = match invitation.invited_by {
        Some(user_id) => {
            users::find(conn, user_id).await?.is_some_and(|user| user.role == Role::Admin && user.suspension.is_none())
        }
        None => false,
    };
    if is_for_them && is_by_admin { Ok(invitation) } else { Err(AuthError::InvitationInvalid) }
}
