//! Live streams, and the webhooks of the media servers that carry them.
//!
//! - [`domain`]: streams, broadcasts, and what a title may be.
//! - [`call`]: what media servers say; [`dialect`]: how each of them says it. [`machine`]: what follows from it, as a pure
//!   function; [`broadcasting`]: carries that out; [`heartbeats`]: those that change nothing, in short.
//! - [`routes`]: the HTTP interface. [`store`]: the tables. [`cache`]: lists and details, for a moment.
//! - [`call_log`]: keeps the last calls of media servers, for whoever wonders what happened.
//! - [`audience`]: who watches over HLS. [`announcements`]: followers learn that a stream is live. [`soon`]: everybody
//!   learns that one begins soon.
//! - [`media`]: asks media servers who is there, and orders them. [`feed`]: tells readers what happens. [`thumbnails`]: takes
//!   pictures of what is live.
//! - [`names`]: what we do with events of others. [`reaper`]: ends broadcasts that nobody reports any more.

pub mod call;
pub mod config;
pub mod dialect;
pub mod domain;
pub mod error;
pub mod routes;

mod broadcasting;
mod cache;
mod call_log;
mod feed;
mod heartbeats;
mod machine;
mod media;
mod names;
mod reaper;
mod store;
mod thumbnails;

mod announcements;
mod audience;
mod soon;

use std::sync::Arc;

use actix_web::web;
use chassis::db::Pool;
use chassis::http::Edge;
use chassis::{ConfigError, Context, Core, Env, Service, Start};
use common::SharedClock;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;

use crate::audience::Audience;
use crate::broadcasting::Calls;
use crate::cache::Cache;
use crate::call_log::CallLog;
use crate::config::Config;
use crate::feed::Feed;
use crate::heartbeats::Heard;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/stream");

/// The stream service.
pub const SERVICE: Service = Service {
    name: "stream",
    about: "Live streams, and the webhooks of the media servers that carry them.",
    port: 8082,
    edge: Edge::Internal,
    migrations: Some(|| MIGRATIONS),
    problems: error::ALL,
    openapi: routes::ApiDoc::openapi,
    asyncapi: None,
    commands: &[],
    load,
};

/// What every handler can reach.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) pool: Pool,
    pub(crate) clock: SharedClock,
    pub(crate) cache: Cache,
    pub(crate) calls: Calls,
    pub(crate) heard: Heard,
    pub(crate) media: media::Servers,
    pub(crate) call_log: CallLog,
    pub(crate) audience: Audience,
    pub(crate) feed: Feed,
    /// Cancelled when endless answers end.
    pub(crate) stopping: CancellationToken,
}

fn load(env: &Env, core: &Core) -> Result<Start, ConfigError> {
    let config = Config::from_env(env, core)?;
    Ok(Box::new(move |context| Box::pin(start(config, context))))
}

async fn start(config: Config, context: Context) -> anyhow::Result<chassis::App> {
    let pool = context.pool()?;
    let audience = Audience::new(context.backplane.clone(), config.viewer_counts_for);
    let cache = Cache::new(context.backplane, config.cache, &context.tasks);
    let (calls, waiting) = Calls::new();
    let call_log = CallLog::new(config.webhook_log);
    let media = media::Servers::new(config.media_servers.clone(), config.webhook_secret.clone())?;
    let feed = Feed::open(&pool).await?;
    let app = Arc::new(App {
        config,
        pool,
        clock: context.clock,
        cache,
        calls,
        heard: Heard::default(),
        media,
        call_log,
        audience,
        feed,
        stopping: context.stopping,
    });
    context.tasks.spawn(broadcasting::work(Arc::clone(&app), waiting, context.tasks.shutdown()));
    context.tasks.spawn(heartbeats::write(Arc::clone(&app), context.tasks.shutdown()));
    context.tasks.spawn(call_log::write(Arc::clone(&app), context.tasks.shutdown()));
    context.tasks.spawn(reaper::run(Arc::clone(&app), context.tasks.shutdown()));
    context.tasks.spawn(audience::run(Arc::clone(&app), context.tasks.shutdown()));
    context.tasks.spawn(announcements::run(Arc::clone(&app), context.tasks.shutdown()));
    context.tasks.spawn(soon::run(Arc::clone(&app), context.tasks.shutdown()));
    context.tasks.spawn(media::watch::run(Arc::clone(&app), context.tasks.shutdown()));
    context.tasks.spawn(feed::follow(Arc::clone(&app), context.tasks.shutdown()));
    context.tasks.spawn(feed::prune(Arc::clone(&app), context.tasks.shutdown()));
    context.tasks.spawn(thumbnails::run(Arc::clone(&app), context.tasks.shutdown()));
    let ingest = app.config.ingest_url.clone();
    let names = names::Names { clock: app.clock.clone(), rules: app.config.rules() };
    let data = web::Data::from(app);
    Ok(chassis::App::new(move |service| {
        service.app_data(data.clone());
        routes::configure(service);
    })
    .consume("stream.users", names)
    .announce(vec![("publish to", format!("{ingest}/<stream key>"))]))
}
