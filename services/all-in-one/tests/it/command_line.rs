//! The command line, as an operator uses it.

use std::path::Path;

use testkit::{Program, eventually};
use tokio_postgres::NoTls;

use crate::house::{AMPHI, Settings, folder};

fn settings(database: &str, data: &Path) -> Settings {
    vec![
        ("DATABASE_URL", database.to_owned()),
        ("AMPHI_DATA_DIR", data.display().to_string()),
        ("GATEWAY_LISTEN", "127.0.0.1:0".to_owned()),
        ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
    ]
}

#[test]
fn config_lists_every_setting_with_its_value_its_source_and_its_default() {
    let settings = [("JWT_EXPIRY_HOURS", "12".to_owned()), ("WEBHOOK_SECRET", "hunter2".to_owned())];

    let (status, output) = Program::spawn(AMPHI, &["config"], &settings).wait();

    assert!(status.success(), "{output}");
    for line in [
        "value    12  (from: environment)",
        "value    (set)  (from: environment)",
        "value    127.0.0.1:8080  (from: default)",
    ] {
        assert!(output.contains(line), "{line} in {output}");
    }
    assert!(!output.contains("hunter2"));
}

#[test]
fn in_production_a_secret_that_is_weak_stops_the_start_also_where_it_is_the_next_one() {
    let strong = || "fbb4a9e1c0d94c6b8a64e1d2c75f".to_owned();
    for (weak, other) in [("WEBHOOK_SECRET", "WEBHOOK_SECRET_NEXT"), ("WEBHOOK_SECRET_NEXT", "WEBHOOK_SECRET")] {
        let data = folder();
        let settings = [
            ("AMPHI_ENV", "production".to_owned()),
            ("AMPHI_DATA_DIR", data.path().display().to_string()),
            ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none".to_owned()),
            (weak, "changeme".to_owned()),
            (other, strong()),
        ];
        let (status, output) = Program::spawn(AMPHI, &["--target=stream"], &settings).wait();
        assert!(!status.success(), "{weak}: {output}");
        assert!(output.contains(&format!("{weak}: ")) && !output.contains(&format!("{other}: ")), "{weak}: {output}");
        assert!(!output.contains("changeme"), "{output}");
    }
}

#[test]
fn a_service_that_does_not_exist_is_named_with_those_that_do() {
    let (status, output) = Program::spawn(AMPHI, &["--target=gateway,nothing"], &[]).wait();
    assert!(!status.success());
    assert!(output.contains("there is no service `nothing`; there are auth, stream, chat, gateway"), "{output}");
}

#[test]
fn a_wrong_setting_stops_the_start_before_anything_is_begun() {
    let data = folder();
    let settings = [
        ("AMPHI_DATA_DIR", data.path().display().to_string()),
        ("GATEWAY_LISTEN", "127.0.0.1:0".to_owned()),
        ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ("BROADCAST_STALE_AFTER", "soon".to_owned()),
    ];
    let (status, output) = Program::spawn(AMPHI, &[], &settings).wait();
    assert!(!status.success());
    assert!(
        output.contains(
            "BROADCAST_STALE_AFTER: expected a time such as 500ms, 20s, 15m, 12h or 7d, at most ten years, got `soon`"
        ),
        "{output}"
    );
    assert!(!data.path().join("postgres").exists(), "no database was made");
}

#[tokio::test]
async fn migrate_brings_the_tables_and_a_repeat_changes_nothing() {
    let database = testkit::database().await;
    let data = folder();
    for ran in ["ran=3", "ran=0"] {
        let (status, output) = Program::spawn(AMPHI, &["migrate"], &settings(&database.url, data.path())).wait();
        assert!(status.success(), "{output}");
        assert!(output.contains(ran), "{ran} in {output}");
    }
}

#[tokio::test]
async fn instances_that_start_at_once_migrate_once() {
    let database = testkit::database().await;
    let data = folder();
    let settings = settings(&database.url, data.path());
    let started: Vec<_> = (0..3).map(|_| Program::spawn(AMPHI, &["migrate"], &settings)).collect();
    let outputs: String = started
        .into_iter()
        .map(|program| {
            let (status, output) = program.wait();
            assert!(status.success(), "{output}");
            output
        })
        .collect();
    assert_eq!(outputs.matches("schema=\"stream\" ran=3").count(), 1, "{outputs}");
    assert_eq!(outputs.matches("schema=\"stream\" ran=0").count(), 2, "{outputs}");
}

#[tokio::test]
async fn a_poisonous_event_is_parked_with_its_reason_and_can_be_replayed() {
    let database = testkit::database().await;
    let data = folder();
    let settings = settings(&database.url, data.path());
    let _amphi = Program::start(AMPHI, &[], &settings).await;
    let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    let poison = "insert into auth.outbox (event_id, name, occurred_at, data) \
                  values (gen_random_uuid(), 'auth.user.registered.v1', now(), '{\"nonsense\": true}')";
    tokio::select! {
        rows = client.execute(poison, &[]) => assert_eq!(rows.unwrap(), 1),
        ended = connection => panic!("the connection ended: {ended:?}"),
    }
    let events = |arguments: &[&str]| {
        let (status, output) = Program::spawn(AMPHI, arguments, &settings).wait();
        assert!(status.success(), "{output}");
        output
    };

    let parked = eventually("the event is parked", async || {
        let parked = events(&["events", "parked"]);
        parked.contains("2 parked").then_some(parked)
    })
    .await;

    for part in ["stream.users", "chat.users", "user_id"] {
        assert!(parked.contains(part), "queues and reason are said: {part} in {parked}");
    }
    assert!(events(&["events", "replay", "stream.users"]).contains("1 put back"));
    eventually("it is parked again, as it is still poison", async || {
        events(&["events", "parked"]).contains("2 parked").then_some(())
    })
    .await;
    let (status, output) = Program::spawn(AMPHI, &["events", "replay", "no.such.queue"], &settings).wait();
    assert!(!status.success() && output.contains("no.such.queue"), "{output}");
}
