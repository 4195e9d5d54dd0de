//! Everything auth reads from its environment, once, before it listens.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use chassis::env::{Origin, Value};
use chassis::{ConfigError, Core, Env, Stage};
use common::Secret;
use lettre::message::Mailbox;
use serde::Serialize;
use url::{Host, Url};
use utoipa::ToSchema;

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
    /// `REGISTRATION`: who may make an account.
    pub registration: Registration,
    /// How mails are sent.
    pub mail: MailConfig,
    /// Where the links in mails lead.
    pub public_url: Origin,
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
            registration: env.read(
                "REGISTRATION",
                "open",
                "Who may register: everybody (`open`), who is invited by an administrator (`invitation`), nobody (`closed`).",
            )?,
            mail: MailConfig::from_env(env, core)?,
            public_url: core.public_url.clone(),
            stage: core.stage,
        })
    }
}

/// Who may make an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Everybody.
    Open,
    /// Who is invited.
    Invitation,
    /// Nobody.
    Closed,
}

impl Value for Registration {
    const EXPECTS: &'static str = "open, invitation or closed";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "open" => Some(Self::Open),
            "invitation" => Some(Self::Invitation),
            "closed" => Some(Self::Closed),
            _ => None,
        }
    }
}

/// How mails are sent.
#[derive(Debug, Clone)]
pub struct MailConfig {
    /// `SMTP_URL`: the server that takes them; without it they are written into `folder`. Never printed.
    pub smtp_url: Option<SmtpUrl>,
    /// `MAIL_FROM`: who they are from.
    pub from: Mailbox,
    /// `mail` in `AMPHI_DATA_DIR`.
    pub folder: PathBuf,
}

impl MailConfig {
    fn from_env(env: &Env, core: &Core) -> Result<Self, ConfigError> {
        let smtp_url: Option<SmtpUrl> = env.optional(
            "SMTP_URL",
            "mails are written into `mail` in `AMPHI_DATA_DIR`",
            "The server that sends mails, `smtp://user:password@host:port` or `smtps://…`; the port is 465 for smtps, else 587. \
             Encrypted where credentials are sent, where the server offers it otherwise; on loopback never.",
        )?;
        let from: Option<Sender> = env.optional(
            "MAIL_FROM",
            "`Amphi <no-reply@amphi.example>`; required with `SMTP_URL`",
            "Who mails are from, such as `Amphi <no-reply@example.org>`.",
        )?;
        let from = match (from, &smtp_url) {
            (Some(Sender(from)), _) => from,
            (None, Some(_)) => {
                return Err(ConfigError::Missing { name: "MAIL_FROM".to_owned(), expected: Sender::EXPECTS });
            }
            (None, None) => {
                Mailbox::new(Some("Amphi".to_owned()), lettre::Address::new_dangerous("no-reply", "amphi.example"))
            }
        };
        Ok(Self { smtp_url, from, folder: core.data_dir.join("mail") })
    }
}

/// A mail server, with how its connection is encrypted said in the query, as lettre reads it.
#[derive(Debug, Clone)]
pub struct SmtpUrl(Secret);

impl SmtpUrl {
    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl Value for SmtpUrl {
    const EXPECTS: &'static str = "the address of a mail server such as smtp://user:password@mail.example.org:587 or smtps://…, with nothing after it";
    const IS_SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        let mut url = Url::parse(text).ok()?;
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        // `Url` knows hosts of these schemes as text alone.
        let host = url.host_str().filter(|host| !host.is_empty())?;
        let is_loopback = match Host::parse(host).ok()? {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return None;
        }
        // Both or neither: half of them is a slip of the pen.
        if has_credentials && (url.username().is_empty() || url.password().is_none()) {
            return None;
        }
        match (url.scheme(), is_loopback, has_credentials) {
            ("smtps", ..) => {}
            ("smtp", true, _) => {
                let port = url.port().unwrap_or(SUBMISSION_PORT);
                url.set_port(Some(port)).ok()?;
            }
            ("smtp", false, true) => url.set_query(Some("tls=required")),
            ("smtp", false, false) => url.set_query(Some("tls=opportunistic")),
            _ => return None,
        }
        Some(Self(Secret::new(url)))
    }
}

/// Where a mail server takes mails of its own users (RFC 6409).
const SUBMISSION_PORT: u16 = 587;

/// Who mails are from.
struct Sender(Mailbox);

impl Value for Sender {
    const EXPECTS: &'static str = "an e-mail address, with a name or without, such as `Amphi <no-reply@example.org>`";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smtp(text: &str) -> Option<String> {
        SmtpUrl::parse(text).map(|url| url.expose().to_owned())
    }

    #[test]
    fn credentials_are_sent_encrypted_except_on_loopback() {
        for (given, read) in [
            ("smtp://a:b@mail.example.org", "smtp://a:b@mail.example.org?tls=required"),
            ("smtp://a:b@mail.example.org:2525/", "smtp://a:b@mail.example.org:2525/?tls=required"),
            ("smtp://mail.example.org:25", "smtp://mail.example.org:25?tls=opportunistic"),
            ("smtps://a:b@mail.example.org", "smtps://a:b@mail.example.org"),
            ("smtp://a:b@127.0.0.1:1025", "smtp://a:b@127.0.0.1:1025"),
            ("smtp://[::1]", "smtp://[::1]:587"),
            ("smtp://localhost:25", "smtp://localhost:25"),
        ] {
            assert_eq!(smtp(given).as_deref(), Some(read));
        }
    }

    #[test]
    fn what_is_no_mail_server_is_refused() {
        for wrong in [
            "",
            "mail.example.org",
            "http://mail.example.org",
            "smtp://",
            "smtp://a@mail.example.org",
            "smtp://:b@mail.example.org",
            "smtp://a:b@mail.example.org?tls=none",
            "smtp://mail.example.org/path",
        ] {
            assert_eq!(smtp(wrong), None, "{wrong}");
        }
    }
}
