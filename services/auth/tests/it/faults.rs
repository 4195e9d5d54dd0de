use testkit::{Postgres, Program, eventually};

use crate::support::{PROGRAM, problem, settings_of};

#[tokio::test]
async fn without_postgresql_login_is_a_clear_503_and_recovers_by_itself() {
    let postgres = Postgres::private().await;
    let database = testkit::database_on(&postgres.url()).await;
    let data = tempfile::tempdir().unwrap();
    let program = Program::start(PROGRAM, &[], &settings_of(&database.url, data.path())).await;
    let client = testkit::client();
    let register = async |email: &str| {
        let body = serde_json::json!({"email": email, "password": "correct horse", "fullname": "Ana"});
        let url = format!("{}/api/v1/auth/register", program.announced("auth"));
        client.post(url).json(&body).send().await.unwrap()
    };
    assert_eq!(register("before@example.org").await.status(), 201);

    postgres.kill().await;

    let answer = register("during@example.org").await;
    assert!(answer.headers().contains_key("retry-after"));
    problem(answer, 503, "unavailable").await;
    let ready = client.get(format!("{}/readyz", program.private_port())).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("auth.postgresql"));

    postgres.start().await;

    eventually("registering works again", async || (register("after@example.org").await.status() == 201).then_some(()))
        .await;
    eventually("it is ready again", async || {
        let ready = client.get(format!("{}/readyz", program.private_port())).send().await.unwrap();
        (ready.status() == 200).then_some(())
    })
    .await;
}
