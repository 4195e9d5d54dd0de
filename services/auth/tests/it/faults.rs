use testkit::{Postgres, Program, eventually};

use crate::support::{PROGRAM, TestAuth, problem, settings_of, token_of};

#[tokio::test]
async fn a_failure_of_ours_says_nothing_of_its_cause_and_is_found_in_the_error_log_by_its_trace_id() {
    let logs = tempfile::tempdir().unwrap();
    let auth = TestAuth::with(&[("LOG_DIR", logs.path().to_str().unwrap())]).await;
    let token = token_of(auth.register("ana@example.org").await).await;
    let (client, connection) = tokio_postgres::connect(&auth.database.url, tokio_postgres::NoTls).await.unwrap();
    tokio::select! {
        done = client.batch_execute("alter table auth.sessions rename to gone") => done.unwrap(),
        ended = connection => panic!("the connection ended: {ended:?}"),
    }

    let problem = problem(auth.me(&token).await, 500, "internal").await;

    assert!(!problem.to_string().contains("sessions"), "{problem}");
    let trace_id = problem["trace_id"].as_str().unwrap();
    eventually("the error log has it", async || {
        let files = std::fs::read_dir(logs.path()).unwrap().flatten().map(|file| file.path());
        let errors: String = files
            .filter(|path| path.display().to_string().contains(".error."))
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        (errors.contains(trace_id) && errors.contains("sessions") && !errors.contains("up to date")).then_some(())
    })
    .await;
}

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
