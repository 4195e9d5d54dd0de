//! Who a user is: registration, login, sessions, and the keys that sign tokens.
//!
//! - [`domain`]: what an e-mail address, a name and a password may be.
//! - [`passwords`]: hashing on threads of their own. [`throttle`]: how often somebody may guess.
//! - [`tokens`]: what a client is given. [`keys`]: signing, and rotating the keys.
//! - [`sealing`]: what follows from `AMPHI_SECRET`.
//! - [`trust`]: what this instance knows about tokens, and tells every process.
//! - [`totp`]: codes of authenticator apps, and recovery codes.
//! - [`mail`]: the queue of mails, what they say, and how they leave.
//! - [`routes`]: the HTTP interface. [`client`]: who sends a request. [`store`]: the tables.
//! - [`notices`]: what we do with events of others.
//! - [`admin`]: the first administrator. [`sweep`]: forgets what has expired.

pub mod config;
pub mod domain;
pub mod error;
pub mod routes;

mod admin;
mod client;
mod keys;
mod mail;
mod notices;
mod passwords;
mod sealing;
mod store;
mod sweep;
mod throttle;
mod tokens;
mod totp;
mod trust;

use std::sync::Arc;

use actix_web::web;
use chassis::db::Pool;
use chassis::health::Importance;
use chassis::http::Edge;
use chassis::{ConfigError, Context, Core, Env, Service, Stage, Start};
use common::SharedClock;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;

use crate::config::{Config, MailConfig};
use crate::mail::links::Links;
use crate::mail::post::Post;
use crate::mail::sender;
use crate::passwords::Passwords;
use crate::sealing::Seal;
use crate::throttle::Throttle;
use crate::tokens::RefreshTokens;
use crate::trust::Trust;

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
    asyncapi: None,
    commands: &[keys::ROTATE],
    load,
};

/// What every handler can reach.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) pool: Pool,
    pub(crate) clock: SharedClock,
    pub(crate) passwords: Passwords,
    pub(crate) throttle: Throttle,
    pub(crate) refresh_tokens: RefreshTokens,
    pub(crate) trust: Arc<Trust>,
    /// Seals the secrets of authenticators.
    pub(crate) totp_seal: Seal,
    pub(crate) links: Links,
    pub(crate) post: Post,
    /// Cancelled when feeds must end.
    pub(crate) stopping: CancellationToken,
}

fn load(env: &Env, core: &Core) -> Result<Start, ConfigError> {
    let config = Config::from_env(env, core)?;
    Ok(Box::new(move |context| Box::pin(start(config, context))))
}

async fn start(config: Config, context: Context) -> anyhow::Result<chassis::App> {
    let pool = context.pool()?;
    let passwords = Passwords::new(config.password_workers)?;
    keys::ensure(&pool, &config.secret, context.clock.now()).await?;
    let (secret, verifier, clock) = (config.secret.clone(), context.verifier.clone(), context.clock.clone());
    let trust = Arc::new(Trust::load(&mut *pool.get().await?, secret, verifier, clock).await?);
    context.tasks.spawn(trust::follow(Arc::clone(&trust), pool.clone(), context.tasks.shutdown()));
    watch_trust(&context, &trust);
    let app = Arc::new(App {
        passwords,
        throttle: Throttle::new(context.backplane),
        refresh_tokens: RefreshTokens::new(&config.secret)?,
        trust,
        totp_seal: Seal::new(&config.secret, "authenticators")?,
        links: Links::new(&config.secret)?,
        post: post(&config.mail, config.stage)?,
        stopping: context.stopping,
        config,
        pool,
        clock: context.clock,
    });
    let (told, mail_health) = watch::channel(None);
    context.tasks.spawn(sender::run(Arc::clone(&app), told, context.tasks.shutdown()));
    context.health.check("auth.mail", Importance::Helpful, move || {
        let problem = mail_health.borrow().clone();
        Box::pin(std::future::ready(problem.map_or(Ok(()), Err)))
    });
    context.tasks.spawn(sweep::run(Arc::clone(&app), context.tasks.shutdown()));
    let notices = notices::Notices { clock: app.clock.clone() };
    let data = web::Data::from(Arc::clone(&app));
    Ok(chassis::App::new(move |service| {
        service.app_data(data.clone());
        routes::configure(service);
    })
    .consume("auth.notices", notices)
    .when_serving(async move { admin::ensure(&app).await }))
}

fn watch_trust(context: &Context, trust: &Arc<Trust>) {
    let trust = Arc::clone(trust);
    // What is known stays right while nothing can change.
    context.health.check("auth.trust", Importance::Helpful, move || Box::pin(std::future::ready(trust.probe())));
}

/// How mails leave, as it is configured.
fn post(config: &MailConfig, stage: Stage) -> anyhow::Result<Post> {
    match &config.smtp_url {
        Some(url) => Post::smtp(url.expose()),
        None => {
            if stage == Stage::Production {
                tracing::warn!(folder = %config.folder.display(), "SMTP_URL is not set: mails are written into a folder, nobody gets them");
            }
            Ok(Post::Folder(config.folder.clone()))
        }
    }
}
