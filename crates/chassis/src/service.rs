//! What a service is to the process that runs it.

use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use anyhow::Context as _;
use backplane::Backplane;
use common::{Kind, Secret, SharedClock, Verifier};
use diesel_migrations::EmbeddedMigrations;
use futures_util::future::BoxFuture;
use outbox::Transport;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;

use crate::db::Pool;
use crate::env::{ConfigError, Env, Origin, Stage};
use crate::health::Health;
use crate::http::{Edge, Options, Routes};
use crate::tasks::Tasks;
use crate::telemetry;

/// A service, as a constant: `pub const SERVICE: chassis::Service`.
#[derive(Clone, Copy)]
pub struct Service {
    /// Lower case. Its schema, its `--target`, and in upper case the beginning of its settings' names.
    pub name: &'static str,
    /// One sentence, for `--help` and documents.
    pub about: &'static str,
    /// Where it listens on loopback when it runs alone; its private port is 1000 higher.
    pub port: u16,
    pub edge: Edge,
    /// Its tables. `None`: it has no database, sends no events and consumes none.
    pub migrations: Option<fn() -> EmbeddedMigrations>,
    /// Its own kinds of problems, beside those that every service has.
    pub problems: &'static [Kind],
    /// Its API, with canonical paths.
    pub openapi: fn() -> OpenApi,
    /// What is said on its WebSockets, as an AsyncAPI document. `None`: it has none.
    pub asyncapi: Option<fn() -> serde_json::Value>,
    /// What an operator can have it do besides serving: `amphi <service> <command>`.
    pub commands: &'static [Command],
    /// Reads its configuration, and returns how to start with it.
    pub load: fn(&Env, &Core) -> Result<Start, ConfigError>,
}

/// A command of one service, on its database. It works whether instances of the service run or not.
#[derive(Clone, Copy)]
pub struct Command {
    /// Lower case, words joined by `-`.
    pub name: &'static str,
    /// For `--help`: the first line says what it does, the rest what to know before.
    pub about: &'static str,
    /// Names of flags (`now` is `--now`), each with its meaning.
    pub flags: &'static [(&'static str, &'static str)],
    /// Does it, and returns what to tell the operator.
    pub run: fn(Order) -> BoxFuture<'static, anyhow::Result<String>>,
}

/// What a command is given.
pub struct Order {
    pub env: Env,
    pub core: Core,
    pub clock: SharedClock,
    /// Connections to the service's own schema, as it is: nothing is migrated.
    pub pool: Pool,
    pub(crate) flags: Vec<&'static str>,
}

impl Order {
    /// Whether this flag was given.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }
}

impl Service {
    /// The name of one of its settings: `GATEWAY_LISTEN`.
    pub(crate) fn setting(&self, suffix: &str) -> String {
        format!("{}_{suffix}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}

/// Starts a service whose configuration was read.
pub type Start = Box<dyn FnOnce(Context) -> BoxFuture<'static, anyhow::Result<App>> + Send>;

/// What a service is given when it starts.
pub struct Context {
    pub clock: SharedClock,
    pub verifier: Verifier,
    pub tasks: Tasks,
    pub health: Health,
    pub backplane: Backplane,
    /// Cancelled when the service's server is about to stop: an answer that would go on for ever ends now.
    pub stopping: CancellationToken,
    /// Connections to the service's own schema.
    pub(crate) pool: Option<Pool>,
}

impl Context {
    /// Connections to the service's own schema, which is migrated.
    ///
    /// Fails when the service declares no migrations.
    pub fn pool(&self) -> anyhow::Result<Pool> {
        self.pool.clone().context("this service declares no migrations, so it has no database")
    }
}

/// Starts a consumer, and returns how it is doing.
pub(crate) type Consume = Box<dyn FnOnce(Pool, Transport, &Tasks) -> watch::Receiver<outbox::ConsumerHealth> + Send>;

/// A label and a text for the person who starts the process.
pub type Announcement = (&'static str, String);

/// Makes the server of a service that does not leave that to the chassis. The server does nothing until it is awaited.
pub type MakeServer = Box<dyn FnOnce(TcpListener, Options) -> std::io::Result<Server> + Send>;

/// How requests reach a service.
pub(crate) enum Front {
    Routes(Routes),
    Own(MakeServer),
}

/// A service that is ready to be served.
pub struct App {
    pub(crate) front: Front,
    pub(crate) consumers: Vec<(&'static str, Consume)>,
    pub(crate) announcements: Vec<Announcement>,
    pub(crate) when_serving: Option<BoxFuture<'static, anyhow::Result<Vec<Announcement>>>>,
}

impl App {
    /// An app that serves `routes` and consumes nothing.
    pub fn new(routes: impl Fn(&mut actix_web::web::ServiceConfig) + Send + Sync + 'static) -> Self {
        Self::with(Front::Routes(Arc::new(routes)))
    }

    /// An app with a server of its own, which answers `/healthz` and `/openapi.json` by itself too.
    pub fn with_server(make: impl FnOnce(TcpListener, Options) -> std::io::Result<Server> + Send + 'static) -> Self {
        Self::with(Front::Own(Box::new(make)))
    }

    fn with(front: Front) -> Self {
        Self { front, consumers: Vec::new(), announcements: Vec::new(), when_serving: None }
    }

    /// Lets `handler` have the events of `queue`, one of [`events::SUBSCRIPTIONS`].
    #[must_use]
    pub fn consume(mut self, queue: &'static str, handler: impl outbox::Handler) -> Self {
        self.consumers.push((
            queue,
            Box::new(move |pool, transport, tasks| {
                let consumer = outbox::Consumer::new(queue, pool, transport, handler);
                let health = consumer.health();
                tasks.spawn(consumer.run(tasks.shutdown()));
                health
            }),
        ));
        self
    }

    /// What the person who starts it should read. Never logged.
    #[must_use]
    pub fn announce(mut self, lines: Vec<Announcement>) -> Self {
        self.announcements.extend(lines);
        self
    }

    /// What is done last, when every service of the process serves, and what to read of it. A failure ends the process.
    #[must_use]
    pub fn when_serving(
        mut self,
        last: impl Future<Output = anyhow::Result<Vec<Announcement>>> + Send + 'static,
    ) -> Self {
        self.when_serving = Some(Box::pin(last));
        self
    }
}

/// The settings that every process reads.
#[derive(Debug, Clone)]
pub struct Core {
    pub stage: Stage,
    pub data_dir: PathBuf,
    /// The address that people and clients use.
    pub public_url: Origin,
    pub(crate) telemetry: telemetry::Config,
    pub(crate) database_url: Option<Secret>,
    pub(crate) pool_size: NonZeroUsize,
    pub(crate) pg_bin_dir: Option<PathBuf>,
    pub(crate) amqp_url: Option<Secret>,
    pub(crate) amqp_namespace: String,
    pub(crate) redis_url: Option<Secret>,
    pub(crate) redis_prefix: String,
    pub(crate) workers: NonZeroUsize,
    pub(crate) notice: Duration,
    pub(crate) drain: Duration,
    /// Whose tokens are accepted here.
    pub issuer: String,
}

impl Core {
    /// Whether traces are sent to a collector.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.telemetry.otlp_endpoint.is_some()
    }

    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let stage = env.read(
            "AMPHI_ENV",
            "development",
            "`production` refuses missing or guessable secrets and sends cookies over HTTPS only.",
        )?;
        Ok(Self {
            stage,
            data_dir: env.read("AMPHI_DATA_DIR", ".amphi", "The folder for everything written on embedded defaults: the database, generated secrets.")?,
            public_url: env.read("PUBLIC_URL", "http://127.0.0.1:8080", "The address of the gateway as clients see it. With the gateway in the same process: its own address.")?,
            database_url: env.optional("DATABASE_URL", "a private PostgreSQL in `AMPHI_DATA_DIR`", "PostgreSQL, `postgres://user:password@host:port/database`. Each service keeps to a schema of its own in it.")?,
            pool_size: env.read("DATABASE_POOL_SIZE", "10", "The most connections a service holds to its schema.")?,
            pg_bin_dir: env.optional("PG_BIN_DIR", "the newest installed, else downloaded once with npm", "Where `initdb` and `postgres` are, for the private PostgreSQL.")?,
            amqp_url: env.optional("AMQP_URL", "events stay in PostgreSQL", "RabbitMQ, `amqp://user:password@host:port/vhost`, that carries events between services.")?,
            amqp_namespace: env.read("AMQP_NAMESPACE", "amphi", "What the names of exchange and queues begin with, so that installations can share one RabbitMQ.")?,
            redis_url: env.optional("REDIS_URL", "memory of the process, for one instance a service", "Redis, `redis://host:port`, for what instances of a service share in memory.")?,
            redis_prefix: env.read("REDIS_PREFIX", "amphi", "What keys in Redis begin with, so that installations can share one Redis.")?,
            workers: env.read("HTTP_WORKERS", "2", "Worker threads of each HTTP server.")?,
            notice: env.read(
                "SHUTDOWN_NOTICE",
                match stage {
                    Stage::Development => "0s",
                    Stage::Production => "3s",
                },
                "How long a process that is asked to stop goes on taking requests after `/healthz` and `/readyz` say so, for load balancers to notice. In production `3s`.",
            )?,
            drain: env.read("SHUTDOWN_DEADLINE", "20s", "How long requests and tasks in hand may take when the process is asked to stop.")?,
            issuer: env.read("JWT_ISSUER", "amphi", "Who tokens are from: those of another installation with another name are refused.")?,
            telemetry: telemetry::Config::from_env(env, stage)?,
        })
    }
}
