//! Accounts.

use chrono::{DateTime, Utc};
use common::{Role, UserId};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use events::UserRegistered;
use uuid::Uuid;

use crate::domain::{Email, Registration, User};

diesel::table! {
    users (user_uuid) {
        user_uuid -> Uuid,
        user_email -> Varchar,
        user_password -> Varchar,
        user_fullname -> Varchar,
        user_role -> Varchar,
        user_created_at -> Timestamptz,
        user_updated_at -> Timestamptz,
    }
}

/// Whoever makes the first administrator holds this advisory lock.
const FIRST_ADMIN_LOCK: i64 = 0x6164_6d69_6e31;

/// An account that is about to be made.
pub(crate) struct NewUser {
    user: User,
    password_hash: String,
}

impl NewUser {
    pub(crate) fn new(registration: &Registration, password_hash: String, role: Role, now: DateTime<Utc>) -> Self {
        let user = User {
            user_id: UserId::new(),
            email: registration.email.to_string(),
            full_name: registration.full_name.clone(),
            role,
            created_at: now,
            updated_at: now,
        };
        Self { user, password_hash }
    }
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = users)]
pub(super) struct UserRow {
    user_uuid: Uuid,
    user_email: String,
    user_password: String,
    user_fullname: String,
    user_role: String,
    user_created_at: DateTime<Utc>,
    user_updated_at: DateTime<Utc>,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self {
            user_id: UserId(row.user_uuid),
            email: row.user_email,
            full_name: row.user_fullname,
            role: if row.user_role == "Admin" { Role::Admin } else { Role::Member },
            created_at: row.user_created_at,
            updated_at: row.user_updated_at,
        }
    }
}

/// Stores the account and tells everybody, in the caller's transaction. `None` when its e-mail address is taken.
pub(crate) async fn insert(conn: &mut AsyncPgConnection, new: &NewUser) -> QueryResult<Option<User>> {
    let user = &new.user;
    let row = UserRow {
        user_uuid: user.user_id.0,
        user_email: user.email.clone(),
        user_password: new.password_hash.clone(),
        user_fullname: user.full_name.clone(),
        user_role: user.role.to_string(),
        user_created_at: user.created_at,
        user_updated_at: user.updated_at,
    };
    let inserted =
        diesel::insert_into(users::table).values(row).on_conflict(users::user_email).do_nothing().execute(conn).await?;
    if inserted == 0 {
        return Ok(None);
    }
    let registered = UserRegistered { user_id: user.user_id, full_name: user.full_name.clone(), role: user.role };
    outbox::enqueue(conn, &registered, user.created_at).await?;
    Ok(Some(user.clone()))
}

/// The account of this address, and the hash of its password.
pub(crate) async fn find_by_email(conn: &mut AsyncPgConnection, email: &Email) -> QueryResult<Option<(User, String)>> {
    let row: Option<UserRow> = users::table
        .filter(users::user_email.eq(email.as_str()))
        .select(UserRow::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(|row| {
        let hash = row.user_password.clone();
        (row.into(), hash)
    }))
}

pub(crate) async fn has_admin(conn: &mut AsyncPgConnection) -> QueryResult<bool> {
    let admins = users::table.filter(users::user_role.eq(Role::Admin.to_string()));
    diesel::select(diesel::dsl::exists(admins)).get_result(conn).await
}

/// Until the transaction ends, nobody else makes the first administrator.
pub(crate) async fn lock_first_admin(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    diesel::sql_query(format!("select pg_advisory_xact_lock({FIRST_ADMIN_LOCK})")).execute(conn).await?;
    Ok(())
}
