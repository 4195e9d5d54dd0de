//! Rooms, and the messages in them, as they are written.
//!
//! - [`domain`]: rooms, members, messages, and what a message may be.
//! - `writer`: stores messages, each room's in one order. `hub`: who has which room open, and what they are told.
//! - `rates`: how fast they may come. `receipts`: what was read.
//! - `session`: a client's connection, in commands and answers; `socket`: a WebSocket as a queue of written frames. `dialect`: how the documents say what happens; `asyncapi`: a document of that.
//! - `engine`: Engine.IO, a connection over a WebSocket or over long polls; `socket_io`: a client of it.
//! - [`routes`]: the HTTP interface. `store`: the tables. `names`, `streams`: what we do with events of others.

pub mod config;
pub mod domain;
pub mod error;
pub mod routes;

mod asyncapi;
mod dialect;
mod engine;
mod event;
mod hub;
mod names;
mod rates;
mod receipts;
mod session;
mod socket;
mod socket_io;
mod store;
mod streams;
#[cfg(test)]
mod suites;
mod writer;

use std::sync::Arc;

use actix_web::web;
use backplane::Backplane;
use chassis::db::Pool;
use chassis::http::Edge;
use chassis::{ConfigError, Context, Core, Env, Service, Start};
use common::{SharedClock, Verifier};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;

use crate::config::Config;
use crate::engine::Lines;
use crate::hub::Hub;
use crate::rates::Rates;
use crate::writer::Writer;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations/chat");

/// The chat service.
pub const SERVICE: Service = Service {
    name: "chat",
    about: "Rooms, and the messages in them, as they are written.",
    port: 8083,
    edge: Edge::Internal,
    migrations: Some(|| MIGRATIONS),
    problems: error::ALL,
    openapi: routes::ApiDoc::openapi,
    asyncapi: Some(asyncapi::asyncapi),
    commands: &[],
    load,
};

/// What every handler can reach.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) pool: Pool,
    pub(crate) clock: SharedClock,
    pub(crate) verifier: Verifier,
    pub(crate) backplane: Backplane,
    pub(crate) hub: Arc<Hub>,
    pub(crate) writer: Writer,
    pub(crate) rates: Arc<Rates>,
    pub(crate) lines: Arc<Lines>,
    /// Cancelled when sockets must end.
    pub(crate) stopping: CancellationToken,
}

fn load(env: &Env, core: &Core) -> Result<Start, ConfigError> {
    let config = Config::from_env(env, core)?;
    Ok(Box::new(move |context| Box::pin(start(config, context))))
}

async fn start(config: Config, context: Context) -> anyhow::Result<chassis::App> {
    let pool = context.pool()?;
    let hub = Arc::new(Hub::new(pool.clone(), context.backplane.clone(), context.tasks.clone(), config.emails));
    context.tasks.spawn(hub::listen(Arc::clone(&hub), context.tasks.shutdown()));
    context.tasks.spawn(hub::attend(Arc::clone(&hub), context.tasks.shutdown()));
    context.tasks.spawn(hub::beat(Arc::clone(&hub), context.tasks.shutdown()));
    let rates = Arc::new(Rates::new(config.rate_per_user, config.rate_per_room));
    let (writer, queues) = Writer::new(Arc::clone(&rates));
    for queue in queues {
        let (pool, clock, rates, hub) = (pool.clone(), context.clock.clone(), Arc::clone(&rates), Arc::clone(&hub));
        context.tasks.spawn(writer::work(pool, clock, rates, hub, queue, context.tasks.shutdown()));
    }
    let lines = Lines::new(context.health.instance(), config.socket_io.clone(), context.stopping.clone());
    let names = names::Names { hub: Arc::clone(&hub) };
    let streams = streams::Streams { hub: Arc::clone(&hub) };
    let data = web::Data::new(App {
        config,
        pool,
        clock: context.clock,
        verifier: context.verifier,
        backplane: context.backplane,
        hub,
        writer,
        rates,
        lines: Arc::new(lines),
        stopping: context.stopping,
    });
    Ok(chassis::App::new(move |service| {
        service.app_data(data.clone());
        routes::configure(service);
    })
    .consume("chat.users", names)
    .consume("chat.streams", streams))
}
