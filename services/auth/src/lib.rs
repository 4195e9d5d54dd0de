//! Who a user is: registration, login, sessions, and the keys that sign tokens.
//!
//! - [`domain`]: what an e-mail address, a name and a password may be.
//! - [`passwords`]: hashing on a bounded pool. [`keys`]: signing, and sealing the signing keys.
//! - [`routes`]: the HTTP interface. [`store`]: the tables. [`admin`]: the first administrator.

pub mod config;
pub mod domain;
pub mod error;
pub mod routes;

mod admin;
mod keys;
mod passwords;
mod store;

use std::sync::Arc;

use actix_web::web;
use chassis::db::Pool;
use chassis::http::Edge;
use chassis::{ConfigError, Context, Core, Env, Service, Start};
use common::SharedClock;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use utoipa::OpenApi as _;

use crate::config::Config;
use crate::keys::SigningKey;
use crate::passwords::Passwords;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/auth");

/// The auth service.
pub const SERVICE: Service = Service {
    name: "auth",
    about: "Who a user is: registration, login, sessions, and the keys that sign tokens.",
    port: 8081,
    edge: Edge::Internal,
    migrations: Some(|| MIGRATIONS),
    problems: error::ALL,
    openapi: routes::ApiDoc::openapi,
    load,
};

/// What every handler can reach.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) pool: Pool,
    pub(crate) clock: SharedClock,
    pub(crate) passwords: Passwords,
    pub(crate) signing_key: SigningKey,
}

fn load(env: &Env, core: &Core) -> Result<Start, ConfigError> {
    let config = Config::from_env(env, core)?;
    Ok(Box::new(move |context| Box::pin(start(config, context))))
}

async fn start(config: Config, context: Context) -> anyhow::Result<chassis::App> {
    let pool = context.pool()?;
    let passwords = Passwords::new(config.password_workers)?;
    let signing_key = keys::load_or_make(&pool, &config, context.clock.now()).await?;
    let app = Arc::new(App { config, pool, clock: context.clock, passwords, signing_key });
    let data = web::Data::from(Arc::clone(&app));
    Ok(chassis::App::new(move |service| {
        service.app_data(data.clone());
        routes::configure(service);
    })
    .when_serving(async move { admin::ensure(&app).await }))
}
