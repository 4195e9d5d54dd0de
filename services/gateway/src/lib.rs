//! The gateway: the one door that clients know.
//!
//! - [`table`]: every public path, who answers there and who may ask. [`router`] finds a path in it.
//! - [`path`], [`headers`]: what of a request is refused, and what of it reaches a service.
//! - [`forward`]: the way of a request, from the route to the answer. [`unread`]: what becomes of a body that the answer
//!   did not wait for.
//! - [`upstream`]: the other half: pooled connections to the services, everything streamed.
//! - [`docs`]: the API of all services as one document, with a page to read it.
//! - [`config`], [`problems`], [`worker`]: settings, errors, and what each worker thread has for itself.
//!
//! It holds no business rule and opens no database.

pub mod config;
pub mod docs;
pub mod forward;
pub mod headers;
pub mod path;
pub mod problems;
pub mod router;
pub mod table;
pub mod unread;
pub mod upstream;
pub mod worker;

use std::rc::Rc;
use std::sync::Arc;

use actix_web::web;
use chassis::http::Edge;
use chassis::{App, ConfigError, Context, Core, Env, Service, Start};
use common::Verifier;
use utoipa::OpenApi;

use config::{Config, Fleets};
use router::Router;
use upstream::SystemResolver;
use worker::Worker;

/// The gateway, for whoever runs it.
pub const SERVICE: Service = Service {
    name: "gateway",
    about: "The one door: routes, verifies tokens, forwards.",
    port: 8080,
    edge: Edge::Public,
    migrations: None,
    problems: problems::ALL,
    openapi: Api::openapi,
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
    let fleets = config.fleets(Arc::new(SystemResolver));
    for fleet in &fleets {
        context.tasks.spawn(Arc::clone(fleet).keep_watch(context.tasks.shutdown()));
    }
    Ok(App::new(routes(config, fleets, context.verifier.clone())?))
}

/// The routes of a gateway with `config`, which passes requests on to `fleets` and verifies tokens with `verifier`.
///
/// Fails if the table contradicts itself.
pub fn routes(
    config: Config,
    fleets: Fleets,
    verifier: Verifier,
) -> Result<impl Fn(&mut web::ServiceConfig) + Send + Sync + 'static, router::TableError> {
    let router = Arc::new(Router::new(table::ROUTES)?);
    Ok(move |service: &mut web::ServiceConfig| {
        let worker = Worker::new(&config, &fleets, Arc::clone(&router), verifier.clone());
        service.app_data(Rc::new(worker)).configure(docs::routes).default_service(web::to(forward::forward));
    })
}
