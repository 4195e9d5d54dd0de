//! Pools and migrations, on a real PostgreSQL.

use common::Secret;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl as _;

#[tokio::test]
async fn a_services_connections_see_its_own_schema_only() {
    let database = testkit::database().await;
    let url = Secret::new(&database.url);
    for schema in ["one", "two"] {
        chassis::db::migrate(&url, schema, vec![outbox::MIGRATIONS]).await.unwrap();
    }
    let pool = chassis::db::pool(&url, "one", 1).unwrap();
    let mut conn = pool.get().await.unwrap();

    let path: String = diesel::select(diesel::dsl::sql::<Text>("array_to_string(current_schemas(false), ',')"))
        .get_result(&mut conn)
        .await
        .unwrap();

    assert_eq!(path, "one");
}

#[tokio::test]
async fn two_migrations_of_one_schema_with_the_same_version_are_refused() {
    let database = testkit::database().await;
    let twice = vec![outbox::MIGRATIONS, outbox::MIGRATIONS];

    let error = chassis::db::migrate(&Secret::new(&database.url), "one", twice).await.unwrap_err();

    assert!(format!("{error:#}").contains("have the version"), "{error:#}");
}
