//! Names and e-mail addresses of users, as auth tells them.

use std::collections::HashSet;

use common::UserId;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

diesel::table! {
    users (user_id) {
        user_id -> Uuid,
        full_name -> Varchar,
        email -> Nullable<Varchar>,
    }
}

/// Keeps the user's name and address; newer ones replace older.
pub(crate) async fn put(
    conn: &mut AsyncPgConnection,
    user_id: UserId,
    full_name: &str,
    email: Option<&str>,
) -> QueryResult<()> {
    diesel::insert_into(users::table)
        .values((users::user_id.eq(user_id.0), users::full_name.eq(full_name), users::email.eq(email)))
        .on_conflict(users::user_id)
        .do_update()
        .set((users::full_name.eq(full_name), users::email.eq(email)))
        .execute(conn)
        .await?;
    Ok(())
}

/// Keeps the address of a user whose name is known. Whoever is not is gone.
pub(crate) async fn put_email(conn: &mut AsyncPgConnection, user_id: UserId, email: &str) -> QueryResult<()> {
    diesel::update(users::table.find(user_id.0)).set(users::email.eq(email)).execute(conn).await?;
    Ok(())
}

/// Forgets the user's name and address.
pub(crate) async fn forget(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<()> {
    diesel::delete(users::table.find(user_id.0)).execute(conn).await?;
    Ok(())
}

/// One of these of whom auth has not told, if there is one.
pub(crate) async fn find_unknown(conn: &mut AsyncPgConnection, ids: &[UserId]) -> QueryResult<Option<UserId>> {
    let uuids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let known: HashSet<uuid::Uuid> = users::table
        .filter(users::user_id.eq_any(uuids))
        .select(users::user_id)
        .load(conn)
        .await?
        .into_iter()
        .collect();
    Ok(ids.iter().copied().find(|id| !known.contains(&id.0)))
}
