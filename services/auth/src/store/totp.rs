//! Authenticators of users, and their recovery codes.

use chrono::{DateTime, Utc};
use common::UserId;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::store::users::users;

diesel::table! {
    recovery_codes (user_uuid, code_hash) {
        user_uuid -> Uuid,
        code_hash -> Bytea,
    }
}

/// Keeps a secret that waits for its first code, instead of one that waited before.
pub(crate) async fn put_pending(conn: &mut AsyncPgConnection, user_id: UserId, sealed: &[u8]) -> QueryResult<()> {
    diesel::update(users::table.find(user_id.0))
        .filter(users::user_totp_enabled_at.is_null())
        .set((users::user_totp_secret.eq(sealed), users::user_totp_last_step.eq(0)))
        .execute(conn)
        .await?;
    Ok(())
}

/// The sealed secret, whether it counts already or waits for its first code.
pub(crate) async fn find_secret(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<Option<Vec<u8>>> {
    let secret: Option<Option<Vec<u8>>> =
        users::table.find(user_id.0).select(users::user_totp_secret).first(conn).await.optional()?;
    Ok(secret.flatten())
}

/// The authenticator counts from now on.
pub(crate) async fn enable(conn: &mut AsyncPgConnection, user_id: UserId, now: DateTime<Utc>) -> QueryResult<()> {
    diesel::update(users::table.find(user_id.0)).set(users::user_totp_enabled_at.eq(now)).execute(conn).await?;
    Ok(())
}

/// Takes the authenticator away, and the recovery codes with it.
pub(crate) async fn disable(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<()> {
    diesel::update(users::table.find(user_id.0))
        .set((users::user_totp_enabled_at.eq(None::<DateTime<Utc>>), users::user_totp_secret.eq(None::<Vec<u8>>)))
        .execute(conn)
        .await?;
    put_recovery_codes(conn, user_id, &[]).await
}

/// Takes the code of this step. `false` when it, or a later one, was taken before.
pub(crate) async fn accept_step(conn: &mut AsyncPgConnection, user_id: UserId, step: i64) -> QueryResult<bool> {
    let accepted = diesel::update(users::table.find(user_id.0))
        .filter(users::user_totp_last_step.lt(step))
        .set(users::user_totp_last_step.eq(step))
        .execute(conn)
        .await?;
    Ok(accepted == 1)
}

/// These recovery codes count from now on, and no others.
pub(crate) async fn put_recovery_codes(
    conn: &mut AsyncPgConnection,
    user_id: UserId,
    hashes: &[Vec<u8>],
) -> QueryResult<()> {
    diesel::delete(recovery_codes::table).filter(recovery_codes::user_uuid.eq(user_id.0)).execute(conn).await?;
    let rows: Vec<_> = hashes
        .iter()
        .map(|hash| (recovery_codes::user_uuid.eq(user_id.0), recovery_codes::code_hash.eq(hash)))
        .collect();
    diesel::insert_into(recovery_codes::table).values(rows).execute(conn).await?;
    Ok(())
}

/// Uses a recovery code up. `false` when there is none such.
pub(crate) async fn use_recovery_code(conn: &mut AsyncPgConnection, user_id: UserId, hash: &[u8]) -> QueryResult<bool> {
    let code = recovery_codes::table.find((user_id.0, hash));
    Ok(diesel::delete(code).execute(conn).await? == 1)
}

/// How many recovery codes are left.
pub(crate) async fn count_recovery_codes(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<i64> {
    recovery_codes::table.filter(recovery_codes::user_uuid.eq(user_id.0)).count().get_result(conn).await
}
