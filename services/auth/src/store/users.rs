//! Accounts.

use chrono::{DateTime, Utc};
use common::page::PageQuery;
use common::{Role, UserId};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use events::{UserDeleted, UserEmailChanged, UserRegistered, UserReinstated, UserRoleChanged, UserSuspended};
use uuid::Uuid;

use crate::domain::{Registration, Suspension, User};
use crate::store::sessions;
use crate::store::trust::{self, Notice};

diesel::table! {
    users (user_uuid) {
        user_uuid -> Uuid,
        user_email -> Varchar,
        user_password -> Varchar,
        user_fullname -> Varchar,
        user_role -> Varchar,
        user_created_at -> Timestamptz,
        user_updated_at -> Timestamptz,
        user_suspended_at -> Nullable<Timestamptz>,
        user_suspended_reason -> Nullable<Varchar>,
        user_role_told_until -> Nullable<Timestamptz>,
        user_email_verified_at -> Nullable<Timestamptz>,
        user_totp_secret -> Nullable<Bytea>,
        user_totp_enabled_at -> Nullable<Timestamptz>,
        user_totp_last_step -> BigInt,
    }
}

/// Whoever changes who the administrators are holds this advisory lock.
const ADMINS_LOCK: i64 = 0x6164_6d69_6e31;

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
            suspension: None,
            email_verified_at: None,
            totp_enabled_at: None,
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
    user_suspended_at: Option<DateTime<Utc>>,
    user_suspended_reason: Option<String>,
    user_email_verified_at: Option<DateTime<Utc>>,
    user_totp_enabled_at: Option<DateTime<Utc>>,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        let reason = row.user_suspended_reason.unwrap_or_default();
        Self {
            user_id: UserId(row.user_uuid),
            email: row.user_email,
            full_name: row.user_fullname,
            role: role_of(&row.user_role),
            created_at: row.user_created_at,
            updated_at: row.user_updated_at,
            suspension: row.user_suspended_at.map(|since| Suspension { since, reason }),
            email_verified_at: row.user_email_verified_at,
            totp_enabled_at: row.user_totp_enabled_at,
        }
    }
}

/// A role as the table has it: it takes no other text than these two.
pub(super) fn role_of(text: &str) -> Role {
    if text == "Admin" { Role::Admin } else { Role::Member }
}

/// The addresses of those of `ids` who have confirmed theirs, and are not suspended.
pub(crate) async fn find_confirmed(conn: &mut AsyncPgConnection, ids: &[UserId]) -> QueryResult<Vec<(UserId, String)>> {
    let rows: Vec<(Uuid, String)> = users::table
        .filter(users::user_uuid.eq_any(ids.iter().map(|id| id.0)))
        .filter(users::user_email_verified_at.is_not_null())
        .filter(users::user_suspended_at.is_null())
        .select((users::user_uuid, users::user_email))
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(|(id, email)| (UserId(id), email)).collect())
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
        user_suspended_at: None,
        user_suspended_reason: None,
        user_email_verified_at: user.email_verified_at,
        user_totp_enabled_at: user.totp_enabled_at,
    };
    let inserted =
        diesel::insert_into(users::table).values(row).on_conflict(users::user_email).do_nothing().execute(conn).await?;
    if inserted == 0 {
        return Ok(None);
    }
    let registered = UserRegistered {
        user_id: user.user_id,
        full_name: user.full_name.clone(),
        role: user.role,
        email: Some(user.email.clone()),
    };
    outbox::enqueue(conn, &registered, user.created_at).await?;
    Ok(Some(user.clone()))
}

/// The account of this address, and the hash of its password. What is no address is nobody's, and takes as long.
pub(crate) async fn find_by_email(conn: &mut AsyncPgConnection, email: &str) -> QueryResult<Option<(User, String)>> {
    let row: Option<UserRow> =
        users::table.filter(users::user_email.eq(email)).select(UserRow::as_select()).first(conn).await.optional()?;
    Ok(row.map(with_hash))
}

pub(crate) async fn find(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<Option<User>> {
    let row: Option<UserRow> =
        users::table.find(user_id.0).select(UserRow::as_select()).first(conn).await.optional()?;
    Ok(row.map(User::from))
}

/// The account and the hash of its password, locked: until the transaction ends nothing of it changes, and no session of
/// it begins or is refreshed.
pub(crate) async fn lock(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<Option<(User, String)>> {
    let row: Option<UserRow> =
        users::table.find(user_id.0).select(UserRow::as_select()).for_no_key_update().first(conn).await.optional()?;
    Ok(row.map(with_hash))
}

fn with_hash(row: UserRow) -> (User, String) {
    let hash = row.user_password.clone();
    (row.into(), hash)
}

/// A page of all accounts, the oldest first, and how many there are. `search` is part of a name or an address.
pub(crate) async fn page(
    conn: &mut AsyncPgConnection,
    search: &str,
    query: PageQuery,
) -> QueryResult<(Vec<User>, i64)> {
    let escaped = search.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    let pattern = format!("%{escaped}%");
    let is_found = || users::user_fullname.ilike(pattern.clone()).or(users::user_email.ilike(pattern.clone()));
    let total = users::table.filter(is_found()).count().get_result(conn).await?;
    let rows: Vec<UserRow> = users::table
        .filter(is_found())
        .order((users::user_created_at, users::user_uuid))
        .limit(i64::from(query.limit))
        .offset(query.offset())
        .select(UserRow::as_select())
        .load(conn)
        .await?;
    Ok((rows.into_iter().map(User::from).collect(), total))
}

/// Stores another hash of the password: of a new one, or a better hash of the same.
pub(crate) async fn set_password_hash(conn: &mut AsyncPgConnection, user_id: UserId, hash: &str) -> QueryResult<()> {
    diesel::update(users::table.find(user_id.0)).set(users::user_password.eq(hash)).execute(conn).await?;
    Ok(())
}

/// Gives the user, who is locked, another role, and tells everybody. Their tokens stay good: what is told overrules them.
pub(crate) async fn set_role(
    conn: &mut AsyncPgConnection,
    user: &User,
    role: Role,
    now: DateTime<Utc>,
) -> QueryResult<()> {
    let told_until = sessions::last_token_of(conn, user.user_id).await?;
    diesel::update(users::table.find(user.user_id.0))
        .set((
            users::user_role.eq(role.to_string()),
            users::user_updated_at.eq(now),
            users::user_role_told_until.eq(told_until),
        ))
        .execute(conn)
        .await?;
    trust::tell(conn, &Notice::Roles).await?;
    outbox::enqueue(conn, &UserRoleChanged { user_id: user.user_id, role }, now).await?;
    Ok(())
}

/// Shuts the user, who is locked, out, and tells everybody: all sessions end. A repeat changes the reason.
pub(crate) async fn suspend(
    conn: &mut AsyncPgConnection,
    user: &User,
    reason: &str,
    now: DateTime<Utc>,
) -> QueryResult<()> {
    let since = user.suspension.as_ref().map_or(now, |suspension| suspension.since);
    diesel::update(users::table.find(user.user_id.0))
        .set((
            users::user_suspended_at.eq(since),
            users::user_suspended_reason.eq(reason),
            users::user_updated_at.eq(now),
        ))
        .execute(conn)
        .await?;
    if user.suspension.is_none() {
        sessions::end_all_of(conn, user.user_id, None, now).await?;
        outbox::enqueue(conn, &UserSuspended { user_id: user.user_id }, now).await?;
    }
    Ok(())
}

/// Lets the user, who is locked, in again, and tells everybody.
pub(crate) async fn reinstate(conn: &mut AsyncPgConnection, user: &User, now: DateTime<Utc>) -> QueryResult<()> {
    diesel::update(users::table.find(user.user_id.0))
        .set((
            users::user_suspended_at.eq(None::<DateTime<Utc>>),
            users::user_suspended_reason.eq(None::<String>),
            users::user_updated_at.eq(now),
        ))
        .execute(conn)
        .await?;
    outbox::enqueue(conn, &UserReinstated { user_id: user.user_id }, now).await?;
    Ok(())
}

/// The user's address, as it is now.
pub(crate) async fn find_email(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<Option<String>> {
    users::table.find(user_id.0).select(users::user_email).first(conn).await.optional()
}

/// Whose address it is. `email` is in lower case, as [`Email`] has it.
pub(crate) async fn find_id_by_email(conn: &mut AsyncPgConnection, email: &str) -> QueryResult<Option<UserId>> {
    let id: Option<Uuid> =
        users::table.filter(users::user_email.eq(email)).select(users::user_uuid).first(conn).await.optional()?;
    Ok(id.map(UserId))
}

/// The user has shown that the address is theirs. The first time counts.
pub(crate) async fn set_email_verified(
    conn: &mut AsyncPgConnection,
    user_id: UserId,
    now: DateTime<Utc>,
) -> QueryResult<()> {
    diesel::update(users::table.find(user_id.0))
        .filter(users::user_email_verified_at.is_null())
        .set(users::user_email_verified_at.eq(now))
        .execute(conn)
        .await?;
    Ok(())
}

/// Gives the user another address, which is known to be theirs, and tells everybody. `false` when somebody else has it.
pub(crate) async fn set_email(
    conn: &mut AsyncPgConnection,
    user_id: UserId,
    email: &str,
    now: DateTime<Utc>,
) -> QueryResult<bool> {
    let updated = diesel::update(users::table.find(user_id.0))
        .set((users::user_email.eq(email), users::user_email_verified_at.eq(now), users::user_updated_at.eq(now)))
        .execute(conn)
        .await;
    match updated {
        Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, info))
            if info.constraint_name() == Some("users_user_email_key") =>
        {
            Ok(false)
        }
        updated => {
            updated?;
            outbox::enqueue(conn, &UserEmailChanged { user_id, email: email.to_owned() }, now).await?;
            Ok(true)
        }
    }
}

pub(crate) async fn has_admin(conn: &mut AsyncPgConnection) -> QueryResult<bool> {
    let admins = users::table.filter(users::user_role.eq(Role::Admin.to_string()));
    diesel::select(diesel::dsl::exists(admins)).get_result(conn).await
}

/// Whether an administrator who is not suspended remains without this user. Take [`lock_admins`] first.
pub(crate) async fn has_other_admin(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<bool> {
    let others = users::table
        .filter(users::user_role.eq(Role::Admin.to_string()))
        .filter(users::user_suspended_at.is_null())
        .filter(users::user_uuid.ne(user_id.0));
    diesel::select(diesel::dsl::exists(others)).get_result(conn).await
}

/// Until the transaction ends, nobody else changes who the administrators are. Before any user is locked.
pub(crate) async fn lock_admins(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    diesel::sql_query(format!("select pg_advisory_xact_lock({ADMINS_LOCK})")).execute(conn).await?;
    Ok(())
}

/// Forgets the account, which is locked, and tells everybody. Its sessions must have ended: their rows go with it.
pub(crate) async fn delete(conn: &mut AsyncPgConnection, user_id: UserId, now: DateTime<Utc>) -> QueryResult<()> {
    diesel::delete(users::table.find(user_id.0)).execute(conn).await?;
    outbox::enqueue(conn, &UserDeleted { user_id }, now).await?;
    Ok(())
}
