//! Starts services in one process, and stops them.
//!
//! The order is: read all configuration, connect, migrate, start each service, serve. So a process that answers is
//! one whose configuration is whole and whose tables are there.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{HttpResponse, web};
use anyhow::{Context as _, ensure};
use backplane::Backplane;
use common::{Secret, SharedClock, Verifier};
use outbox::{Amqp, AmqpOptions, Local, Relay, Transport};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::embedded_postgres::EmbeddedPostgres;
use crate::env::{ConfigError, Env, Origins};
use crate::health::{Health, Importance};
use crate::service::{Announcement, Context, Core, Front, Service, Start};
use crate::tasks::Tasks;
use crate::{admin, db, docs, http, telemetry, trust};

/// The schema of the in-process transport.
const BROKER_SCHEMA: &str = "broker";
/// Connections that the in-process transport may hold: it writes little.
const BROKER_POOL: usize = 8;
/// How long to wait, at start, for what is still starting itself. Then the process serves, and is not ready.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// The private port stands this much above the public one.
const ADMIN_OFFSET: u16 = 1000;

/// Services that run in this process.
pub struct Running {
    servers: Vec<(ServerHandle, CancellationToken)>,
    admin: SocketAddr,
    /// What the person who started them should read.
    pub announcements: Vec<Announcement>,
    tasks: Tasks,
    health: Health,
    postgres: Option<EmbeddedPostgres>,
    notice: Duration,
    drain: Duration,
}

/// Where the tables of each service are.
pub(crate) struct Databases {
    shared: Option<Secret>,
    postgres: Option<EmbeddedPostgres>,
}

impl Databases {
    /// `DATABASE_URL`, or the embedded server, if any of `services` has tables and no database of its own.
    pub(crate) async fn open(services: &[Service], env: &Env, core: &Core) -> anyhow::Result<Self> {
        if let Some(url) = &core.database_url {
            return Ok(Self { shared: Some(url.clone()), postgres: None });
        }
        let mut needs_shared = false;
        for service in services.iter().filter(|service| service.migrations.is_some()) {
            needs_shared |= own_database_url(service, env)?.is_none();
        }
        if !needs_shared {
            return Ok(Self { shared: None, postgres: None });
        }
        let postgres = EmbeddedPostgres::open(&core.data_dir, core.pg_bin_dir.as_deref()).await?;
        Ok(Self { shared: Some(postgres.url().clone()), postgres: Some(postgres) })
    }

    /// The database of `service`: its own `<NAME>_DATABASE_URL`, else the one that all share.
    pub(crate) fn of(&self, service: &Service, env: &Env) -> anyhow::Result<Secret> {
        let own = own_database_url(service, env)?;
        own.or_else(|| self.shared.clone()).context("no database")
    }

    pub(crate) async fn stop(self) {
        if let Some(postgres) = self.postgres {
            postgres.stop().await;
        }
    }
}

pub(crate) fn own_database_url(service: &Service, env: &Env) -> Result<Option<Secret>, ConfigError> {
    env.optional(&service.setting("DATABASE_URL"), "`DATABASE_URL`", "A database for this service alone.")
}

/// Where `service` listens. Behind a gateway in its process it takes any free port: nobody else looks for it.
pub(crate) fn listen_address(service: &Service, env: &Env, services: &[Service]) -> Result<SocketAddr, ConfigError> {
    let port = if is_hidden(service, services) { 0 } else { service.port };
    let default = format!("127.0.0.1:{port}");
    env.read(&service.setting("LISTEN"), &default, "Where this service listens. Port 0: any that is free; so it is by default behind a gateway in the same process.")
}

fn is_hidden(service: &Service, services: &[Service]) -> bool {
    service.edge == http::Edge::Internal && services.iter().any(|service| service.edge == http::Edge::Public)
}

fn admin_address(services: &[Service], env: &Env) -> Result<SocketAddr, ConfigError> {
    let public = services.iter().find(|service| service.edge == http::Edge::Public);
    let port = public.or(services.first()).map_or(0, |service| service.port + ADMIN_OFFSET);
    let default = format!("127.0.0.1:{port}");
    env.read("ADMIN_LISTEN", &default, "The private port of the process: `/livez`, `/readyz`, `/metrics`. By default 1000 above the port of its service, of the gateway if it has several.")
}

/// Where `service` is found by the others in its process.
pub(crate) fn derive_urls(service: &Service, env: &Env, address: SocketAddr) {
    let why = format!("{} in this process", service.name);
    env.derive(&service.setting("URL"), format!("http://{address}"), &why);
    if service.edge == http::Edge::Public {
        env.derive("PUBLIC_URL", format!("http://{address}"), why);
    }
}

fn auth_url(env: &Env) -> Result<Origins, ConfigError> {
    env.read(
        "AUTH_URL",
        "http://127.0.0.1:8081",
        "The instances of the auth service, which tells every process what verifies tokens. In the same process: its own address.",
    )
}

/// Reads everything that `services` read, without starting anything.
pub(crate) fn read_all(services: &[Service], env: &Env) -> Result<(Core, Vec<Start>), ConfigError> {
    let core = Core::from_env(env)?;
    admin_address(services, env)?;
    auth_url(env)?;
    let mut starts = Vec::new();
    for service in services {
        listen_address(service, env, services)?;
        if service.migrations.is_some() {
            own_database_url(service, env)?;
        }
        starts.push((service.load)(env, &core)?);
    }
    Ok((core, starts))
}

/// Brings the tables of `services`, and those of the in-process transport where it is used, up to date.
pub(crate) async fn migrate(services: &[Service], env: &Env, core: &Core, databases: &Databases) -> anyhow::Result<()> {
    for service in services {
        if let Some(migrations) = service.migrations {
            let sources = vec![outbox::MIGRATIONS, migrations()];
            db::migrate(&databases.of(service, env)?, service.name, sources).await?;
        }
    }
    if let (None, Some(url)) = (&core.amqp_url, &databases.shared) {
        db::migrate(url, BROKER_SCHEMA, vec![outbox::BROKER_MIGRATIONS]).await?;
    }
    Ok(())
}

/// What carries events: RabbitMQ if `AMQP_URL` is set, else tables in the shared database. `None` if `services` have
/// no events. Fails when they have, and neither is there.
pub(crate) fn transport(
    process: &str,
    services: &[Service],
    core: &Core,
    databases: &Databases,
) -> anyhow::Result<Option<Transport>> {
    let has_tables = services.iter().any(|service| service.migrations.is_some());
    if let Some(url) = &core.amqp_url {
        let options = AmqpOptions {
            url: url.clone(),
            namespace: core.amqp_namespace.clone(),
            process: process.to_owned(),
            subscriptions: events::SUBSCRIPTIONS,
        };
        return Ok(Some(Transport::Amqp(Amqp::new(options).context("AMQP_URL")?)));
    }
    let Some(url) = &databases.shared else {
        ensure!(!has_tables, "AMQP_URL or DATABASE_URL: one of them must carry the events between services");
        return Ok(None);
    };
    let pool = db::pool(url, BROKER_SCHEMA, BROKER_POOL)?;
    Ok(Some(Transport::Local(Local::new(pool, events::SUBSCRIPTIONS))))
}

/// Starts `services` in this process. `process` names it where it connects to.
///
/// Returns when they serve and have answered that they are ready, or after ten seconds without: then readiness says
/// what is missing, and they go on trying.
pub async fn start(process: &str, services: &[Service], env: &Env, clock: SharedClock) -> anyhow::Result<Running> {
    let metrics = telemetry::metrics()?;

    let mut announcements = Vec::new();
    let mut listeners = Vec::new();
    for service in services {
        let listener = bind(&service.setting("LISTEN"), listen_address(service, env, services)?)?;
        let address = listener.local_addr()?;
        if !is_hidden(service, services) {
            announcements.push((service.name, format!("http://{address}")));
        }
        derive_urls(service, env, address);
        listeners.push(listener);
    }
    let admin_listener = bind("ADMIN_LISTEN", admin_address(services, env)?)?;
    let (core, starts) = read_all(services, env)?;

    let databases = Databases::open(services, env, &core).await?;
    migrate(services, env, &core, &databases).await?;
    let transport = transport(process, services, &core, &databases)?;

    let tasks = Tasks::default();
    let health = Health::default();
    health.starting();
    let verifier = Verifier::new(&core.issuer, clock.clone());
    let (away, is_away) = watch::channel(None);
    tasks.spawn(trust::follow(verifier.clone(), auth_url(env)?, reqwest::Client::new(), away, tasks.shutdown()));
    watch_trust(&health, &verifier, is_away);
    tasks.spawn(telemetry::keep_up(metrics.clone(), tasks.shutdown()));
    watch_tasks(&health, &tasks);
    let backplane = backplane(&core)?;
    watch_backplane(&health, &backplane);

    let mut servers = Vec::new();
    let mut last = Vec::new();
    for ((service, start), listener) in services.iter().zip(starts).zip(listeners) {
        let pool = match service.migrations {
            Some(_) => Some(db::pool(&databases.of(service, env)?, service.name, core.pool_size.get())?),
            None => None,
        };
        let stopping = CancellationToken::new();
        let context = Context {
            clock: clock.clone(),
            verifier: verifier.clone(),
            tasks: tasks.clone(),
            health: health.clone(),
            backplane: backplane.clone(),
            stopping: stopping.clone(),
            pool: pool.clone(),
        };
        let app = start(context).await.with_context(|| format!("{} did not start", service.name))?;
        if let (Some(pool), Some(transport)) = (pool, &transport) {
            watch_database(&health, service.name, &pool);
            let relay = Relay::new(pool.clone(), transport.clone());
            watch_relay(&health, service.name, relay.health());
            tasks.spawn(relay.run(tasks.shutdown()));
            for (queue, consume) in app.consumers {
                watch_consumer(&health, queue, consume(pool.clone(), transport.clone(), &tasks));
            }
        }
        // Below its own address, where people look first.
        let place = if service.edge == http::Edge::Public { announcements.len().min(1) } else { announcements.len() };
        announcements.splice(place..place, app.announcements);
        last.extend(app.when_serving);
        let options = http::Options { service: service.name, workers: core.workers.get(), drain: core.drain };
        let server = match app.front {
            Front::Own(make) => make(listener, options)?,
            Front::Routes(routes) => {
                let takes_requests = match is_hidden(service, services) {
                    // The gateway of this process answers for all of it, and must not find its services closed when it opens.
                    true => |health: &Health| !health.is_stopping(),
                    false => Health::takes_requests,
                };
                let routes = with_common_routes(routes, docs::openapi_of(service)?, health.clone(), takes_requests);
                http::server(listener, options, verifier.clone(), routes)?
            }
        };
        servers.push((server.handle(), stopping));
        tasks.spawn(serve(service.name, server));
    }
    let admin = admin_listener.local_addr()?;
    let server = admin::server(admin_listener, health.clone(), metrics)?;
    let admin_handle = server.handle();
    tasks.spawn(serve("admin", server));
    // The private port is the last to close: it tells that the process is stopping.
    servers.insert(0, (admin_handle, CancellationToken::new()));

    let mut running = Running {
        servers,
        admin,
        announcements,
        tasks,
        health,
        postgres: databases.postgres,
        notice: core.notice,
        drain: core.drain,
    };
    running.wait_until_ready().await;
    running.health.started();
    for last in last {
        running.announcements.extend(last.await?);
    }
    Ok(running)
}

fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("{setting}: {address} is not free; set another"))
}

/// `routes`, and what every service has.
fn with_common_routes(
    routes: http::Routes,
    openapi: serde_json::Value,
    health: Health,
    takes_requests: fn(&Health) -> bool,
) -> http::Routes {
    std::sync::Arc::new(move |config| {
        let (document, health) = (openapi.clone(), health.clone());
        routes(config);
        config
            .route("/openapi.json", web::get().to(move || std::future::ready(HttpResponse::Ok().json(&document))))
            .route("/healthz", web::get().to(move || std::future::ready(healthz(&health, takes_requests(&health)))));
    })
}

/// For whoever spreads requests over instances: 200 while they should come here, 503 until the process has what it needs to
/// answer them and from when it is to stop; with the name of the instance in `X-Amphi-Instance`.
#[must_use]
pub fn healthz(health: &Health, takes_requests: bool) -> HttpResponse {
    let (mut answer, status) = match takes_requests {
        true => (HttpResponse::Ok(), "ready"),
        false => (HttpResponse::ServiceUnavailable(), "starting or stopping"),
    };
    answer
        .insert_header(("x-amphi-instance", format!("{:016x}", health.instance())))
        .json(serde_json::json!({ "status": status }))
}

async fn serve(name: &'static str, server: actix_web::dev::Server) {
    if let Err(error) = server.await {
        tracing::error!(name, %error, "a server ended");
    }
}

fn backplane(core: &Core) -> anyhow::Result<Backplane> {
    match &core.redis_url {
        Some(url) => Backplane::redis(url.expose(), &core.redis_prefix).context("REDIS_URL"),
        None => Ok(Backplane::in_process()),
    }
}

fn watch_trust(health: &Health, verifier: &Verifier, is_away: trust::Away) {
    let verifier = verifier.clone();
    health.check("keys", Importance::Required, move || {
        let has_keys = verifier.has_keys();
        Box::pin(async move {
            if has_keys { Ok(()) } else { Err("the keys that verify tokens are not loaded from auth yet".to_owned()) }
        })
    });
    health.check("trust", Importance::Helpful, move || Box::pin(std::future::ready(trust::probe(&is_away))));
}

fn watch_tasks(health: &Health, tasks: &Tasks) {
    let tasks = tasks.clone();
    health.check("tasks", Importance::Required, move || Box::pin(std::future::ready(tasks.probe())));
}

fn watch_backplane(health: &Health, backplane: &Backplane) {
    if backplane.is_remote() {
        let backplane = backplane.clone();
        health.check("redis", Importance::Helpful, move || {
            let backplane = backplane.clone();
            Box::pin(async move { backplane.probe().await.map_err(|error| common::problem::chain(&error)) })
        });
    }
}

fn watch_database(health: &Health, service: &str, pool: &db::Pool) {
    let pool = pool.clone();
    health.check(format!("{service}.postgresql"), Importance::Required, move || Box::pin(db::probe(pool.clone())));
}

fn watch_relay(health: &Health, service: &str, relay: watch::Receiver<outbox::RelayHealth>) {
    health.check(format!("{service}.events.out"), Importance::Helpful, move || {
        let health = relay.borrow().clone();
        Box::pin(async move {
            match health.problem {
                None => Ok(()),
                Some(problem) => Err(format!("{} events wait: {problem}", health.waiting)),
            }
        })
    });
}

fn watch_consumer(health: &Health, queue: &'static str, consumer: watch::Receiver<outbox::ConsumerHealth>) {
    health.check(format!("{queue}.events.in"), Importance::Helpful, move || {
        let problem = consumer.borrow().problem.clone();
        Box::pin(async move { problem.map_or(Ok(()), Err) })
    });
}

impl Running {
    /// The private port: `/livez`, `/readyz`, `/metrics`.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    async fn wait_until_ready(&self) {
        let deadline = tokio::time::Instant::now() + READY_PATIENCE;
        while !self.health.report().await.is_ready() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What is missing, in words; empty when everything is there.
    pub async fn complaints(&self) -> Vec<String> {
        let checks = self.health.report().await.checks;
        checks.into_iter().filter(|(_, state)| state != "ok").map(|(name, state)| format!("{name}: {state}")).collect()
    }

    /// Stops in order: no longer ready, load balancers notice (`SHUTDOWN_NOTICE`), requests in hand finish, tasks end, and last the embedded database.
    ///
    /// Requests and tasks that take longer than `SHUTDOWN_DEADLINE` are left behind; PostgreSQL has its own time.
    pub async fn stop(self) {
        self.health.stopping();
        tokio::time::sleep(self.notice).await;
        let deadline = tokio::time::Instant::now() + self.drain;
        // Last started, first stopped: the gateway, if it is here, lets go of the others before they close.
        for (server, stopping) in self.servers.iter().rev() {
            stopping.cancel();
            if tokio::time::timeout_at(deadline, server.stop(true)).await.is_err() {
                tracing::warn!("requests were still running at the deadline");
                server.stop(false).await;
            }
        }
        let left = deadline.saturating_duration_since(tokio::time::Instant::now()).max(Duration::from_secs(1));
        if !self.tasks.stop(left).await {
            tracing::warn!("tasks were still running at the deadline");
        }
        if let Some(postgres) = self.postgres {
            postgres.stop().await;
        }
    }
}
