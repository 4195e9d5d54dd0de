//! TLS of the gateway's own: certificate and key from files, read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use chassis::{ConfigError, Env};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at: certificates are renewed long before they expire.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Where certificate and key are: PEM, the certificate with its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    cert: PathBuf,
    key: PathBuf,
}

impl TlsFiles {
    /// `GATEWAY_TLS_CERT` and `GATEWAY_TLS_KEY`: both or neither.
    pub(crate) fn from_env(env: &Env) -> Result<Option<Self>, ConfigError> {
        let otherwise = "plain HTTP, for a proxy in front that speaks TLS";
        let cert: Option<PathBuf> = env.optional(
            "GATEWAY_TLS_CERT",
            otherwise,
            "The certificate and its chain (PEM): then the gateway speaks TLS, with HTTP/2.",
        )?;
        let key: Option<PathBuf> =
            env.optional("GATEWAY_TLS_KEY", otherwise, "The certificate's private key (PEM).")?;
        let missing =
            |name: &str| ConfigError::Missing { name: name.to_owned(), expected: "a path, as the other one is set" };
        match (cert, key) {
            (Some(cert), Some(key)) => Ok(Some(Self { cert, key })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(missing("GATEWAY_TLS_CERT")),
            (Some(_), None) => Err(missing("GATEWAY_TLS_KEY")),
        }
    }
}

/// The certificate in use.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Fails when the files cannot be read, or do not belong together.
    pub fn load(files: TlsFiles) -> anyhow::Result<Arc<Self>> {
        let current = RwLock::new(read(&files)?);
        Ok(Arc::new(Self { files, current }))
    }

    /// What a server needs to speak TLS with it.
    pub fn server_config(self: &Arc<Self>) -> anyhow::Result<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(builder.with_no_client_auth().with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>))
    }

    /// Takes in what was changed in the files, until `shutdown`. While they cannot be read, the old ones stay.
    pub async fn keep_fresh(self: Arc<Self>, shutdown: CancellationToken) {
        let mut seen = changed_at(&self.files);
        while tokio::time::timeout(LOOK_EVERY, shutdown.cancelled()).await.is_err() {
            let now = changed_at(&self.files);
            if now == seen {
                continue;
            }
            match read(&self.files) {
                Ok(fresh) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                    seen = now;
                    tracing::info!("the certificate was read again");
                }
                Err(error) => tracing::error!(%error, "the changed certificate cannot be used: the old one stays"),
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn changed_at(files: &TlsFiles) -> [Option<std::time::SystemTime>; 2] {
    let of = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    [of(&files.cert), of(&files.key)]
}

fn read(files: &TlsFiles) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .with_context(|| format!("GATEWAY_TLS_CERT: {} cannot be read", files.cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("GATEWAY_TLS_KEY: {} cannot be read", files.key.display()))?;
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider)
        .context("GATEWAY_TLS_CERT and GATEWAY_TLS_KEY: they cannot be used, or do not belong together")?;
    Ok(Arc::new(key))
}
