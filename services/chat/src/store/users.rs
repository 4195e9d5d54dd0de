//! Names of users, as auth tells them.

use common::UserId;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

diesel::table! {
    users (user_id) {
        user_id -> Uuid,
        full_name -> Varchar,
    }
}

/// Keeps the user's name; a newer one replaces an older.
pub(crate) async fn put(conn: &mut AsyncPgConnection, user_id: UserId, full_name: &str) -> QueryResult<()> {
    diesel::insert_into(users::table)
        .values((users::user_id.eq(user_id.0), users::full_name.eq(full_name)))
        .on_conflict(users::user_id)
        .do_update()
        .set(users::full_name.eq(full_name))
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets the user's name.
pub(crate) async fn forget(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<()> {
    diesel::delete(users::table.find(user_id.0)).execute(conn).await?;
    Ok(())
}

/// Whether auth has told of this user.
pub(crate) async fn is_known(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<bool> {
    diesel::select(diesel::dsl::exists(users::table.find(user_id.0))).get_result(conn).await
}
