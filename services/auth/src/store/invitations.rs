//! Invitations to register.

use chrono::{DateTime, Utc};
use common::{InvitationId, Page, PageQuery, Role, UserId};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::domain::Invitation;

diesel::table! {
    invitations (invitation_id) {
        invitation_id -> Uuid,
        invited_by -> Nullable<Uuid>,
        invited_email -> Nullable<Varchar>,
        invited_role -> Varchar,
        invitation_created_at -> Timestamptz,
        invitation_expires_at -> Timestamptz,
        invitation_used_at -> Nullable<Timestamptz>,
        used_by -> Nullable<Uuid>,
    }
}

/// No export lists more of them.
const MOST_OF_ONE: i64 = 10_000;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = invitations)]
struct InvitationRow {
    invitation_id: Uuid,
    invited_by: Option<Uuid>,
    invited_email: Option<String>,
    invited_role: String,
    invitation_created_at: DateTime<Utc>,
    invitation_expires_at: DateTime<Utc>,
    invitation_used_at: Option<DateTime<Utc>>,
    used_by: Option<Uuid>,
}

impl From<InvitationRow> for Invitation {
    fn from(row: InvitationRow) -> Self {
        Self {
            invitation_id: InvitationId(row.invitation_id),
            invited_by: row.invited_by.map(UserId),
            email: row.invited_email,
            role: if row.invited_role == Role::Admin.to_string() { Role::Admin } else { Role::Member },
            created_at: row.invitation_created_at,
            expires_at: row.invitation_expires_at,
            used_at: row.invitation_used_at,
            used_by: row.used_by.map(UserId),
        }
    }
}

pub(crate) async fn insert(conn: &mut AsyncPgConnection, invitation: &Invitation) -> QueryResult<()> {
    let row = InvitationRow {
        invitation_id: invitation.invitation_id.0,
        invited_by: invitation.invited_by.map(|user_id| user_id.0),
        invited_email: invitation.email.clone(),
        invited_role: invitation.role.to_string(),
        invitation_created_at: invitation.created_at,
        invitation_expires_at: invitation.expires_at,
        invitation_used_at: invitation.used_at,
        used_by: invitation.used_by.map(|user_id| user_id.0),
    };
    diesel::insert_into(invitations::table).values(row).execute(conn).await?;
    Ok(())
}

/// The invitation that nobody has used and whose time is not over, held until the transaction ends.
pub(crate) async fn lock_open(
    conn: &mut AsyncPgConnection,
    id: InvitationId,
    now: DateTime<Utc>,
) -> QueryResult<Option<Invitation>> {
    let row: Option<InvitationRow> = invitations::table
        .find(id.0)
        .filter(invitations::invitation_used_at.is_null())
        .filter(invitations::invitation_expires_at.gt(now))
        .select(InvitationRow::as_select())
        .for_update()
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(Invitation::from))
}

/// Notes who has used it.
pub(crate) async fn set_used(
    conn: &mut AsyncPgConnection,
    id: InvitationId,
    by: UserId,
    now: DateTime<Utc>,
) -> QueryResult<()> {
    diesel::update(invitations::table.find(id.0))
        .set((invitations::invitation_used_at.eq(now), invitations::used_by.eq(by.0)))
        .execute(conn)
        .await?;
    Ok(())
}

/// Withdraws it, or forgets that it was used. `false` when there is none such.
pub(crate) async fn delete(conn: &mut AsyncPgConnection, id: InvitationId) -> QueryResult<bool> {
    Ok(diesel::delete(invitations::table.find(id.0)).execute(conn).await? == 1)
}

/// One page of all of them, the newest first.
pub(crate) async fn page(conn: &mut AsyncPgConnection, query: PageQuery) -> QueryResult<Page<Invitation>> {
    let total = invitations::table.count().get_result(conn).await?;
    let rows: Vec<InvitationRow> = invitations::table
        .order(invitations::invitation_id.desc())
        .limit(i64::from(query.limit))
        .offset(query.offset())
        .select(InvitationRow::as_select())
        .load(conn)
        .await?;
    Ok(Page::new(rows.into_iter().map(Invitation::from).collect(), query, total))
}

/// Those that the user has issued or used, the newest first.
pub(crate) async fn of_user(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<Vec<Invitation>> {
    let rows: Vec<InvitationRow> = invitations::table
        .filter(invitations::invited_by.eq(user_id.0).or(invitations::used_by.eq(user_id.0)))
        .order(invitations::invitation_id.desc())
        .limit(MOST_OF_ONE)
        .select(InvitationRow::as_select())
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(Invitation::from).collect())
}
