use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{ADMIN, Mail, TestAuth, token_of};

const SUBJECT: &str = "Ana Silva is live";

impl TestAuth {
    async fn id_of(&self, email: &str) -> String {
        self.sql(&format!("select user_uuid from users where user_email = '{email}'")).await[0][0].clone()
    }

    /// Somebody with a confirmed address.
    async fn confirmed(&self, email: &str) -> String {
        self.member(email).await;
        let verified = "update auth.users set user_email_verified_at = now()";
        self.execute(&format!("{verified} where user_email = '{email}'")).await;
        self.id_of(email).await
    }

    /// Lets the service have an event, as stream sends it.
    async fn hears(&self, event_id: &str, data: &Value) {
        self.execute(&format!(
            "insert into auth.outbox (event_id, name, occurred_at, data)
             values ('{event_id}', 'stream.live.announced.v1', now(), '{data}');
             select pg_notify('auth.outbox', '')"
        ))
        .await;
    }

    /// Waits until every event has been handled.
    async fn all_handled(&self) {
        eventually("all events are handled", async || {
            let left = "select 1 from auth.outbox union all
                        select 1 from broker.messages where queue = 'auth.notices' and parked_at is null";
            crate::support::sql(&self.database.url, left).await.is_empty().then_some(())
        })
        .await;
    }
}

fn announced(channel: &str, by_mail: &[&str], others: &[&str], started: &str) -> Value {
    json!({
        "stream_id": 1, "broadcast_id": 1, "channel_id": channel, "title": "Cooking\nwith fire",
        "playback_id": "0199a000-0000-4000-8000-000000000001", "started_at": started,
        "by_mail": by_mail, "others": others,
    })
}

const FIRST: &str = "0199a000-0000-7000-8000-00000000000a";
const SECOND: &str = "0199a000-0000-7000-8000-00000000000b";

#[tokio::test]
async fn followers_with_a_confirmed_address_get_one_mail_and_nobody_else_does() {
    let auth = TestAuth::with(&ADMIN).await;
    let ana = auth.confirmed("ana@example.org").await;
    let (ben, cleo) = (auth.confirmed("ben@example.org").await, auth.confirmed("cleo@example.org").await);
    let dan = auth.confirmed("dan@example.org").await;
    auth.member("eve@example.org").await;
    let eve = auth.id_of("eve@example.org").await;
    let suspended = "update auth.users set user_suspended_at = now(), user_suspended_reason = 'x'";
    auth.execute(&format!("{suspended} where user_email = 'dan@example.org'")).await;
    let gone = "0199a000-0000-7000-8000-0000000000ff";
    let now =
        auth.sql("select to_char(now() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')").await[0][0].clone();
    let event = announced(&ana, &[&ben, &dan, &eve, gone], &[&cleo], &now);

    auth.hears(FIRST, &event).await;

    let mail: Mail = auth.mails_to("ben@example.org", SUBJECT, 1).await.remove(0);
    let watch = "http://127.0.0.1:8080/watch/0199a000-0000-4000-8000-000000000001";
    assert_eq!(mail.body.matches(watch).count(), 2, "as text and as HTML: {}", mail.body);
    assert!(mail.body.contains("Ana Silva is live: Cooking with fire"), "{}", mail.body);
    let channel = format!("http://127.0.0.1:8080/channels/{ana}");
    assert!(mail.body.contains("because you follow Ana Silva") && mail.body.contains(&channel), "{}", mail.body);
    assert_eq!(mail.header("List-Unsubscribe"), format!("<{channel}>"));
    auth.hears(FIRST, &event).await;
    auth.all_handled().await;
    let queued = auth.sql("select mail_to from mails where mail_purpose = 'stream-live'").await;
    assert_eq!(queued, [["ben@example.org"]]);
    assert_eq!(auth.mails_now("ben@example.org", SUBJECT).len(), 1);
    let exported = auth
        .get("/api/v1/auth/me/export")
        .bearer_auth(token_of(auth.login("ben@example.org", "correct horse").await).await);
    let exported: Value = exported.send().await.unwrap().json().await.unwrap();
    assert!(exported["mails"].to_string().contains("stream-live"), "{exported}");
}

#[tokio::test]
async fn what_began_long_ago_or_is_of_somebody_shut_out_is_told_to_nobody() {
    let auth = TestAuth::with(&ADMIN).await;
    let (ana, ben) = (auth.confirmed("ana@example.org").await, auth.confirmed("ben@example.org").await);
    auth.hears(FIRST, &announced(&ana, &[&ben], &[], "2026-01-01T00:00:00Z")).await;
    let suspended = "update auth.users set user_suspended_at = now(), user_suspended_reason = 'x'";
    auth.execute(&format!("{suspended} where user_email = 'ana@example.org'")).await;
    auth.hears(SECOND, &announced(&ana, &[&ben], &[], "2999-01-01T00:00:00Z")).await;

    auth.all_handled().await;

    let taken = "select count(*) from auth.inbox where consumer = 'auth.notices'";
    assert_eq!(auth.sql(taken).await, [["2"]]);
    assert!(auth.sql("select 1 from mails where mail_purpose = 'stream-live'").await.is_empty());
}

#[tokio::test]
async fn a_mail_that_somebody_waits_for_goes_before_thousands_that_tell_of_streams() {
    let auth = TestAuth::start().await;
    auth.member("ana@example.org").await;
    auth.mails_to("ana@example.org", "Confirm your e-mail address", 1).await;
    let about = json!({
        "channel_id": auth.id_of("ana@example.org").await, "channel_name": "Ana Silva", "title": "",
        "playback_id": "0199a000-0000-4000-8000-000000000001",
    });
    auth.execute(&format!(
        "insert into auth.mails
             (mail_id, mail_purpose, mail_to, mail_created_at, mail_expires_at, mail_next_try_at, mail_about)
         select gen_random_uuid(), 'stream-live', 'r' || n || '@example.org', now() - interval '1 minute',
                now() + interval '1 hour', now() - interval '1 minute', '{about}'
         from generate_series(1, 20000) n"
    ))
    .await;
    let left = "select count(*) from mails where mail_purpose = 'stream-live' and mail_next_try_at is not null";
    let left = async || auth.sql(left).await[0][0].parse::<u32>().unwrap();

    let body = json!({"user_email": "ana@example.org"});
    assert!(auth.send("/api/v1/auth/password-reset", "", &body).await.status().is_success());

    auth.mails_to("ana@example.org", "Set a new password", 1).await;
    assert!(left().await > 1000, "it did not wait for them");
    eventually("they leave too", async || (left().await < 20_000).then_some(())).await;
}
