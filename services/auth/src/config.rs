//! Everything auth reads from its environment, once, before it listens.

use std::num::NonZeroUsize;
use std::time::Duration;

use chassis::{ConfigError, Core, Env, Stage};
use common::Secret;

/// A token lives at most this long: a year.
const LONGEST_HOURS: u32 = 365 * 24;

#[derive(Debug, Clone)]
pub struct Config {
    /// `AMPHI_SECRET`: seals the signing keys in the database. Never printed.
    pub secret: Secret,
    /// `JWT_ISSUER`, as every service reads it.
    pub issuer: String,
    /// `JWT_EXPIRY_HOURS`: how long a token and its cookie live. Default 7 days.
    pub token_lifetime: Duration,
    /// `REFRESH_TOKEN_LIFETIME`: how long a refresh token is good. Default 30 days.
    pub refresh_lifetime: Duration,
    /// `PASSWORD_WORKERS`: threads that hash passwords. Each takes 19 MiB, and a core for some 20 ms a password.
    pub password_workers: Option<NonZeroUsize>,
    /// `AMPHI_ADMIN_EMAIL`: the first administrator.
    pub admin_email: String,
    /// `AMPHI_ADMIN_PASSWORD`: generated and shown once if it is not set; production must set it.
    pub admin_password: Option<Secret>,
    /// Production sends cookies over HTTPS only, and generates no password, as what it prints is kept.
    pub stage: Stage,
}

impl Config {
    pub fn from_env(env: &Env, core: &Core) -> Result<Self, ConfigError> {
        let hours: u32 =
            env.read("JWT_EXPIRY_HOURS", "168", "How long a token and its cookie live, in hours: from 1 to 8760.")?;
        if !(1..=LONGEST_HOURS).contains(&hours) {
            return Err(ConfigError::Unexpected {
                name: "JWT_EXPIRY_HOURS".to_owned(),
                expected: "a number of hours from 1 to 8760",
                got: hours.to_string(),
            });
        }
        Ok(Self {
            secret: env.secret(
                "AMPHI_SECRET",
                core.stage,
                &core.data_dir,
                "Seals the keys that sign tokens. The same for all instances of auth; at least 16 characters.",
            )?,
            issuer: core.issuer.clone(),
            token_lifetime: Duration::from_secs(u64::from(hours) * 60 * 60),
            refresh_lifetime: env.read(
                "REFRESH_TOKEN_LIFETIME",
                "30d",
                "How long a refresh token is good. Each use gives a new one.",
            )?,
            password_workers: env.optional(
                "PASSWORD_WORKERS",
                "half of the processors, at least 1",
                "Threads that hash passwords, at low priority; each takes 19 MiB, and a core for some 20 ms a password.",
            )?,
            admin_email: env.read(
                "AMPHI_ADMIN_EMAIL",
                "admin@amphi.example",
                "The first administrator, made when there is none.",
            )?,
            admin_password: env.optional(
                "AMPHI_ADMIN_PASSWORD",
                "development: generated, and shown once; production: required",
                "The password of the first administrator.",
            )?,
            stage: core.stage,
        })
    }
}
