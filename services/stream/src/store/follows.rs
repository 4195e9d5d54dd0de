//! Who follows a channel, that is all streams of a user.

use chrono::{DateTime, Utc};
use common::{Page, PageQuery, UserId};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::store::streams::streams;
use crate::store::users::users;

diesel::table! {
    follows (channel_id, user_id) {
        channel_id -> Uuid,
        user_id -> Uuid,
        by_mail -> Bool,
        followed_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(follows, users);
diesel::allow_tables_to_appear_in_same_query!(follows, streams);

/// A channel that somebody follows.
pub(crate) struct Followed {
    pub(crate) channel_id: UserId,
    pub(crate) user_name: Option<String>,
    pub(crate) by_mail: bool,
    pub(crate) followed_at: DateTime<Utc>,
    pub(crate) live_streams: i64,
}

/// A channel, as `caller` sees it.
pub(crate) struct Channel {
    pub(crate) user_name: String,
    pub(crate) followers: i64,
    /// Whether the caller is one of them, if there is a caller, and wants mails.
    pub(crate) follows_by_mail: Option<bool>,
    pub(crate) live_streams: i64,
}

/// Makes `user` follow the channel; whoever does already says anew whether by mail. In a transaction of the caller's.
///
/// `false`: there is no such channel. It stays until the transaction ends, so that no follow outlives it.
pub(crate) async fn put(
    conn: &mut AsyncPgConnection,
    channel: UserId,
    user: UserId,
    by_mail: bool,
    now: DateTime<Utc>,
) -> QueryResult<bool> {
    let held: Option<Uuid> =
        users::table.find(channel.0).select(users::user_id).for_key_share().first(conn).await.optional()?;
    if held.is_none() {
        return Ok(false);
    }
    diesel::insert_into(follows::table)
        .values((
            follows::channel_id.eq(channel.0),
            follows::user_id.eq(user.0),
            follows::by_mail.eq(by_mail),
            follows::followed_at.eq(now),
        ))
        .on_conflict((follows::channel_id, follows::user_id))
        .do_update()
        .set(follows::by_mail.eq(by_mail))
        .execute(conn)
        .await?;
    Ok(true)
}

/// Makes `user` follow the channel no more. A repeat changes nothing.
pub(crate) async fn remove(conn: &mut AsyncPgConnection, channel: UserId, user: UserId) -> QueryResult<()> {
    diesel::delete(follows::table.find((channel.0, user.0))).execute(conn).await?;
    Ok(())
}

/// Forgets whom the user follows, and who follows the user. Call it when the user's name is forgotten.
pub(crate) async fn forget(conn: &mut AsyncPgConnection, user: UserId) -> QueryResult<()> {
    diesel::delete(follows::table.filter(follows::channel_id.eq(user.0))).execute(conn).await?;
    diesel::delete(follows::table.filter(follows::user_id.eq(user.0))).execute(conn).await?;
    Ok(())
}

/// `None`: there is no such channel.
pub(crate) async fn find(
    conn: &mut AsyncPgConnection,
    channel: UserId,
    caller: Option<UserId>,
) -> QueryResult<Option<Channel>> {
    let name: Option<String> = users::table.find(channel.0).select(users::full_name).first(conn).await.optional()?;
    let Some(user_name) = name else { return Ok(None) };
    let followers = follows::table.filter(follows::channel_id.eq(channel.0)).count().get_result(conn).await?;
    let follows_by_mail = match caller {
        Some(caller) => {
            follows::table.find((channel.0, caller.0)).select(follows::by_mail).first(conn).await.optional()?
        }
        None => None,
    };
    let live = live_streams(conn, &[channel.0]).await?;
    let live_streams = live.iter().map(|(_, count)| *count).sum();
    Ok(Some(Channel { user_name, followers, follows_by_mail, live_streams }))
}

/// A page of the channels that `user` follows, the latest first.
pub(crate) async fn page(conn: &mut AsyncPgConnection, user: UserId, query: PageQuery) -> QueryResult<Page<Followed>> {
    type Row = (Uuid, Option<String>, bool, DateTime<Utc>);
    let of_user = || follows::table.filter(follows::user_id.eq(user.0));
    let total = of_user().count().get_result(conn).await?;
    let rows: Vec<Row> = of_user()
        .left_join(users::table.on(users::user_id.eq(follows::channel_id)))
        .order((follows::followed_at.desc(), follows::channel_id))
        .limit(i64::from(query.limit))
        .offset(query.offset())
        .select((follows::channel_id, users::full_name.nullable(), follows::by_mail, follows::followed_at))
        .load(conn)
        .await?;
    let live = live_streams(conn, &rows.iter().map(|row| row.0).collect::<Vec<_>>()).await?;
    let followed = rows.into_iter().map(|(channel, user_name, by_mail, followed_at)| Followed {
        channel_id: UserId(channel),
        user_name,
        by_mail,
        followed_at,
        live_streams: live.iter().find(|(of, _)| *of == channel).map_or(0, |(_, count)| *count),
    });
    Ok(Page::new(followed.collect(), query, total))
}

/// How many public streams of each of these users are live; those without are not in it.
async fn live_streams(conn: &mut AsyncPgConnection, channels: &[Uuid]) -> QueryResult<Vec<(Uuid, i64)>> {
    streams::table
        .filter(streams::user_id.eq_any(channels))
        .filter(streams::status.eq("live"))
        .filter(streams::visibility.eq("public"))
        .group_by(streams::user_id)
        .select((streams::user_id, diesel::dsl::count_star()))
        .load(conn)
        .await
}

/// Who follows the channel, in the order of their ids, after `after`; and whether by mail.
pub(crate) async fn after(
    conn: &mut AsyncPgConnection,
    channel: UserId,
    after: Option<UserId>,
    most: i64,
) -> QueryResult<Vec<(UserId, bool)>> {
    let rows: Vec<(Uuid, bool)> = follows::table
        .filter(follows::channel_id.eq(channel.0))
        .filter(follows::user_id.gt(after.map_or(Uuid::nil(), |user| user.0)))
        .order(follows::user_id)
        .limit(most)
        .select((follows::user_id, follows::by_mail))
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(|(user, by_mail)| (UserId(user), by_mail)).collect())
}
