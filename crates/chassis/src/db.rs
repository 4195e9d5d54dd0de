//! A service's own schema: its pool, its migrations, and what a failure means to a client.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use common::{Problem, Secret};
use diesel::migration::{Migration, MigrationSource as _};
use diesel::pg::Pg;
use diesel::result::{DatabaseErrorKind, Error as QueryError};
use diesel_async::pooled_connection::deadpool::{Object, PoolError};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod, deadpool};
use diesel_async::{AsyncConnection as _, AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl as _};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _};

/// Connections to one schema.
pub type Pool = deadpool::Pool<AsyncPgConnection>;
/// One of them, given back when it is dropped.
pub type Connection = Object<AsyncPgConnection>;

/// How long a request waits for a connection before it is answered 503.
const PATIENCE: Duration = Duration::from_secs(5);
/// When a client should try again after that.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long the server may stay silent on the network before a connection counts as lost: without it, a server that
/// vanished with its machine would hold every request for hours.
const SILENCE: Duration = Duration::from_secs(10);
/// How long an instance waits for another one's migrations.
const MIGRATION_PATIENCE: &str = "10min";
/// No statement of a request runs longer.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);
/// Whoever migrates anything holds this advisory lock: instances that start at once take turns.
const MIGRATION_LOCK: i64 = 0x616d_7068_6931;

/// `url` with the schema as its only search path, which also gives each schema its own migration table.
#[must_use]
pub fn in_schema(url: &Secret, schema: &str) -> Secret {
    with_options(url, &format!("-csearch_path={schema}"))
}

fn with_options(url: &Secret, options: &str) -> Secret {
    let url = url.expose();
    let glue = if url.contains('?') { '&' } else { '?' };
    let options: String = form_urlencoded::byte_serialize(options.as_bytes()).collect();
    // In a URL's query PostgreSQL reads `+` as itself, not as a space.
    let options = options.replace('+', "%20");
    let (patience, silence) = (PATIENCE.as_secs(), SILENCE.as_secs());
    Secret::new(format!(
        "{url}{glue}options={options}&connect_timeout={patience}&tcp_user_timeout={silence}\
         &keepalives_idle={silence}&keepalives_interval={silence}&keepalives_retries=2"
    ))
}

/// A pool of at most `size` connections to `schema`. Connects when first used.
pub fn pool(url: &Secret, schema: &str, size: usize) -> anyhow::Result<Pool> {
    let timeout = STATEMENT_TIMEOUT.as_millis();
    // What is asked for by a key is mostly in memory; with PostgreSQL's default, which is of disks that turn, a plan that is
    // made while a table is small reads all of it when it has grown.
    let url =
        with_options(url, &format!("-csearch_path={schema} -cstatement_timeout={timeout} -crandom_page_cost=1.1"));
    let mut config = ManagerConfig::default();
    // A query per checkout would double the round trips of a short request; a dead connection is noticed when its
    // driver ends, and costs one request a 503 at worst.
    config.recycling_method = RecyclingMethod::Fast;
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new_with_config(url.expose(), config);
    Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(PATIENCE))
        .create_timeout(Some(PATIENCE))
        .recycle_timeout(Some(PATIENCE))
        .runtime(deadpool_runtime())
        .build()
        .context("the connection pool cannot be made")
}

fn deadpool_runtime() -> ::deadpool::Runtime {
    ::deadpool::Runtime::Tokio1
}

/// Whether the database answers, in words, for `/readyz`.
pub async fn probe(pool: Pool) -> Result<(), String> {
    let mut conn = pool.get().await.map_err(|error| format!("no connection: {error}"))?;
    diesel::sql_query("select 1").execute(&mut conn).await.map_err(|error| format!("no answer: {error}"))?;
    Ok(())
}

/// Creates `schema` and runs what `sources` has not run there yet, in order. One process at a time does so.
pub async fn migrate(url: &Secret, schema: &'static str, sources: Vec<EmbeddedMigrations>) -> anyhow::Result<()> {
    let admin = with_options(url, &format!("-clock_timeout={MIGRATION_PATIENCE}"));
    let mut lock = AsyncPgConnection::establish(admin.expose()).await.context("the database cannot be reached")?;
    diesel::sql_query(format!("select pg_advisory_lock({MIGRATION_LOCK})")).execute(&mut lock).await?;
    diesel::sql_query(format!("create schema if not exists \"{schema}\"")).execute(&mut lock).await?;
    let url = in_schema(url, schema);
    // Diesel's migrations block, which only a thread with a runtime of its own may do everywhere.
    let ran = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(async move {
            let conn = AsyncPgConnection::establish(url.expose()).await?;
            let mut harness = AsyncMigrationHarness::new(conn);
            refuse_doubles(&sources)?;
            let mut ran = 0;
            for source in sources {
                ran += harness.run_pending_migrations(source).map_err(|error| anyhow!(error))?.len();
            }
            anyhow::Ok(ran)
        })
    })
    .await?
    .with_context(|| format!("the migrations of `{schema}` failed"))?;
    // The lock goes with its connection.
    drop(lock);
    tracing::info!(schema, ran, "the schema is up to date");
    Ok(())
}

/// Diesel knows a migration by its version alone and would silently skip the second of two that share one.
fn refuse_doubles(sources: &[EmbeddedMigrations]) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for source in sources {
        let migrations: Vec<Box<dyn Migration<Pg>>> = source.migrations().map_err(|error| anyhow!(error))?;
        for migration in migrations {
            let version = migration.name().version().to_string();
            ensure!(seen.insert(version.clone()), "two migrations of one schema have the version {version}");
        }
    }
    Ok(())
}

/// What a client sees of a failed query: 503 when the database was away, else 500.
#[must_use]
pub fn query_problem(error: QueryError) -> Problem {
    match &error {
        QueryError::DatabaseError(DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand, _)
        | QueryError::BrokenTransactionManager => Problem::unavailable(RETRY_AFTER, error),
        // What the server says while it starts or stops, which diesel has no kind for.
        QueryError::DatabaseError(DatabaseErrorKind::Unknown, info)
            if ["connection closed", "the database system is", "terminating connection"]
                .iter()
                .any(|text| info.message().contains(text)) =>
        {
            Problem::unavailable(RETRY_AFTER, error)
        }
        _ => Problem::internal(error),
    }
}

/// What a client sees when no connection was free: 503.
#[must_use]
pub fn pool_problem(error: PoolError) -> Problem {
    Problem::unavailable(RETRY_AFTER, error)
}
