//! The queue of mails, and which links count.

use chrono::{DateTime, TimeDelta, Utc};
use common::UserId;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::{Bool, Text};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::mail::{Mail, Purpose, STREAM_LIVE};

diesel::table! {
    mails (mail_id) {
        mail_id -> Uuid,
        mail_purpose -> Text,
        mail_to -> Varchar,
        user_uuid -> Nullable<Uuid>,
        mail_created_at -> Timestamptz,
        mail_expires_at -> Timestamptz,
        mail_attempts -> Integer,
        mail_next_try_at -> Nullable<Timestamptz>,
        mail_about -> Nullable<Jsonb>,
    }
}

/// A mail that could not be sent for so long is given up.
const GIVE_UP_AFTER: TimeDelta = TimeDelta::days(1);

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = mails)]
struct MailRow {
    mail_id: Uuid,
    mail_purpose: String,
    mail_to: String,
    user_uuid: Option<Uuid>,
    mail_created_at: DateTime<Utc>,
    mail_expires_at: DateTime<Utc>,
    mail_attempts: i32,
    mail_next_try_at: Option<DateTime<Utc>>,
    mail_about: Option<serde_json::Value>,
}

impl MailRow {
    /// `None` when a newer version of auth has written it.
    fn mail(self) -> Option<Mail> {
        Some(Mail {
            mail_id: self.mail_id,
            purpose: Purpose::ALL.into_iter().find(|purpose| purpose.text() == self.mail_purpose)?,
            to: self.mail_to,
            user_id: self.user_uuid.map(UserId),
            created_at: self.mail_created_at,
            expires_at: self.mail_expires_at,
            attempts: self.mail_attempts,
            about: self.mail_about.and_then(|about| serde_json::from_value(about).ok()),
        })
    }

    fn of(mail: &Mail) -> QueryResult<Self> {
        let about = mail.about.as_ref().map(serde_json::to_value).transpose();
        Ok(Self {
            mail_id: mail.mail_id,
            mail_purpose: mail.purpose.text().to_owned(),
            mail_to: mail.to.clone(),
            user_uuid: mail.user_id.map(|user_id| user_id.0),
            mail_created_at: mail.created_at,
            mail_expires_at: mail.expires_at,
            mail_attempts: mail.attempts,
            mail_next_try_at: Some(mail.created_at),
            mail_about: about.map_err(|error| Error::SerializationError(Box::new(error)))?,
        })
    }
}

/// Puts the mail into the queue, to be sent at once.
pub(crate) async fn insert(conn: &mut AsyncPgConnection, mail: &Mail) -> QueryResult<()> {
    insert_all(conn, std::slice::from_ref(mail)).await
}

/// The same of several. At most some thousands: a statement takes 65,535 values.
pub(crate) async fn insert_all(conn: &mut AsyncPgConnection, mails: &[Mail]) -> QueryResult<()> {
    let rows = mails.iter().map(MailRow::of).collect::<QueryResult<Vec<_>>>()?;
    diesel::insert_into(mails::table).values(rows).execute(conn).await?;
    Ok(())
}

/// Until the transaction ends, nobody else asks for a mail to this address.
pub(crate) async fn lock_address(conn: &mut AsyncPgConnection, to: &str) -> QueryResult<()> {
    diesel::sql_query("select pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind::<Text, _>(to)
        .execute(conn)
        .await?;
    Ok(())
}

/// When the first of the last `most` mails of this purpose was put into the queue; `None` if there were fewer since.
pub(crate) async fn find_first_of(
    conn: &mut AsyncPgConnection,
    purpose: Purpose,
    to: &str,
    since: DateTime<Utc>,
    most: i64,
) -> QueryResult<Option<DateTime<Utc>>> {
    mails::table
        .filter(mails::mail_to.eq(to))
        .filter(mails::mail_purpose.eq(purpose.text()))
        .filter(mails::mail_created_at.gt(since))
        .order(mails::mail_created_at.desc())
        .offset(most - 1)
        .select(mails::mail_created_at)
        .first(conn)
        .await
        .optional()
}

/// The mail that has waited longest of those that are due, which nobody else takes before `leased_until`. Mails that tell
/// of streams come by the thousand: whatever somebody waits for goes before them.
pub(crate) async fn take_due(
    conn: &mut AsyncPgConnection,
    now: DateTime<Utc>,
    leased_until: DateTime<Utc>,
) -> QueryResult<Option<Mail>> {
    let known = Purpose::ALL.map(Purpose::text);
    let taken: Option<MailRow> = conn
        .transaction(async |conn| {
            let find = async |conn: &mut AsyncPgConnection, which: String| -> QueryResult<Option<Uuid>> {
                mails::table
                    .filter(mails::mail_next_try_at.le(now))
                    // As text in the statement: so is it in the condition of an index each.
                    .filter(diesel::dsl::sql::<Bool>(&which))
                    .filter(mails::mail_purpose.eq_any(known))
                    .filter(mails::mail_expires_at.gt(now))
                    .filter(mails::mail_created_at.gt(now - GIVE_UP_AFTER))
                    .order(mails::mail_next_try_at)
                    .select(mails::mail_id)
                    .for_update()
                    .skip_locked()
                    .first(conn)
                    .await
                    .optional()
            };
            let mut due = find(conn, format!("mail_purpose <> '{STREAM_LIVE}'")).await?;
            if due.is_none() {
                due = find(conn, format!("mail_purpose = '{STREAM_LIVE}'")).await?;
            }
            let Some(mail_id) = due else { return Ok(None) };
            let row = diesel::update(mails::table.find(mail_id))
                .set((mails::mail_next_try_at.eq(leased_until), mails::mail_attempts.eq(mails::mail_attempts + 1)))
                .returning(MailRow::as_returning())
                .get_result(conn)
                .await?;
            QueryResult::Ok(Some(row))
        })
        .await?;
    Ok(taken.and_then(MailRow::mail))
}

/// The mail has left; its link counts until it expires.
pub(crate) async fn set_sent(conn: &mut AsyncPgConnection, mail_id: Uuid) -> QueryResult<()> {
    diesel::update(mails::table.find(mail_id))
        .set(mails::mail_next_try_at.eq(None::<DateTime<Utc>>))
        .execute(conn)
        .await?;
    Ok(())
}

/// The mail could not be sent; it is tried again at `next_try_at`.
pub(crate) async fn postpone(
    conn: &mut AsyncPgConnection,
    mail_id: Uuid,
    next_try_at: DateTime<Utc>,
) -> QueryResult<()> {
    diesel::update(mails::table.find(mail_id)).set(mails::mail_next_try_at.eq(next_try_at)).execute(conn).await?;
    Ok(())
}

/// It has turned out whose address it is.
pub(crate) async fn set_user(conn: &mut AsyncPgConnection, mail_id: Uuid, user_id: UserId) -> QueryResult<()> {
    diesel::update(mails::table.find(mail_id)).set(mails::user_uuid.eq(user_id.0)).execute(conn).await?;
    Ok(())
}

/// The mail whose link counts now.
pub(crate) async fn find_live(
    conn: &mut AsyncPgConnection,
    mail_id: Uuid,
    now: DateTime<Utc>,
) -> QueryResult<Option<Mail>> {
    let row: Option<MailRow> = mails::table
        .find(mail_id)
        .filter(mails::mail_expires_at.gt(now))
        .select(MailRow::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(row.and_then(MailRow::mail))
}

/// Uses the mail's link up. `false` when it does not count any more.
pub(crate) async fn use_up(conn: &mut AsyncPgConnection, mail_id: Uuid, now: DateTime<Utc>) -> QueryResult<bool> {
    let live = mails::table.find(mail_id).filter(mails::mail_expires_at.gt(now));
    Ok(diesel::delete(live).execute(conn).await? == 1)
}

/// Mails of these purposes to the user are void: they are not sent any more, and their links do not count.
pub(crate) async fn void(conn: &mut AsyncPgConnection, user_id: UserId, purposes: &[Purpose]) -> QueryResult<()> {
    let purposes: Vec<_> = purposes.iter().map(|purpose| purpose.text()).collect();
    diesel::delete(mails::table)
        .filter(mails::user_uuid.eq(user_id.0))
        .filter(mails::mail_purpose.eq_any(purposes))
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets one mail.
pub(crate) async fn delete(conn: &mut AsyncPgConnection, mail_id: Uuid) -> QueryResult<()> {
    diesel::delete(mails::table.find(mail_id)).execute(conn).await?;
    Ok(())
}

/// Forgets mails of this purpose to the address of which nobody has looked up whose they are.
pub(crate) async fn delete_unclaimed(conn: &mut AsyncPgConnection, purpose: Purpose, to: &str) -> QueryResult<()> {
    diesel::delete(mails::table)
        .filter(mails::mail_to.eq(to))
        .filter(mails::mail_purpose.eq(purpose.text()))
        .filter(mails::user_uuid.is_null())
        .execute(conn)
        .await?;
    Ok(())
}

/// Mails that concern the user, the newest first, at most 1000: purpose, address, and when it was caused.
pub(crate) async fn of_user(
    conn: &mut AsyncPgConnection,
    user_id: UserId,
) -> QueryResult<Vec<(String, String, DateTime<Utc>)>> {
    mails::table
        .filter(mails::user_uuid.eq(user_id.0))
        .order(mails::mail_created_at.desc())
        .limit(1000)
        .select((mails::mail_purpose, mails::mail_to, mails::mail_created_at))
        .load(conn)
        .await
}

/// Forgets mails whose time is over. Returns those that were never sent: id, purpose, and how often it was tried.
pub(crate) async fn delete_expired(
    conn: &mut AsyncPgConnection,
    now: DateTime<Utc>,
) -> QueryResult<Vec<(Uuid, String, i32)>> {
    let unsent = diesel::delete(mails::table)
        .filter(mails::mail_next_try_at.is_not_null())
        .filter(mails::mail_expires_at.le(now).or(mails::mail_created_at.le(now - GIVE_UP_AFTER)))
        .returning((mails::mail_id, mails::mail_purpose, mails::mail_attempts))
        .get_results(conn)
        .await?;
    diesel::delete(mails::table).filter(mails::mail_expires_at.le(now)).execute(conn).await?;
    Ok(unsent)
}

/// Whether any mail waits to be sent.
pub(crate) async fn has_unsent(conn: &mut AsyncPgConnection) -> QueryResult<bool> {
    let unsent = mails::table.filter(mails::mail_next_try_at.is_not_null());
    diesel::select(diesel::dsl::exists(unsent)).get_result(conn).await
}
