use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use testkit::{Program, eventually};

use crate::smtp::MailServer;
use crate::support::{PROGRAM, TestAuth, problem, settings_of};

const SUBJECT: &str = "Confirm your e-mail address";

async fn with_server(server: &MailServer) -> TestAuth {
    TestAuth::with(&[("SMTP_URL", &server.url), ("MAIL_FROM", "Amphi <amphi@example.org>")]).await
}

async fn mail_check(auth: &TestAuth) -> String {
    let answer = auth.client.get(format!("{}/readyz", auth.program.private_port())).send().await.unwrap();
    assert_eq!(answer.status(), 200, "nobody needs mails to be served");
    let report: Value = answer.json().await.unwrap();
    report["checks"]["auth.mail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn without_a_mail_server_mails_are_written_for_their_owner_alone_and_the_log_says_where() {
    let auth = TestAuth::start().await;
    auth.member("ana@example.org").await;

    let mail = auth.mails_to("ana@example.org", SUBJECT, 1).await.remove(0);

    assert!(mail.body.contains("http://127.0.0.1:8080/verify-email#token="), "{}", mail.body);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&auth.mails()), 0o700);
    let file = std::fs::read_dir(auth.mails()).unwrap().next().unwrap().unwrap().path();
    assert_eq!(mode(&file), 0o600);
    eventually("the log names the file", async || auth.program.output().contains(file.to_str()?).then_some(())).await;
    assert!(!auth.program.output().contains(mail.token()), "{}", auth.program.output());
}

#[tokio::test]
async fn production_without_a_mail_server_starts_and_says_so_once() {
    let auth = TestAuth::with(&[
        ("AMPHI_ENV", "production"),
        ("AMPHI_SECRET", "5b1c0f39a7de42d8b6f1c2a9"),
        ("AMPHI_ADMIN_PASSWORD", "e2c1a7b90d4f4c55"),
    ])
    .await;
    assert_eq!(auth.program.output().matches("SMTP_URL is not set").count(), 1, "{}", auth.program.output());
}

#[tokio::test]
async fn a_mail_server_that_cannot_be_read_is_refused_without_showing_its_password() {
    let database = testkit::database().await;
    let data = tempfile::tempdir().unwrap();
    let given = |settings: &[(&'static str, &str)]| {
        let mut all = settings_of(&database.url, data.path());
        all.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let (status, output) = Program::spawn(PROGRAM, &[], &all).wait();
        assert!(!status.success() && !output.contains("hunter2"), "{output}");
        output
    };
    let wrong = given(&[("SMTP_URL", "smtp://ana:hunter2@"), ("MAIL_FROM", "amphi@example.org")]);
    assert!(wrong.contains("SMTP_URL: expected the address of a mail server"), "{wrong}");
    let anonymous = given(&[("SMTP_URL", "smtp://ana:hunter2@mail.example.org")]);
    assert!(anonymous.contains("MAIL_FROM: expected an e-mail address"), "{anonymous}");
    let nobody = given(&[("MAIL_FROM", "nobody")]);
    assert!(nobody.contains("MAIL_FROM: expected an e-mail address"), "{nobody}");
}

#[tokio::test]
async fn links_lead_to_the_public_address() {
    let auth = TestAuth::with(&[("PUBLIC_URL", "https://meet.example.org")]).await;
    auth.member("ana@example.org").await;
    let mail = auth.mails_to("ana@example.org", SUBJECT, 1).await.remove(0);
    let link = format!("https://meet.example.org/verify-email#token={}", mail.token());
    assert_eq!(mail.body.matches(&link).count(), 2, "as text and as HTML: {}", mail.body);
}

#[tokio::test]
async fn a_mail_is_sent_by_smtp() {
    let server = MailServer::start().await;
    let auth = with_server(&server).await;

    let ana = auth.member("ana@example.org").await;

    let mail = eventually("the mail arrives", async || server.received("ana@example.org").pop()).await;
    assert_eq!(mail.header("From"), "Amphi <amphi@example.org>");
    assert_eq!(mail.header("To"), "ana@example.org");
    assert_eq!(mail.header("Subject"), SUBJECT);
    assert!(server.said().iter().any(|line| line.starts_with("MAIL FROM:<amphi@example.org>")), "{:?}", server.said());
    let token = json!({"token": mail.token()});
    assert_eq!(auth.send("/api/v1/auth/email-verification/confirm", "", &token).await.status(), 204);
    let me: Value = auth.me(&ana).await.json().await.unwrap();
    assert_eq!(me["user_email_verified"], true);
    assert!(!auth.mails().exists(), "no second copy");
}

#[tokio::test]
async fn what_a_mail_server_refuses_for_a_while_arrives_later_and_readiness_tells() {
    let server = MailServer::start().await;
    server.set_out_of_order(true);
    let auth = with_server(&server).await;
    for name in ["ana", "ben", "cem"] {
        auth.member(&format!("{name}@example.org")).await;
    }
    eventually("readiness tells", async || mail_check(&auth).await.contains("451").then_some(())).await;
    assert!(server.received("ana@example.org").is_empty());

    server.set_out_of_order(false);

    for name in ["ana", "ben", "cem"] {
        let to = format!("{name}@example.org");
        eventually("it arrives", async || server.received(&to).pop()).await;
    }
    eventually("it is well again", async || (mail_check(&auth).await == "ok").then_some(())).await;
    for name in ["ana", "ben", "cem"] {
        assert_eq!(server.received(&format!("{name}@example.org")).len(), 1, "once");
    }
}

#[tokio::test]
async fn a_mailbox_that_does_not_exist_holds_up_no_other_and_alarms_nobody() {
    let server = MailServer::start().await;
    server.refuse("nobody@example.org");
    let auth = with_server(&server).await;

    auth.member("nobody@example.org").await;
    auth.member("ana@example.org").await;

    eventually("the other arrives", async || server.received("ana@example.org").pop()).await;
    eventually("the log tells", async || auth.program.output().contains("no such mailbox").then_some(())).await;
    assert_eq!(mail_check(&auth).await, "ok");
}

#[tokio::test]
async fn mails_that_wait_survive_a_restart() {
    let server = MailServer::start().await;
    server.set_out_of_order(true);
    let auth = with_server(&server).await;
    auth.member("ana@example.org").await;
    eventually("it was tried", async || server.said().iter().any(|line| line.starts_with("MAIL")).then_some(())).await;

    // Without the mail server: the mail goes into the folder.
    let auth = auth.restart().await;

    auth.mails_to("ana@example.org", SUBJECT, 1).await;
}

#[tokio::test]
async fn a_mail_that_could_not_be_sent_for_a_day_is_given_up_with_an_error() {
    let server = MailServer::start().await;
    server.set_out_of_order(true);
    let auth = with_server(&server).await;
    auth.member("ana@example.org").await;
    eventually("it was tried", async || mail_check(&auth).await.contains("451").then_some(())).await;
    auth.execute("update auth.mails set mail_created_at = mail_created_at - interval '1 day'").await;

    let auth = auth.restart().await;

    eventually("the log tells", async || auth.program.output().contains("a mail was given up").then_some(())).await;
    assert!(auth.mails_now("ana@example.org", SUBJECT).is_empty());
}

#[tokio::test]
async fn nothing_that_a_user_writes_gets_into_a_mail_but_the_address() {
    let auth = TestAuth::start().await;
    let name = "Win at http://evil.example <b>now</b>, \"Bcc: ben@example.org\"";
    let body =
        json!({"user_email": "ana+\"tag\"@example.org", "user_password": "correct horse", "user_fullname": name});
    problem(auth.send("/api/v1/auth/register", "", &body).await, 422, "invalid-fields").await;
    let body = json!({"user_email": "ana&co@example.org", "user_password": "correct horse", "user_fullname": name});
    assert_eq!(auth.send("/api/v1/auth/register", "", &body).await.status(), 201);
    let injection = json!({"user_email": "ben@example.org", "user_password": "correct horse", "user_fullname": "Ben\r\nBcc: eve@example.org"});
    problem(auth.send("/api/v1/auth/register", "", &injection).await, 422, "invalid-fields").await;

    let mail = auth.mails_to("ana&co@example.org", SUBJECT, 1).await.remove(0);

    assert!(!mail.head.contains("Bcc") && !mail.body.contains("evil"), "{mail:?}");
    assert!(mail.body.contains("ana&amp;co@example.org"), "escaped in HTML: {}", mail.body);
}

#[tokio::test]
async fn a_dump_of_the_database_holds_no_token_of_a_mail() {
    let auth = TestAuth::start().await;
    auth.member("ana@example.org").await;
    let mail = auth.mails_to("ana@example.org", SUBJECT, 1).await.remove(0);

    let dump = crate::operators::dump(&auth.database.url).await;

    assert!(dump.contains("verify-email"), "the queue is in it");
    // The first 16 of 48 bytes are the id, which is no secret.
    assert!(!dump.contains(&mail.token()[22..]));
}
