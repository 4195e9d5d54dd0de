//! A database of the test's own.

use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use tokio_postgres::NoTls;

use crate::{block_on_aside, services};

/// An empty database. It is dropped with this value, whoever is still connected.
#[derive(Debug)]
pub struct TestDatabase {
    /// With the credentials of a superuser.
    pub url: String,
    pub name: String,
    /// The database that `name` was made from.
    admin_url: String,
}

/// A new database on the shared PostgreSQL.
pub async fn database() -> TestDatabase {
    database_on(&services().database_url).await
}

/// A new database on the PostgreSQL that `admin_url` leads to.
pub async fn database_on(admin_url: &str) -> TestDatabase {
    let name = format!("test_{}", uuid::Uuid::now_v7().simple());
    execute(admin_url, &format!("CREATE DATABASE {name} TEMPLATE template0"))
        .await
        .unwrap_or_else(|error| panic!("no database for the test: {error:?}"));
    TestDatabase { url: with_database(admin_url, &name), name, admin_url: admin_url.to_owned() }
}

/// Up to 10 connections to `url`.
#[must_use]
pub fn pool(url: &str) -> Pool<AsyncPgConnection> {
    // As in services: a connection may turn out to be dead when it is used.
    let mut config = ManagerConfig::default();
    config.recycling_method = RecyclingMethod::Fast;
    let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new_with_config(url, config);
    Pool::builder(manager).max_size(10).build().expect("a pool")
}

impl TestDatabase {
    /// The address for connections that see only `schema`.
    #[must_use]
    pub fn url_for_schema(&self, schema: &str) -> String {
        let glue = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{glue}options=-csearch_path%3D{schema}", self.url)
    }

    /// Up to 10 connections that see only `schema`, which is created if it does not exist. It has no tables.
    pub async fn pool(&self, schema: &str) -> Pool<AsyncPgConnection> {
        execute(&self.url, &format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""))
            .await
            .unwrap_or_else(|error| panic!("no schema {schema}: {error:?}"));
        pool(&self.url_for_schema(schema))
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (admin_url, name) = (self.admin_url.clone(), self.name.clone());
        block_on_aside(async move || {
            // It may be gone, with the server that held it.
            if let Err(error) = execute(&admin_url, &format!("DROP DATABASE {name} WITH (FORCE)")).await {
                eprintln!("the database {name} stays: {error}");
            }
        });
    }
}

async fn execute(url: &str, statement: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let work = async move {
        let done = client.batch_execute(statement).await;
        drop(client);
        done
    };
    let (done, _) = tokio::join!(work, connection);
    done
}

/// `url` with another database.
fn with_database(url: &str, name: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let (server, _) = base.rsplit_once('/').expect("an address ends with a database");
    match query {
        Some(query) => format!("{server}/{name}?{query}"),
        None => format!("{server}/{name}"),
    }
}
