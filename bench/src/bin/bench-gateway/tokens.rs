//! Tokens that requests are sent with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bench::servers::Server;
use serde_json::{Value, json};

/// The administrator that amphi-auth is started with.
const EMAIL: &str = "bench@example.org";
const PASSWORD: &str = "correct horse battery";

/// A file of tokens, one a line, each of another user.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    pub(crate) file: PathBuf,
}

impl Tokens {
    /// All that the stub has minted.
    pub(crate) fn all(folder: &Path) -> Self {
        Self { file: folder.join("tokens") }
    }

    /// The first of `all`.
    pub(crate) fn one(all: &Self, folder: &Path) -> anyhow::Result<Self> {
        Self::write(folder.join("tokens-one"), &all.first()?)
    }

    /// One that amphi-auth itself has minted: it looks its session up.
    pub(crate) async fn of_auth(auth: &Server, folder: &Path) -> anyhow::Result<Self> {
        let url = format!("http://{}/api/v1/auth/login", auth.address);
        let body = json!({"email": EMAIL, "password": PASSWORD});
        let answer: Value = testkit::client().post(url).json(&body).send().await?.json().await?;
        let token = answer["token"].as_str().with_context(|| format!("no token from amphi-auth: {answer}"))?;
        Self::write(folder.join("tokens-auth"), token)
    }

    fn write(file: PathBuf, token: &str) -> anyhow::Result<Self> {
        fs::write(&file, format!("{token}\n"))?;
        Ok(Self { file })
    }

    pub(crate) fn first(&self) -> anyhow::Result<String> {
        self.read()?.into_iter().next().context("there is no token")
    }

    pub(crate) fn read(&self) -> anyhow::Result<Vec<String>> {
        Ok(fs::read_to_string(&self.file)?.lines().map(str::to_owned).collect())
    }
}
