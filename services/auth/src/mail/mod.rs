//! Mails: put into a queue in the transaction of what causes them, and sent by a task.
//!
//! - [`letter`]: what they say. [`links`]: the tokens in them. [`post`]: how they leave the house.
//! - [`sender`]: the task. It sends each at least once: a crash between sending and noting so sends it again.

pub(crate) mod letter;
pub(crate) mod links;
pub(crate) mod post;
pub(crate) mod sender;

use chrono::{DateTime, TimeDelta, Utc};
use common::UserId;
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::AuthError;
use crate::store::mails;

/// To one address go at most so many mails of a purpose that somebody asked for…
const MOST: i64 = 5;
/// … within this time.
const PERIOD: TimeDelta = TimeDelta::hours(1);

/// The purpose that many mails at once have: those that somebody waits for go first. As the tables have it.
pub(crate) const STREAM_LIVE: &str = "stream-live";

/// Why a mail is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A link to set a new password.
    ResetPassword,
    /// A link that shows that the address belongs to the user.
    VerifyEmail,
    /// The same to a new address, which becomes the user's with it.
    ChangeEmail,
    /// Tells that another address was asked for.
    EmailChangeRequested,
    /// Tells that the password was changed.
    PasswordChanged,
    /// A link to register with.
    Invitation,
    /// Tells that somebody whom the reader follows is live.
    StreamLive,
}

impl Purpose {
    pub(crate) const ALL: [Self; 7] = [
        Self::ResetPassword,
        Self::VerifyEmail,
        Self::ChangeEmail,
        Self::EmailChangeRequested,
        Self::PasswordChanged,
        Self::Invitation,
        Self::StreamLive,
    ];

    /// As the database has it, and the tokens in links. It never changes.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::ResetPassword => "reset-password",
            Self::VerifyEmail => "verify-email",
            Self::ChangeEmail => "change-email",
            Self::EmailChangeRequested => "email-change-requested",
            Self::PasswordChanged => "password-changed",
            Self::Invitation => "invitation",
            Self::StreamLive => STREAM_LIVE,
        }
    }

    /// How long its link counts; how long it is tried to send, where it has none or one that counts longer.
    fn lifetime(self) -> TimeDelta {
        match self {
            // Nobody wants to read much later that a stream was live.
            Self::ResetPassword | Self::StreamLive => TimeDelta::hours(1),
            Self::VerifyEmail | Self::ChangeEmail => TimeDelta::days(3),
            Self::EmailChangeRequested | Self::PasswordChanged | Self::Invitation => TimeDelta::days(1),
        }
    }
}

/// A mail in the queue.
#[derive(Debug, Clone)]
pub(crate) struct Mail {
    /// What the token in its link is made of; an invitation's is the id of the invitation.
    pub(crate) mail_id: Uuid,
    pub(crate) purpose: Purpose,
    pub(crate) to: String,
    pub(crate) user_id: Option<UserId>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) expires_at: DateTime<Utc>,
    /// How often it was tried to send it.
    pub(crate) attempts: i32,
    /// What it tells of, where its purpose does not say everything.
    pub(crate) about: Option<About>,
}

/// A stream that is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// Whose it is.
    pub(crate) channel_id: UserId,
    pub(crate) channel_name: String,
    pub(crate) playback_id: Uuid,
    /// May be empty.
    pub(crate) title: String,
}

impl Mail {
    pub(crate) fn new(purpose: Purpose, to: &str, user_id: Option<UserId>, now: DateTime<Utc>) -> Self {
        Self {
            mail_id: Uuid::now_v7(),
            purpose,
            to: to.to_owned(),
            user_id,
            created_at: now,
            expires_at: now + purpose.lifetime(),
            attempts: 0,
            about: None,
        }
    }
}

/// A mail to the user's address as it is now, in the caller's transaction.
pub(crate) async fn enqueue(
    conn: &mut AsyncPgConnection,
    purpose: Purpose,
    user_id: UserId,
    now: DateTime<Utc>,
) -> QueryResult<()> {
    let Some(to) = crate::store::users::find_email(conn, user_id).await? else { return Ok(()) };
    mails::insert(conn, &Mail::new(purpose, &to, Some(user_id), now)).await
}

/// A mail that anybody can cause again and again, in the caller's transaction: refused when the address has had enough of
/// them. Who has the address is looked up only when it is sent, unless it is said here.
pub(crate) async fn enqueue_asked_for(
    conn: &mut AsyncPgConnection,
    purpose: Purpose,
    to: &str,
    user_id: Option<UserId>,
    now: DateTime<Utc>,
) -> Result<(), AuthError> {
    mails::lock_address(conn, to).await?;
    if let Some(first) = mails::find_first_of(conn, purpose, to, now - PERIOD, MOST).await? {
        let wait = (first + PERIOD - now).to_std().unwrap_or_default();
        return Err(AuthError::TooManyMails(wait));
    }
    mails::insert(conn, &Mail::new(purpose, to, user_id, now)).await?;
    Ok(())
}
