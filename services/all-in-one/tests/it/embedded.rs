//! The embedded PostgreSQL: started, adopted and stopped by `amphi`.

use std::path::Path;

use testkit::{Program, eventually, free_port};

use crate::house::{AMPHI, Settings, folder};

fn settings(data: &Path) -> Settings {
    vec![
        ("AMPHI_DATA_DIR", data.display().to_string()),
        ("GATEWAY_LISTEN", format!("127.0.0.1:{}", free_port())),
        ("ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
    ]
}

/// The pid of the PostgreSQL under `data`, if it has one.
fn postmaster(data: &Path) -> Option<String> {
    let folders = std::fs::read_dir(data.join("postgres")).ok()?.flatten();
    let file = folders.map(|folder| folder.path().join("postmaster.pid")).find(|file| file.exists())?;
    Some(std::fs::read_to_string(file).ok()?.lines().next()?.to_owned())
}

#[tokio::test]
async fn it_stops_with_the_process_and_keeps_what_was_written() {
    let data = folder();
    let first = Program::start(AMPHI, &[], &settings(data.path())).await;
    assert!(first.output().contains("password:"));
    let (status, output) = first.stop();
    assert!(status.success(), "{output}");
    assert_eq!(postmaster(data.path()), None, "PostgreSQL is stopped");

    let second = Program::start(AMPHI, &[], &settings(data.path())).await;

    assert!(!second.output().contains("password:"), "the administrator is still there");
}

#[tokio::test]
async fn one_that_a_killed_process_left_is_adopted() {
    let data = folder();
    let first = Program::start(AMPHI, &[], &settings(data.path())).await;
    let before = postmaster(data.path()).unwrap();
    first.kill();

    let second = Program::start(AMPHI, &[], &settings(data.path())).await;

    assert_eq!(postmaster(data.path()).unwrap(), before);
    assert!(second.stop().0.success());
    assert_eq!(postmaster(data.path()), None, "the adopter stops it");
}

#[tokio::test]
async fn one_that_was_killed_too_recovers() {
    let data = folder();
    let first = Program::start(AMPHI, &[], &settings(data.path())).await;
    let pid = postmaster(data.path()).unwrap();
    std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap();
    first.kill();

    let second = Program::start(AMPHI, &[], &settings(data.path())).await;

    assert!(!second.output().contains("password:"), "the administrator is still there");
}

#[tokio::test]
async fn a_command_beside_a_running_process_uses_its_server_and_leaves_it_running() {
    let data = folder();
    let settings = settings(data.path());
    let running = Program::start(AMPHI, &[], &settings).await;
    let pid = postmaster(data.path());

    let (status, output) = Program::spawn(AMPHI, &["events", "parked"], &settings).wait();

    assert!(status.success(), "{output}");
    assert!(output.contains("0 parked"), "{output}");
    assert_eq!(postmaster(data.path()), pid);
    drop(running);
}

#[tokio::test]
async fn one_is_not_left_running_by_a_start_that_fails() {
    let data = folder();
    let mut settings = settings(data.path());
    Program::start(AMPHI, &[], &settings).await.stop();
    settings.push(("AMPHI_SECRET", "another than the one that sealed the keys".to_owned()));

    let (status, output) = Program::spawn(AMPHI, &[], &settings).wait();

    assert!(!status.success(), "{output}");
    eventually("PostgreSQL is stopped", async || postmaster(data.path()).is_none().then_some(())).await;
}

#[tokio::test]
async fn a_first_start_that_was_interrupted_is_begun_again() {
    let data = folder();
    let interrupted = data.path().join("postgres/data15.new");
    std::fs::create_dir_all(&interrupted).unwrap();
    std::fs::write(interrupted.join("PG_VERSION"), "15\n").unwrap();

    let program = Program::start(AMPHI, &[], &settings(data.path())).await;

    assert!(program.output().contains("password:"));
}

#[tokio::test]
async fn data_of_a_version_that_is_not_installed_is_left_alone_and_named() {
    let data = folder();
    std::fs::create_dir_all(data.path().join("postgres/data9")).unwrap();

    let (status, output) = Program::spawn(AMPHI, &[], &settings(data.path())).wait();

    assert!(!status.success());
    assert!(output.contains("the data is of PostgreSQL 9, which is not installed"), "{output}");
}
