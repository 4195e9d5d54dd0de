//! Configuration: read once, from the environment, through a reader that a test can replace.
//!
//! Reading a setting also describes it, so `amphi config` and the README's table come from the code that reads.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::Secret;

use crate::secrets;

/// Why a process does not start: which variable, and what it should have been.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{name}: expected {expected}, got `{got}`")]
    Unexpected { name: String, expected: &'static str, got: String },
    #[error("{name}: expected {expected}, got something else (not shown, as it is a secret)")]
    UnexpectedSecret { name: String, expected: &'static str },
    #[error("{name}: expected {expected}, but it is not set")]
    Missing { name: String, expected: &'static str },
    #[error("{name}_FILE: {path} cannot be read: {why}")]
    File { name: String, path: String, why: String },
    #[error("{name}: in production a secret of its own is needed: {why}")]
    WeakSecret { name: String, why: &'static str },
    #[error("{name}: no secret could be kept in {path}: {why}")]
    SecretNotKept { name: String, path: String, why: String },
}

/// A type that a setting can have.
pub trait Value: Sized {
    /// What the person who sets it should write: `expected {EXPECTS}`.
    const EXPECTS: &'static str;
    /// Whether its value is never shown.
    const IS_SECRET: bool = false;

    fn parse(text: &str) -> Option<Self>;
}

/// Whether this is somebody's desk or the real thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Development,
    Production,
}

/// The address of another server: `http://host:port`, without a path. Never carries credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// `http://host:port`, without a slash at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Several of them, separated by commas: the instances of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins(Vec<Origin>);

impl Origins {
    /// At least one.
    pub fn iter(&self) -> std::slice::Iter<'_, Origin> {
        self.0.iter()
    }
}

macro_rules! values {
    ($($type:ty, $expects:literal, $parse:expr;)*) => {$(
        impl Value for $type {
            const EXPECTS: &'static str = $expects;

            fn parse(text: &str) -> Option<Self> {
                let parse: fn(&str) -> Option<Self> = $parse;
                parse(text)
            }
        }
    )*};
}

values! {
    String, "text", |text| Some(text.to_owned());
    PathBuf, "a path", |text| Some(text.into());
    SocketAddr, "an address and port such as 127.0.0.1:8080", parsed;
    u16, "a whole number up to 65535", parsed;
    u32, "a whole number", parsed;
    NonZeroUsize, "a whole number above 0", parsed;
    bool, "true or false", parsed;
    Duration, "a time such as 500ms, 20s, 15m, 12h or 7d, at most ten years", parse_duration;
    Stage, "development or production", |text| match text {
        "development" => Some(Stage::Development),
        "production" => Some(Stage::Production),
        _ => None,
    };
    Origin, "an address such as http://127.0.0.1:8081, without a path", parse_origin;
    Origins, "addresses such as http://127.0.0.1:8081, without a path, separated by commas", |text| {
        text.split(',').map(|origin| parse_origin(origin.trim())).collect::<Option<_>>().map(Origins)
    };
}

/// So many of something in so long a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub limit: u32,
    pub per: Duration,
}

impl Value for Rate {
    const EXPECTS: &'static str = "a rate such as 600/10s or 20/1m, of at least 1, in at most an hour";

    fn parse(text: &str) -> Option<Self> {
        let (limit, per) = text.split_once('/')?;
        let (limit, per) = (limit.trim().parse().ok()?, Duration::parse(per.trim())?);
        let is_sane = limit > 0 && (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&per);
        is_sane.then_some(Self { limit, per })
    }
}

impl Value for Secret {
    const EXPECTS: &'static str = "a secret";
    const IS_SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        Some(Self::new(text))
    }
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// No time that is set is longer, so that sums with the date never overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs).filter(|time| *time <= LONGEST)
}

fn parse_origin(text: &str) -> Option<Origin> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (scheme, authority) = text.split_once("://")?;
    let is_origin =
        matches!(scheme, "http" | "https") && !authority.is_empty() && !authority.contains(['/', '?', '#', '@', ' ']);
    is_origin.then(|| Origin(text.to_owned()))
}

/// Where the value of a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Environment,
    File(String),
    /// Known from something else: the address of a service in the same process, say.
    Derived(String),
    Default,
    Unset,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Derived(why) => f.write_str(why),
            Self::Default => f.write_str("default"),
            Self::Unset => f.write_str("not set"),
        }
    }
}

/// A setting that was read: what it means, and what it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub name: String,
    pub meaning: &'static str,
    pub expects: &'static str,
    pub default: String,
    /// As it may be shown: a secret is only said to be set.
    pub value: String,
    pub source: Source,
}

/// Where a variable's value is looked up.
type Lookup = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Reads settings, and remembers what was read.
pub struct Env {
    lookup: Lookup,
    derived: Mutex<HashMap<String, (String, String)>>,
    described: Mutex<Vec<Described>>,
    describes_only: bool,
}

impl Env {
    /// The environment of this process. The only place that reads it.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the reader that everyone else uses")]
    pub fn process() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }

    /// What a test says.
    pub fn of<K: Into<String>, V: Into<String>>(settings: impl IntoIterator<Item = (K, V)>) -> Self {
        let settings: HashMap<String, String> =
            settings.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self::new(move |name| settings.get(name).cloned())
    }

    fn new(lookup: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { lookup: Box::new(lookup), derived: Mutex::default(), described: Mutex::default(), describes_only: false }
    }

    /// For looking at settings without starting anything: no secret is made.
    #[must_use]
    pub fn describing(self) -> Self {
        Self { describes_only: true, ..self }
    }

    /// A setting that has a default.
    pub fn read<T: Value>(&self, name: &str, default: &str, meaning: &'static str) -> Result<T, ConfigError> {
        let found = self.find(name)?;
        let (text, source) = found.unwrap_or_else(|| (default.to_owned(), Source::Default));
        self.describe::<T>(name, meaning, default, Some(&text), source);
        parse(name, &text)
    }

    /// A setting that may be absent; `otherwise` says what happens then.
    pub fn optional<T: Value>(
        &self,
        name: &str,
        otherwise: &str,
        meaning: &'static str,
    ) -> Result<Option<T>, ConfigError> {
        let found = self.find(name)?;
        let source = found.as_ref().map_or(Source::Unset, |(_, source)| source.clone());
        self.describe::<T>(name, meaning, otherwise, found.as_ref().map(|(text, _)| text.as_str()), source);
        found.map(|(text, _)| parse(name, &text)).transpose()
    }

    /// A secret of this installation. In development one is made at first start and kept under `keep` (mode 0600);
    /// production must set it, to something that nobody could guess.
    pub fn secret(&self, name: &str, stage: Stage, keep: &Path, meaning: &'static str) -> Result<Secret, ConfigError> {
        let given: Option<Secret> =
            self.optional(name, "development: made at first start; production: required", meaning)?;
        if self.describes_only {
            return Ok(given.unwrap_or_else(|| Secret::new("")));
        }
        match (given, stage) {
            (Some(secret), Stage::Development) => Ok(secret),
            (Some(secret), Stage::Production) => match secrets::weakness(&secret) {
                Some(why) => Err(ConfigError::WeakSecret { name: name.to_owned(), why }),
                None => Ok(secret),
            },
            (None, Stage::Production) => Err(ConfigError::Missing { name: name.to_owned(), expected: Secret::EXPECTS }),
            (None, Stage::Development) => {
                let path = keep.join(name.to_ascii_lowercase().replace('_', "-"));
                secrets::load_or_make(&path).map_err(|error| ConfigError::SecretNotKept {
                    name: name.to_owned(),
                    path: path.display().to_string(),
                    why: error.to_string(),
                })
            }
        }
    }

    /// Gives a setting the value that follows from something else, unless it is set.
    pub fn derive(&self, name: &str, value: impl Into<String>, why: impl Into<String>) {
        lock(&self.derived).insert(name.to_owned(), (value.into(), why.into()));
    }

    /// Every setting read so far, once each, in the order of first reading.
    #[must_use]
    pub fn described(&self) -> Vec<Described> {
        lock(&self.described).clone()
    }

    fn find(&self, name: &str) -> Result<Option<(String, Source)>, ConfigError> {
        // An empty variable counts as unset: compose files and shells make them by accident.
        let set = |name: &str| (self.lookup)(name).filter(|text| !text.is_empty());
        if let Some(text) = set(name) {
            return Ok(Some((text, Source::Environment)));
        }
        if let Some(path) = set(&format!("{name}_FILE")) {
            let text = std::fs::read_to_string(&path).map_err(|error| ConfigError::File {
                name: name.to_owned(),
                path: path.clone(),
                why: error.to_string(),
            })?;
            let text = text.trim_end().to_owned();
            if text.is_empty() {
                return Err(ConfigError::File { name: name.to_owned(), path, why: "it is empty".to_owned() });
            }
            return Ok(Some((text, Source::File(path))));
        }
        let derived = lock(&self.derived).get(name).cloned();
        Ok(derived.map(|(text, why)| (text, Source::Derived(why))))
    }

    fn describe<T: Value>(
        &self,
        name: &str,
        meaning: &'static str,
        default: &str,
        value: Option<&str>,
        source: Source,
    ) {
        let mut described = lock(&self.described);
        if described.iter().any(|setting| setting.name == name) {
            return;
        }
        let value = match value {
            None => String::new(),
            Some(_) if T::IS_SECRET => "(set)".to_owned(),
            Some(text) => text.to_owned(),
        };
        described.push(Described {
            name: name.to_owned(),
            meaning,
            expects: T::EXPECTS,
            default: default.to_owned(),
            value,
            source,
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse<T: Value>(name: &str, text: &str) -> Result<T, ConfigError> {
    T::parse(text).ok_or_else(|| {
        let (name, expected) = (name.to_owned(), T::EXPECTS);
        if T::IS_SECRET {
            ConfigError::UnexpectedSecret { name, expected }
        } else {
            ConfigError::Unexpected { name, expected, got: text.to_owned() }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_value_is_refused_with_its_name_and_what_was_expected() {
        let env = Env::of([("CHAT_PING", "often")]);
        let error = env.read::<Duration>("CHAT_PING", "15s", "Time between pings.").unwrap_err();
        assert_eq!(
            error.to_string(),
            "CHAT_PING: expected a time such as 500ms, 20s, 15m, 12h or 7d, at most ten years, got `often`"
        );
    }

    #[test]
    fn a_setting_knows_where_its_value_came_from() {
        let env = Env::of([("SET", "9")]);
        env.derive("KNOWN", "7", "from elsewhere");
        for name in ["SET", "KNOWN", "LEFT"] {
            env.read::<u16>(name, "1", "A number.").unwrap();
        }
        let seen: Vec<_> = env.described().into_iter().map(|it| (it.value, it.source.to_string())).collect();
        let expected = [("9", "environment"), ("7", "from elsewhere"), ("1", "default")];
        assert_eq!(seen, expected.map(|(value, source)| (value.to_owned(), source.to_owned())));
    }

    #[test]
    fn a_secret_can_come_from_a_file_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "hunter2\n").unwrap();
        let env = Env::of([("KEY_FILE", path.display().to_string())]);

        let secret: Option<Secret> = env.optional("KEY", "none", "A key.").unwrap();

        assert_eq!(secret.unwrap().expose(), "hunter2");
        assert!(!format!("{:?}", env.described()).contains("hunter2"));
    }

    #[test]
    fn production_refuses_a_secret_that_is_missing_or_could_be_guessed() {
        let folder = tempfile::tempdir().unwrap();
        let read = |env: Env| env.secret("KEY", Stage::Production, folder.path(), "A key.").map(|_| ());

        assert!(matches!(read(Env::of([("OTHER", "")])), Err(ConfigError::Missing { .. })));
        assert!(matches!(read(Env::of([("KEY", "changeme")])), Err(ConfigError::WeakSecret { .. })));
        assert_eq!(read(Env::of([("KEY", "5b1c0f39a7de42d8b6f1c2a9")])), Ok(()));
    }

    #[test]
    fn development_makes_a_secret_once_and_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let read = || Env::of([("OTHER", "")]).secret("KEY", Stage::Development, folder.path(), "A key.").unwrap();
        assert_eq!(read(), read());
    }

    #[test]
    fn times_are_read_in_their_units() {
        let times = ["500ms", "20s", "15m", "12h", "7d"].map(|text| parse_duration(text).unwrap().as_millis());
        assert_eq!(times, [500, 20_000, 900_000, 43_200_000, 604_800_000]);
        for wrong in ["", "3651d", "20", "s", "-1s", "1.5s", "99999999999999999999d"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_read_as_it_is_written() {
        assert_eq!(Rate::parse("600/10s"), Some(Rate { limit: 600, per: Duration::from_secs(10) }));
        for wrong in ["", "600", "0/10s", "600/10ms", "600/2h", "-1/1s", "600/s"] {
            assert_eq!(Rate::parse(wrong), None, "{wrong}");
        }
    }
}
