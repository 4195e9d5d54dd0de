use tokio_postgres::NoTls;

use testkit::Program;

use crate::support::{PROGRAM, TestAuth, settings_of, token_of};

/// Every value of every column of every table, as text.
pub(crate) async fn dump(url: &str) -> String {
    dump_of(url, "").await
}

/// The same of one schema.
pub(crate) async fn dump_of(url: &str, schema: &str) -> String {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let driver = async {
        let tables = client
            .query(
                "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname !~ '^pg_|^information'
                   and $1::text in ('', schemaname::text)",
                &[&schema],
            )
            .await
            .unwrap();
        let mut dump = String::new();
        for table in tables {
            let rows =
                client.query(&format!("select t::text from {} t", table.get::<_, String>(0)), &[]).await.unwrap();
            rows.iter().for_each(|row| dump.push_str(&row.get::<_, String>(0)));
        }
        dump
    };
    tokio::select! {
        dump = driver => dump,
        ended = connection => panic!("the connection ended: {ended:?}"),
    }
}

#[tokio::test]
async fn the_first_administrators_password_is_shown_once_and_stored_as_a_hash() {
    let auth = TestAuth::start().await;
    let announced = auth.program.announced("administrator");
    let password = announced.split_whitespace().nth(2).unwrap().to_owned();

    let answer = auth.login("admin@amphi.example", &password).await;
    assert_eq!(answer.status(), 200);
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["user"]["user_role"], "Admin");
    assert!(!dump(&auth.database.url).await.contains(&password));

    let auth = auth.restart().await;
    assert!(!auth.program.output().contains("administrator"), "{}", auth.program.output());
    assert_eq!(auth.login("admin@amphi.example", &password).await.status(), 200);
}

#[tokio::test]
async fn the_first_administrator_can_be_given() {
    let settings = [("AMPHI_ADMIN_EMAIL", "root@example.org"), ("AMPHI_ADMIN_PASSWORD", "given by hand")];
    let auth = TestAuth::with(&settings).await;
    assert_eq!(auth.login("root@example.org", "given by hand").await.status(), 200);
    assert!(!auth.program.output().contains("given by hand"));
}

#[tokio::test]
async fn a_dump_of_the_database_lets_nobody_in() {
    let auth = TestAuth::start().await;
    let token = token_of(auth.register("ana@example.org").await).await;

    let dump = dump(&auth.database.url).await;

    assert!(dump.contains("ana@example.org"), "the dump is one");
    assert!(!dump.contains("correct horse"));
    assert!(!dump.contains(token.rsplit('.').next().unwrap()));
}

#[tokio::test]
async fn production_does_not_start_without_secrets_of_its_own() {
    let database = testkit::database().await;
    let data = tempfile::tempdir().unwrap();
    let start = |secret: Option<&str>| {
        let mut settings = settings_of(&database.url, data.path());
        settings.push(("AMPHI_ENV", "production".to_owned()));
        settings.extend(secret.map(|secret| ("AMPHI_SECRET", secret.to_owned())));
        Program::spawn(PROGRAM, &[], &settings).wait()
    };
    for password in [None, Some("changeme-changeme")] {
        let mut settings = settings_of(&database.url, data.path());
        settings.push(("AMPHI_ENV", "production".to_owned()));
        settings.push(("AMPHI_SECRET", "5b1c0f39a7de42d8b6f1c2a9".to_owned()));
        settings.extend(password.map(|password| ("AMPHI_ADMIN_PASSWORD", password.to_owned())));
        let (status, output) = Program::spawn(PROGRAM, &[], &settings).wait();
        assert!(!status.success(), "{output}");
        assert!(output.contains("AMPHI_ADMIN_PASSWORD"), "{output}");
    }
    for secret in [None, Some("short"), Some("changeme-changeme-changeme")] {
        let (status, output) = start(secret);
        assert!(!status.success(), "{output}");
        assert!(output.contains("AMPHI_SECRET"), "{output}");
        assert!(secret.is_none_or(|secret| !output.contains(secret)), "{output}");
    }
}

#[tokio::test]
async fn in_production_cookies_are_for_https_only() {
    let settings = [
        ("AMPHI_ENV", "production"),
        ("AMPHI_SECRET", "5b1c0f39a7de42d8b6f1c2a9"),
        ("AMPHI_ADMIN_PASSWORD", "e2c1a7b90d4f4c55"),
    ];
    let auth = TestAuth::with(&settings).await;
    let answer = auth.register("ana@example.org").await;
    assert!(answer.headers()["set-cookie"].to_str().unwrap().contains("Secure"));
}

#[tokio::test]
async fn another_secret_than_the_one_that_sealed_the_keys_is_refused_with_what_to_do() {
    let auth = TestAuth::start().await;
    let data = tempfile::tempdir().unwrap();

    let (status, output) = Program::spawn(PROGRAM, &[], &settings_of(&auth.database.url, data.path())).wait();

    assert!(!status.success());
    assert!(output.contains("AMPHI_SECRET: it does not open the signing key"), "{output}");
}

#[tokio::test]
async fn a_setting_that_cannot_be_read_is_named_with_what_it_expects() {
    let database = testkit::database().await;
    let data = tempfile::tempdir().unwrap();
    let mut settings = settings_of(&database.url, data.path());
    settings.push(("JWT_EXPIRY_HOURS", "0".to_owned()));

    let (status, output) = Program::spawn(PROGRAM, &[], &settings).wait();

    assert!(!status.success());
    assert!(output.contains("JWT_EXPIRY_HOURS: expected a number of hours from 1 to 8760, got `0`"), "{output}");
}
