//! Streams.

use chrono::{DateTime, TimeDelta, Utc};
use common::{PageQuery, StreamId, UserId};
use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::domain::{Description, Sort, Status, Stream, StreamName, Visibility, Wanted, Which};
use crate::store::thumbnails::thumbnails;
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

diesel::allow_tables_to_appear_in_same_query!(streams, users, thumbnails);

/// A stream that was announced is upcoming for so long after it should have begun.
const LATE: TimeDelta = TimeDelta::hours(1);

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
            streams::description.eq(about.description.as_ref().and_then(Option::as_ref)),
            streams::thumbnail.eq(about.thumbnail.as_ref().and_then(Option::as_ref)),
            streams::scheduled_at.eq(about.scheduled_at.flatten()),
            streams::visibility.eq(about.visibility.unwrap_or_default().as_str()),
            streams::featured.eq(about.featured.unwrap_or_default()),
            streams::created_at.eq(now),
            streams::updated_at.eq(now),
        ))
        .returning(streams::id)
        .get_result(conn)
        .await
        .map(StreamId)
}

/// What is read of a stream where it is shown.
type Shown = (StreamRow, Option<String>, Option<DateTime<Utc>>);

fn shown((row, user_name, pictured_at): Shown) -> Stream {
    Stream { pictured_at, ..row.named(user_name) }
}

/// The streams of a query, with what is shown of them.
macro_rules! show {
    ($streams:expr) => {
        $streams
            .left_join(users::table.on(users::user_id.eq(streams::user_id)))
            .left_join(thumbnails::table.on(thumbnails::stream_id.eq(streams::id)))
            .select((StreamRow::as_select(), users::full_name.nullable(), thumbnails::taken_at.nullable()))
    };
}

pub(crate) async fn find(conn: &mut AsyncPgConnection, id: StreamId) -> QueryResult<Option<Stream>> {
    let found: Option<Shown> = show!(streams::table).filter(streams::id.eq(id.0)).first(conn).await.optional()?;
    Ok(found.map(shown))
}

/// The stream that is asked for by this name, whoever may see it.
pub(crate) async fn find_called(conn: &mut AsyncPgConnection, name: StreamName) -> QueryResult<Option<Stream>> {
    let playback_id = match name {
        StreamName::Id(id) => return find(conn, id).await,
        StreamName::Playback(playback_id) => playback_id,
    };
    let found: Option<Shown> =
        show!(streams::table).filter(streams::playback_id.eq(playback_id)).first(conn).await.optional()?;
    Ok(found.map(shown))
}

pub(crate) async fn find_id(conn: &mut AsyncPgConnection, playback_id: Uuid) -> QueryResult<Option<StreamId>> {
    let found = streams::table.filter(streams::playback_id.eq(playback_id)).select(streams::id);
    Ok(found.first(conn).await.optional()?.map(StreamId))
}

/// One page of the streams that are wanted.
pub(crate) async fn page(
    conn: &mut AsyncPgConnection,
    wanted: &Wanted,
    query: PageQuery,
    now: DateTime<Utc>,
) -> QueryResult<Vec<Stream>> {
    let (limit, offset) = (i64::from(query.limit), query.offset());
    let ids = if (wanted.which, wanted.sort) == (None, Some(Sort::Viewers)) {
        // Few are on air, and of the many others nobody has viewers: together they would all be sorted for each page.
        let on_air = Wanted { which: Some(Which::Live), ..wanted.clone() };
        let others = Wanted { which: Some(Which::Ended), ..wanted.clone() };
        let count = count(conn, &on_air, now).await?;
        let mut ids = ids(conn, &on_air, now, limit, offset).await?;
        let rest = limit - i64::try_from(ids.len()).unwrap_or(limit);
        if rest > 0 {
            ids.extend(self::ids(conn, &others, now, rest, (offset - count).max(0)).await?);
        }
        ids
    } else {
        ids(conn, wanted, now, limit, offset).await?
    };
    let rows: Vec<Shown> = show!(streams::table).filter(streams::id.eq_any(&ids)).load(conn).await?;
    let mut items: Vec<_> = rows.into_iter().map(shown).collect();
    items.sort_by_key(|stream| ids.iter().position(|id| *id == stream.id.0));
    Ok(items)
}

/// What is on the page: what comes before it is only counted off.
async fn ids(
    conn: &mut AsyncPgConnection,
    wanted: &Wanted,
    now: DateTime<Utc>,
    limit: i64,
    offset: i64,
) -> QueryResult<Vec<i64>> {
    let order = sql::<Bool>(&order_of(wanted));
    of(wanted, now).order(order).limit(limit).offset(offset).select(streams::id).load(conn).await
}

/// How many streams are wanted.
pub(crate) async fn count(conn: &mut AsyncPgConnection, wanted: &Wanted, now: DateTime<Utc>) -> QueryResult<i64> {
    of(wanted, now).count().get_result(conn).await
}

/// Conditions on a status and the like are written as the indexes have them: what is bound cannot be planned with.
fn of(wanted: &Wanted, now: DateTime<Utc>) -> streams::BoxedQuery<'static, Pg> {
    let mut query = streams::table.into_boxed();
    if !wanted.is_owners {
        query = query.filter(sql::<Bool>("visibility = 'public'"));
    }
    if let Some(owner) = wanted.owner {
        query = query.filter(streams::user_id.eq(owner.0));
    }
    query = match wanted.which {
        None => query,
        Some(Which::Live) => query.filter(sql::<Bool>("(status = 'live')")),
        Some(Which::Ended) => query.filter(sql::<Bool>("not (status = 'live')")),
        Some(Which::Featured) => query.filter(sql::<Bool>("featured")),
        Some(Which::Upcoming) => {
            query.filter(sql::<Bool>("not (status = 'live')")).filter(streams::scheduled_at.gt(now - LATE))
        }
    };
    if let Some(search) = &wanted.search {
        let found = sql::<Bool>("words_of(title, description) @@ to_tsquery('simple', normalize(")
            .bind::<Text, _>(search.as_query())
            .sql("))");
        query = query.filter(found);
    }
    query
}

fn order_of(wanted: &Wanted) -> String {
    // What is searched for is found by its words, then sorted. To go through all streams in their order and look at the
    // words of each takes seconds where the words are rare, and PostgreSQL cannot know that they are.
    let [live, id, scheduled_at, start_time] = match wanted.search {
        None => ["(status = 'live')", "id", "scheduled_at", "start_time"],
        Some(_) => ["(status = 'live')::int", "id + 0", "scheduled_at + interval '0'", "start_time + interval '0'"],
    };
    match (wanted.sort, wanted.which) {
        (None, None | Some(Which::Featured)) => format!("{live} desc, {id} desc"),
        (None, Some(Which::Upcoming)) | (Some(Sort::Scheduled), _) => format!("{scheduled_at}, {id} desc"),
        (None | Some(Sort::Newest), _) => format!("{id} desc"),
        (Some(Sort::Oldest), _) => id.to_owned(),
        (Some(Sort::Viewers), Some(Which::Live)) => format!("viewer_count desc, {id} desc"),
        // Nobody watches what is not on air.
        (Some(Sort::Viewers), Some(Which::Ended | Which::Upcoming)) => format!("{id} desc"),
        (Some(Sort::Viewers), _) => format!("{live} desc, viewer_count desc, {id} desc"),
        (Some(Sort::Started), _) => format!("{start_time} desc nulls last, {id} desc"),
    }
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

/// Deletes these streams, and with them their keys, broadcasts and recordings. Returns which there were, and whose.
pub(crate) async fn delete(conn: &mut AsyncPgConnection, ids: &[StreamId]) -> QueryResult<Vec<(StreamId, UserId)>> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let deleted: Vec<(i64, Uuid)> = diesel::delete(streams::table.filter(streams::id.eq_any(ids)))
        .returning((streams::id, streams::user_id))
        .get_results(conn)
        .await?;
    Ok(deleted.into_iter().map(|(id, user_id)| (StreamId(id), UserId(user_id))).collect())
}

/// Changes what is said of the stream; what is left out stays.
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
        description: Option<Option<&'a str>>,
        thumbnail: Option<Option<&'a str>>,
        scheduled_at: Option<Option<DateTime<Utc>>>,
        soon_told_at: Option<Option<DateTime<Utc>>>,
        visibility: Option<&'a str>,
        featured: Option<bool>,
        updated_at: DateTime<Utc>,
    }
    let changes = Changes {
        title: about.title.as_deref(),
        description: about.description.as_ref().map(Option::as_deref),
        thumbnail: about.thumbnail.as_ref().map(Option::as_deref),
        scheduled_at: about.scheduled_at,
        // Another time is another announcement.
        soon_told_at: about.scheduled_at.map(|_| None),
        visibility: about.visibility.map(Visibility::as_str),
        featured: about.featured,
        updated_at: now,
    };
    diesel::update(streams::table.find(id.0)).set(changes).execute(conn).await?;
    Ok(())
}

/// Gives the stream another public name: the former one is nobody's any more.
pub(crate) async fn rename_playback(conn: &mut AsyncPgConnection, id: StreamId) -> QueryResult<()> {
    diesel::update(streams::table.find(id.0)).set(streams::playback_id.eq(Uuid::new_v4())).execute(conn).await?;
    Ok(())
}
