//! The PostgreSQL, RabbitMQ and Redis that tests share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Where they are. Each may be somebody else's too: take a database, a namespace or a prefix of your own.
#[derive(Debug, Clone)]
pub struct Services {
    /// `TEST_DATABASE_URL`: a superuser's, on a database that nobody writes to.
    pub database_url: String,
    /// `TEST_AMQP_URL`.
    pub amqp_url: String,
    /// `TEST_REDIS_URL`.
    pub redis_url: String,
}

/// The services that `make up` started, or those that the environment names.
///
/// Panics when there are none, saying what to do.
pub fn services() -> &'static Services {
    static SERVICES: OnceLock<Services> = OnceLock::new();
    SERVICES.get_or_init(|| {
        let file = std::fs::read_to_string(workspace().join(".amphi/services/env")).unwrap_or_default();
        let file: HashMap<&str, &str> = file.lines().filter_map(|line| line.split_once('=')).collect();
        let find = |name: &str| {
            from_environment(name)
                .or_else(|| file.get(name).map(|value| (*value).to_owned()))
                .unwrap_or_else(|| panic!("{name} is not known: run `make up` first, or `make test`"))
        };
        Services {
            database_url: find("TEST_DATABASE_URL"),
            amqp_url: find("TEST_AMQP_URL"),
            redis_url: find("TEST_REDIS_URL"),
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "tests have no configuration but this")]
fn from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The folder that the workspace is in.
#[must_use]
pub fn workspace() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).canonicalize().expect("the workspace is there")
}
