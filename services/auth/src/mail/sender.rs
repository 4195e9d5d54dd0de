//! The task that sends mails.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel_async::AsyncConnection as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::error::AuthError;
use crate::mail::letter;
use crate::mail::post::PostError;
use crate::mail::{Mail, Purpose};
use crate::store::{mails, users};

/// How often it looks for mails.
const EVERY: Duration = Duration::from_secs(1);
/// The longest pause after the mail server could not be used.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A mail that was taken is not taken again before: longer than sending takes.
const LEASE: TimeDelta = TimeDelta::seconds(60);
/// The wait before the second try of a mail; it doubles from there…
const FIRST_WAIT: TimeDelta = TimeDelta::seconds(2);
/// … up to this.
const LONGEST_WAIT: TimeDelta = TimeDelta::minutes(15);
/// Mails that are not wanted any more are looked for this often.
const SWEEP_EVERY: TimeDelta = TimeDelta::minutes(1);

/// What is wrong with sending, in words; none when nothing is.
pub(crate) type MailHealth = Option<String>;

/// Sends what is due until `shutdown`.
///
/// Any number of instances may run it: each mail is leased to one at a time. `health` says why mails wait.
pub(crate) async fn run(app: Arc<App>, health: watch::Sender<MailHealth>, shutdown: CancellationToken) {
    let mut pause = EVERY;
    let mut swept_at = DateTime::UNIX_EPOCH;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
        let now = app.clock.now();
        let done = async {
            if now - swept_at >= SWEEP_EVERY {
                sweep(&app, &health, now).await?;
                swept_at = now;
            }
            send_due(&app, &health, &shutdown).await
        };
        pause = match done.await {
            Ok(true) => EVERY,
            Ok(false) => (pause * 2).min(LONGEST_PAUSE),
            Err(error) => {
                // Readiness tells of the database by itself.
                tracing::warn!(error = common::problem::chain(&error), "mails could not be looked for");
                (pause * 2).min(LONGEST_PAUSE)
            }
        };
    }
}

/// Sends until nothing is due. `false`: no mail can be sent at the moment.
async fn send_due(
    app: &App,
    health: &watch::Sender<MailHealth>,
    shutdown: &CancellationToken,
) -> Result<bool, AuthError> {
    while !shutdown.is_cancelled() {
        let now = app.clock.now();
        let Some(mail) = mails::take_due(&mut *app.pool.get().await?, now, now + LEASE).await? else { break };
        let outcome = send(app, &mail).await?;
        let can_send = match &outcome {
            Ok(()) | Err(PostError::Refused(_)) => {
                health.send_replace(None);
                true
            }
            Err(error) => {
                health.send_replace(Some(error.to_string()));
                false
            }
        };
        if let Err(error) = outcome {
            let wait = wait_after(mail.attempts);
            mails::postpone(&mut *app.pool.get().await?, mail.mail_id, app.clock.now() + wait).await?;
            let (mail_id, attempts, error) = (mail.mail_id, mail.attempts, error.to_string());
            tracing::warn!(%mail_id, attempts, error, wait_s = wait.num_seconds(), "a mail was not sent, and waits");
        }
        if !can_send {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sends `mail` and notes that it was. One that has no reader is noted as sent too: it was asked for, and counts.
async fn send(app: &App, mail: &Mail) -> Result<Result<(), PostError>, AuthError> {
    let has_reader = mail.purpose != Purpose::ResetPassword || find_reader(app, mail).await?;
    if has_reader {
        match letter::compose(mail, &app.links, &app.config.mail.from, &app.config.public_url) {
            Ok(message) => {
                if let Err(error) = app.post.send(mail.mail_id, message).await {
                    return Ok(Err(error));
                }
            }
            // No try makes a mail of it.
            Err(error) => {
                tracing::error!(mail_id = %mail.mail_id, error = %format!("{error:#}"), "no mail can be made")
            }
        }
    }
    mails::set_sent(&mut *app.pool.get().await?, mail.mail_id).await?;
    Ok(Ok(()))
}

/// Whose password is to be reset: looked up here, out of sight of whoever asked.
async fn find_reader(app: &App, mail: &Mail) -> Result<bool, AuthError> {
    let mut conn = app.pool.get().await?;
    conn.transaction(async |conn| {
        let Some(user_id) = users::find_id_by_email(conn, &mail.to).await? else { return Ok(false) };
        // The user before the mail, as everywhere.
        let is_there = users::lock(conn, user_id).await?.is_some();
        if is_there {
            mails::set_user(conn, mail.mail_id, user_id).await?;
        }
        Ok(is_there)
    })
    .await
}

/// Forgets mails whose time is over, and says which of them were never sent.
async fn sweep(app: &App, health: &watch::Sender<MailHealth>, now: DateTime<Utc>) -> Result<(), AuthError> {
    let mut conn = app.pool.get().await?;
    for (mail_id, purpose, attempts) in mails::delete_expired(&mut conn, now).await? {
        tracing::error!(%mail_id, purpose, attempts, "a mail was given up: it could not be sent in its time");
    }
    if !mails::has_unsent(&mut conn).await? {
        // What kept them waiting hinders none any more.
        health.send_replace(None);
    }
    Ok(())
}

/// `attempts`: how often it was tried, from 1.
fn wait_after(attempts: i32) -> TimeDelta {
    let doublings = u32::try_from(attempts.clamp(1, 16) - 1).unwrap_or_default();
    (FIRST_WAIT * 2_i32.pow(doublings)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound() {
        let waits = [1, 2, 3, 9, 10, 1000].map(|attempts| wait_after(attempts).num_seconds());
        assert_eq!(waits, [2, 4, 8, 512, 900, 900]);
    }
}
