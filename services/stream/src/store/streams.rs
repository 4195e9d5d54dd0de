//! Streams.

use chrono::{DateTime, Utc};
use common::{Page, PageQuery, StreamId, UserId};
use diesel::prelude::*;
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::domain::{Description, Status, Stream, Visibility};
use crate::store::users::users;

diesel::table! {
    streams (id) {
        id -> BigInt,
        user_id -> Uuid,
        playback_id -> Uuid,
        title -> Varchar,
        description -> Nullable<Text>,
        status -> Text,
        visibility -> Text,
        featured -> Bool,
        scheduled_at -> Nullable<Timestamptz>,
        refused_until -> Nullable<Timestamptz>,
        followers_told_at -> Nullable<Timestamptz>,
        soon_told_at -> Nullable<Timestamptz>,
        hls_viewers -> Integer,
        start_time -> Nullable<Timestamptz>,
        end_time -> Nullable<Timestamptz>,
        viewer_count -> Integer,
        thumbnail -> Nullable<Varchar>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(streams, users);

#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = streams)]
pub(crate) struct StreamRow {
    id: i64,
    user_id: Uuid,
    playback_id: Uuid,
    title: String,
    description: Option<String>,
    status: String,
    visibility: String,
    featured: bool,
    scheduled_at: Option<DateTime<Utc>>,
    refused_until: Option<DateTime<Utc>>,
    followers_told_at: Option<DateTime<Utc>>,
    start_time: Option<DateTime<Utc>>,
    end_time: Option<DateTime<Utc>>,
    viewer_count: i32,
    thumbnail: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl StreamRow {
    pub(crate) fn named(self, user_name: Option<String>) -> Stream {
        Stream {
            id: StreamId(self.id),
            user_id: UserId(self.user_id),
            user_name,
            playback_id: self.playback_id,
            title: self.title,
            description: self.description,
            status: if self.status == Status::Live.as_str() { Status::Live } else { Status::Ended },
            visibility: visibility_of(&self.visibility),
            featured: self.featured,
            scheduled_at: self.scheduled_at,
            pictured_at: None,
            refused_until: self.refused_until,
            followers_told_at: self.followers_told_at,
            start_time: self.start_time,
            end_time: self.end_time,
            viewer_count: self.viewer_count,
            thumbnail: self.thumbnail,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

fn visibility_of(text: &str) -> Visibility {
    let all = [Visibility::Public, Visibility::Unlisted, Visibility::Private];
    // What is not known is shown to nobody.
    all.into_iter().find(|visibility| visibility.as_str() == text).unwrap_or(Visibility::Private)
}

pub(crate) async fn insert(
    conn: &mut AsyncPgConnection,
    owner: UserId,
    about: &Description,
    now: DateTime<Utc>,
) -> QueryResult<StreamId> {
    diesel::insert_into(streams::table)
        .values((
            streams::user_id.eq(owner.0),
            streams::playback_id.eq(Uuid::new_v4()),
            streams::title.eq(about.title.as_deref().unwrap_or_default()),
            streams::description.eq(&about.description),
            streams::thumbnail.eq(&about.thumbnail),
            streams::created_at.eq(now),
            streams::updated_at.eq(now),
        ))
        .returning(streams::id)
        .get_result(conn)
        .await
        .map(StreamId)
}

pub(crate) async fn find(conn: &mut AsyncPgConnection, id: StreamId) -> QueryResult<Option<Stream>> {
    let row: Option<(StreamRow, Option<String>)> = streams::table
        .left_join(users::table.on(users::user_id.eq(streams::user_id)))
        .filter(streams::id.eq(id.0))
        .select((StreamRow::as_select(), users::full_name.nullable()))
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(|(row, name)| row.named(name)))
}

/// One page of the list: live streams first, and the newest first among each.
pub(crate) async fn page(
    conn: &mut AsyncPgConnection,
    status: Option<Status>,
    query: PageQuery,
) -> QueryResult<Page<Stream>> {
    let wanted = || {
        let mut wanted = streams::table.into_boxed();
        if let Some(status) = status {
            wanted = wanted.filter(streams::status.eq(status.as_str()));
        }
        wanted
    };
    let total = wanted().count().get_result(conn).await?;
    let ids = wanted()
        .order((diesel::dsl::sql::<Bool>("(status = 'live') desc"), streams::id.desc()))
        .limit(i64::from(query.limit))
        .offset(query.offset())
        .select(streams::id)
        .load::<i64>(conn)
        .await?;
    let rows: Vec<(StreamRow, Option<String>)> = streams::table
        .left_join(users::table.on(users::user_id.eq(streams::user_id)))
        .filter(streams::id.eq_any(&ids))
        .select((StreamRow::as_select(), users::full_name.nullable()))
        .load(conn)
        .await?;
    let mut items: Vec<_> = rows.into_iter().map(|(row, name)| row.named(name)).collect();
    items.sort_by_key(|stream| ids.iter().position(|id| *id == stream.id.0));
    Ok(Page::new(items, query, total))
}

/// The stream, held until the transaction ends.
pub(crate) async fn lock(conn: &mut AsyncPgConnection, id: StreamId) -> QueryResult<Option<Stream>> {
    let row: Option<StreamRow> = streams::table
        .filter(streams::id.eq(id.0))
        .select(StreamRow::as_select())
        .for_update()
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(|row| row.named(None)))
}

/// All streams of the user, held until the transaction ends.
pub(crate) async fn lock_all_of(conn: &mut AsyncPgConnection, user_id: UserId) -> QueryResult<Vec<Stream>> {
    let rows: Vec<StreamRow> = streams::table
        .filter(streams::user_id.eq(user_id.0))
        .order(streams::id)
        .select(StreamRow::as_select())
        .for_update()
        .load(conn)
        .await?;
    Ok(rows.into_iter().map(|row| row.named(None)).collect())
}

/// Deletes these streams, and with them their keys, broadcasts and recordings.
pub(crate) async fn delete(conn: &mut AsyncPgConnection, ids: &[StreamId]) -> QueryResult<()> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    diesel::delete(streams::table.filter(streams::id.eq_any(ids))).execute(conn).await?;
    Ok(())
}

/// Changes what the owner says of the stream; what is left out stays.
pub(crate) async fn describe(
    conn: &mut AsyncPgConnection,
    id: StreamId,
    about: &Description,
    now: DateTime<Utc>,
) -> QueryResult<()> {
    #[derive(AsChangeset)]
    #[diesel(table_name = streams)]
    struct Changes<'a> {
        title: Option<&'a str>,
        description: Option<&'a str>,
        thumbnail: Option<&'a str>,
        updated_at: DateTime<Utc>,
    }
    let changes = Changes {
        title: about.title.as_deref(),
        description: about.description.as_deref(),
        thumbnail: about.thumbnail.as_deref(),
        updated_at: now,
    };
    diesel::update(streams::table.find(id.0)).set(changes).execute(conn).await?;
    Ok(())
}

/// The stream that viewers know by this name.
pub(crate) async fn find_by_playback(conn: &mut AsyncPgConnection, playback_id: Uuid) -> QueryResult<Option<Stream>> {
    let row: Option<StreamRow> = streams::table
        .filter(streams::playback_id.eq(playback_id))
        .select(StreamRow::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.map(|row| row.named(None)))
}
