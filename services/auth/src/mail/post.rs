//! How mails leave the house: by SMTP, or into a folder where nothing else is configured.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use lettre::transport::smtp::response::{Category, Severity};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use uuid::Uuid;

/// How long a mail server may take for one step of the conversation.
const STEP_WITHIN: Duration = Duration::from_secs(15);
/// How long it may take for a whole mail.
const SEND_WITHIN: Duration = Duration::from_secs(45);

/// Takes mails.
pub(crate) enum Post {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    /// Each mail becomes `<time>-<id>.eml`, for its owner's eyes only. The folder is made when the first comes.
    Folder(PathBuf),
}

/// Why a mail did not leave.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    /// The server does not want this mail; others may pass.
    #[error("the mail server refuses it: {0}")]
    Refused(#[source] lettre::transport::smtp::Error),
    #[error("the mail server cannot be used: {0}")]
    Smtp(#[source] lettre::transport::smtp::Error),
    #[error("the mail server did not answer within {} s", SEND_WITHIN.as_secs())]
    Silent,
    #[error("{path} cannot be written: {source}")]
    Folder { path: PathBuf, source: std::io::Error },
}

impl Post {
    /// `url`: `smtp://` or `smtps://`, as [`crate::config`] has checked it.
    pub(crate) fn smtp(url: &str) -> anyhow::Result<Self> {
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url).context("SMTP_URL")?;
        Ok(Self::Smtp(builder.timeout(Some(STEP_WITHIN)).build()))
    }

    /// Sends one mail, or says why not. It may have left all the same, if the answer got lost.
    pub(crate) async fn send(&self, mail_id: Uuid, message: Message) -> Result<(), PostError> {
        match self {
            Self::Smtp(transport) => match tokio::time::timeout(SEND_WITHIN, transport.send(message)).await {
                Ok(Ok(_accepted)) => Ok(()),
                Ok(Err(error)) if is_refusal(&error) => Err(PostError::Refused(error)),
                Ok(Err(error)) => Err(PostError::Smtp(error)),
                Err(_elapsed) => Err(PostError::Silent),
            },
            Self::Folder(folder) => {
                let path = folder.join(format!("{mail_id}.eml"));
                write(folder, &path, &message.formatted())
                    .map_err(|source| PostError::Folder { path: path.clone(), source })?;
                tracing::info!(path = %path.display(), "a mail was written, as SMTP_URL is not set");
                Ok(())
            }
        }
    }
}

/// Whether the server refused this mail and not us: its answer is about a mailbox (55x, RFC 5321 §4.2.1).
fn is_refusal(error: &lettre::transport::smtp::Error) -> bool {
    error.status().is_some_and(|code| {
        code.severity == Severity::PermanentNegativeCompletion && code.category == Category::MailSystem
    })
}

/// Whole or not at all: whoever looks into the folder sees no half mail.
fn write(folder: &PathBuf, path: &PathBuf, text: &[u8]) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(draft, path)
}
