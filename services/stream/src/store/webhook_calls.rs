//! The last calls of media servers, without keys and secrets.

use chrono::{DateTime, Utc};
use common::StreamId;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Jsonb, Nullable, SmallInt, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use prepared::statement;
use serde_json::Value;

use crate::call::Understood;
use crate::dialect::Dialect;

diesel::table! {
    webhook_calls (id) {
        id -> BigInt,
        received_at -> Timestamptz,
        dialect -> Nullable<Text>,
        media_server -> Text,
        server_run -> Text,
        client_address -> Nullable<Text>,
        call -> Text,
        fields -> Jsonb,
        understood -> Nullable<Jsonb>,
        stream_id -> Nullable<BigInt>,
        status -> SmallInt,
        verdict -> Text,
        is_routine -> Bool,
    }
}

/// A call that came, and what became of it. Nothing in it is secret.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) received_at: DateTime<Utc>,
    /// `None` if it was not even read.
    pub(crate) dialect: Option<Dialect>,
    pub(crate) media_server: String,
    pub(crate) server_run: String,
    pub(crate) client_address: Option<String>,
    /// The media server's own word for what happened.
    pub(crate) call: String,
    pub(crate) fields: Value,
    /// `None` if it was not understood, or nothing follows from it.
    pub(crate) understood: Option<Understood>,
    pub(crate) stream_id: Option<StreamId>,
    /// What it was answered.
    pub(crate) status: u16,
    pub(crate) verdict: String,
}

impl Entry {
    /// Whether such calls come all the time.
    pub(crate) fn is_routine(&self) -> bool {
        self.understood.as_ref().is_some_and(|understood| understood.what.is_routine())
    }
}

/// Such a call, with its number.
pub(crate) struct Kept {
    pub(crate) id: i64,
    pub(crate) entry: Entry,
}

/// Which calls.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Filter {
    pub(crate) stream: Option<i64>,
    pub(crate) dialect: Option<Dialect>,
    /// Those that came before this one.
    pub(crate) before: Option<i64>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = webhook_calls)]
struct Row {
    received_at: DateTime<Utc>,
    dialect: Option<String>,
    media_server: String,
    server_run: String,
    client_address: Option<String>,
    call: String,
    fields: Value,
    understood: Option<Value>,
    stream_id: Option<i64>,
    status: i16,
    verdict: String,
}

impl Row {
    fn entry(self) -> Entry {
        Entry {
            received_at: self.received_at,
            dialect: self.dialect.as_deref().and_then(Dialect::named),
            media_server: self.media_server,
            server_run: self.server_run,
            client_address: self.client_address,
            call: self.call,
            fields: self.fields,
            // One that a later version wrote is not understood.
            understood: self.understood.and_then(|understood| serde_json::from_value(understood).ok()),
            stream_id: self.stream_id.map(StreamId),
            status: u16::try_from(self.status).unwrap_or_default(),
            verdict: self.verdict,
        }
    }
}

/// Adds these calls, in their order. Callers are in a transaction.
pub(crate) async fn insert<'a>(
    conn: &mut AsyncPgConnection,
    entries: impl Iterator<Item = &'a Entry> + Clone,
) -> QueryResult<()> {
    // It tells what happened, and is not what happened: nobody waits for the disk.
    conn.batch_execute("SET LOCAL synchronous_commit = off").await?;
    let understood = |entry: &Entry| entry.understood.as_ref().and_then(|what| serde_json::to_value(what).ok());
    statement(
        "INSERT INTO webhook_calls
             (received_at, dialect, media_server, server_run, client_address, call, fields, understood, stream_id, status,
              verdict, is_routine)
         SELECT received_at, dialect, media_server, server_run, client_address, call, fields, understood, stream_id, status,
                verdict, is_routine
         FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::jsonb[],
                     $9::bigint[], $10::smallint[], $11::text[], $12::boolean[]) WITH ORDINALITY
             AS call (received_at, dialect, media_server, server_run, client_address, call, fields, understood, stream_id,
                      status, verdict, is_routine, place)
         ORDER BY place",
    )
    .bind::<Array<Timestamptz>, _>(entries.clone().map(|entry| entry.received_at).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(entries.clone().map(|entry| entry.dialect.map(Dialect::as_str)).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(entries.clone().map(|entry| &*entry.media_server).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(entries.clone().map(|entry| &*entry.server_run).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(entries.clone().map(|entry| entry.client_address.as_deref()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(entries.clone().map(|entry| &*entry.call).collect::<Vec<_>>())
    .bind::<Array<Jsonb>, _>(entries.clone().map(|entry| &entry.fields).collect::<Vec<_>>())
    .bind::<Array<Nullable<Jsonb>>, _>(entries.clone().map(understood).collect::<Vec<_>>())
    .bind::<Array<Nullable<BigInt>>, _>(entries.clone().map(|entry| entry.stream_id.map(|id| id.0)).collect::<Vec<_>>())
    .bind::<Array<SmallInt>, _>(
        entries.clone().map(|entry| i16::try_from(entry.status).unwrap_or(i16::MAX)).collect::<Vec<_>>(),
    )
    .bind::<Array<Text>, _>(entries.clone().map(|entry| &*entry.verdict).collect::<Vec<_>>())
    .bind::<Array<Bool>, _>(entries.map(Entry::is_routine).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets all but the last `most` calls, and all but the last `most` heartbeats.
pub(crate) async fn trim(conn: &mut AsyncPgConnection, most: u32) -> QueryResult<()> {
    for is_routine in [false, true] {
        statement(
            "DELETE FROM webhook_calls WHERE is_routine = $1 AND id <=
                 (SELECT id FROM webhook_calls WHERE is_routine = $1 ORDER BY id DESC OFFSET $2 LIMIT 1)",
        )
        .bind::<Bool, _>(is_routine)
        .bind::<BigInt, _>(i64::from(most))
        .execute(conn)
        .await?;
    }
    Ok(())
}

/// The last calls, the last one first.
pub(crate) async fn page(conn: &mut AsyncPgConnection, filter: Filter, limit: i64) -> QueryResult<Vec<Kept>> {
    let mut query = webhook_calls::table.order(webhook_calls::id.desc()).limit(limit).into_boxed();
    if let Some(stream) = filter.stream {
        query = query.filter(webhook_calls::stream_id.eq(stream));
    }
    if let Some(dialect) = filter.dialect {
        query = query.filter(webhook_calls::dialect.eq(dialect.as_str()));
    }
    if let Some(before) = filter.before {
        query = query.filter(webhook_calls::id.lt(before));
    }
    let rows: Vec<(i64, Row)> = query.select((webhook_calls::id, Row::as_select())).load(conn).await?;
    Ok(rows.into_iter().map(|(id, row)| Kept { id, entry: row.entry() }).collect())
}

pub(crate) async fn find(conn: &mut AsyncPgConnection, id: i64) -> QueryResult<Option<Entry>> {
    let row: Option<Row> = webhook_calls::table.find(id).select(Row::as_select()).first(conn).await.optional()?;
    Ok(row.map(Row::entry))
}
