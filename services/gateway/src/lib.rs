//! The gateway: the one door that clients know.
//!
//! - [`table`]: every public path, who answers there and who may ask. [`router`] finds a path in it.
//! - [`server`]: HTTP/1.1, read strictly ([`strict`]), and with [`tls`] HTTP/2. [`front`]: the way of a request, from the route to the answer.
//! - [`admit`]: what is checked on the way, with [`path`], [`client`] (who is at the other end), [`origin`] (whose page asks)
//!   and [`rate`] (how often). [`headers`]: what of a request reaches a service.
//! - [`upstream`]: the other half: pooled connections to the services, everything streamed.
//! - [`tunnel`]: WebSockets. [`answer`], [`unread`]: bodies of answers, and of requests that were not waited for.
//! - [`pages`]: what the gateway serves itself, with [`docs`]: the API of all services as one document.
//! - [`config`], [`problems`], [`metrics`], [`worker`]: settings, errors, measurements, and what threads share.
//!
//! It holds no business rule and opens no database.

pub mod admit;
pub mod answer;
pub mod client;
pub mod config;
pub mod docs;
pub mod front;
pub mod headers;
pub mod metrics;
pub mod origin;
pub mod pages;
pub mod path;
pub mod problems;
pub mod rate;
pub mod router;
pub mod server;
pub mod strict;
pub mod table;
pub mod tls;
pub mod tunnel;
pub mod unread;
pub mod upstream;
pub mod worker;

use std::sync::Arc;

use chassis::access_log::AccessLog;
use chassis::http::Edge;
use chassis::{App, ConfigError, Context, Core, Env, Service, Start};
use utoipa::OpenApi;

use config::Config;
use tls::Certificate;
use upstream::{Resolve, SystemResolver};
use worker::Gateway;

/// The gateway, for whoever runs it.
pub const SERVICE: Service = Service {
    name: "gateway",
    about: "The one door: routes, verifies tokens, forwards.",
    port: 8080,
    edge: Edge::Public,
    migrations: None,
    problems: problems::ALL,
    openapi: Api::openapi,
    asyncapi: None,
    commands: &[],
    load,
};

/// What the gateway answers by itself.
#[derive(OpenApi)]
#[openapi(
    info(title = "Amphi gateway", description = "The one door: routes, verifies tokens, forwards."),
    paths(docs::openapi)
)]
struct Api;

fn load(env: &Env, core: &Core) -> Result<Start, ConfigError> {
    let config = Config::from_env(env, core)?;
    let docs = format!("{}/docs/", core.public_url);
    Ok(Box::new(move |context| Box::pin(async move { Ok(start(config, &context)?.announce(vec![("docs", docs)])) })))
}

fn start(config: Config, context: &Context) -> anyhow::Result<App> {
    let Context { tasks, verifier, health, backplane, clock, .. } = context;
    let fleets = config.fleets(&(Arc::new(SystemResolver) as Arc<dyn Resolve>));
    for fleet in fleets.iter().flatten() {
        tasks.spawn(Arc::clone(fleet).keep_watch(tasks.shutdown()));
    }
    let certificate = config.tls.clone().map(Certificate::load).transpose()?;
    let tls = certificate.as_ref().map(Certificate::server_config).transpose()?;
    if let Some(certificate) = certificate {
        tasks.spawn(certificate.keep_fresh(tasks.shutdown()));
    }
    let log = AccessLog::of_process();
    let gateway = Gateway::new(config, fleets, verifier.clone(), health.clone(), Arc::clone(clock), log)?;
    let gateway = Arc::new(Gateway { stopping: context.stopping.clone(), ..gateway });
    if backplane.is_remote() {
        let limiters = vec![Arc::clone(&gateway.per_address), Arc::clone(&gateway.per_user)];
        tasks.spawn(rate::share(limiters, backplane.clone(), tasks.shutdown()));
    }
    Ok(App::with_server(move |listener, options| server::server(listener, &options, gateway, tls)))
}
