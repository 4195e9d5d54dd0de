//! Media servers, as far as we ask and order them.
//!
//! What they call us for is enough to know who is on air, as long as every call arrives. [`watch`] makes up for those that
//! do not, and for media servers that end without a word.

mod address;
mod mediamtx;
mod nginx_rtmp;
mod srs;
pub(crate) mod watch;

use std::collections::HashSet;
use std::time::Duration;

use common::Secret;
use reqwest::header::DATE;
use reqwest::{Client, Method, StatusCode, redirect};
use uuid::Uuid;

pub(crate) use self::address::{Address, Addresses, Kind};
use crate::domain::{Connection, MediaServer};

/// The header that shows nginx-rtmp that we are the backend: it has no credentials of its own.
const SECRET_HEADER: &str = "x-webhook-secret";
/// The header in which it says which run of it this is, as it does in its calls.
const RUN_HEADER: &str = "x-media-server-started";
/// The header in which it says where it keeps its recordings, as it does in `record_done`.
const FOLDER_HEADER: &str = "x-recordings-folder";
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Statistics of some hundred thousand connections, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;

/// The media servers that we can reach.
pub(crate) struct Servers {
    client: Client,
    secret: Secret,
    all: Vec<Address>,
}

/// Who is at a media server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Which run of it has answered. `None`: it does not say, as connections have other names in each.
    run: Option<String>,
    publishers: HashSet<String>,
    players: HashSet<String>,
}

impl Seen {
    fn is_run_of(&self, server: &MediaServer) -> bool {
        self.run.as_ref().is_none_or(|run| *run == server.run)
    }

    fn publishes(&self, connection: &Connection) -> bool {
        self.is_run_of(&connection.media_server) && self.publishers.contains(&connection.client_id)
    }

    fn plays(&self, connection: &Connection) -> bool {
        self.is_run_of(&connection.media_server) && self.players.contains(&connection.client_id)
    }
}

/// A file that a media server has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recording {
    playback_id: Uuid,
    /// When, in seconds since 1970.
    begun: i64,
    /// As the media server reports it.
    path: String,
    /// How long nothing was added to it.
    quiet_for: Duration,
}

/// Why nothing is known of a media server. Has neither keys nor credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("it cannot be asked")]
    Request(#[source] reqwest::Error),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("its answer is longer than {LONGEST_ANSWER} bytes")]
    TooLong,
    #[error("its answer cannot be read: {0}")]
    Unreadable(&'static str),
}

impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> Self {
        Self::Request(error.without_url())
    }
}

struct Answer {
    run: Option<String>,
    folder: Option<String>,
    date: Option<String>,
    body: Vec<u8>,
}

impl Servers {
    /// `secret` is shown to those that know it: `WEBHOOK_SECRET`.
    pub(crate) fn new(all: Addresses, secret: Secret) -> anyhow::Result<Self> {
        let client = Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { client, secret, all: all.0 })
    }

    /// Has the media server disconnect this connection, if we can reach it. Where we cannot, the answer to its next
    /// heartbeat does it, or the next look at it.
    pub(crate) async fn send_away(&self, connection: &Connection) {
        let Some(server) = self.all.iter().find(|server| server.name == connection.media_server.name) else { return };
        let (media_server, client_id) = (&server.name, &connection.client_id);
        match self.order_away(server, connection).await {
            Ok(()) => tracing::info!(media_server, client_id, "the media server was told to disconnect a client"),
            Err(error) => {
                let error = common::problem::chain(&error);
                tracing::warn!(
                    media_server,
                    client_id,
                    error,
                    "the media server could not be told to disconnect a client"
                );
            }
        }
    }

    async fn order_away(&self, server: &Address, connection: &Connection) -> Result<(), NoAnswer> {
        let id = connection.client_id.as_str();
        let is_plain = !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        match server.kind {
            // One that it does not know is gone already.
            _ if !is_plain => Ok(()),
            // Numbers begin anew in each run: in another one it is somebody else's.
            Kind::NginxRtmp if self.look(server).await?.is_run_of(&connection.media_server) => {
                self.ask(server, Method::GET, &format!("/control/drop/client?clientid={id}")).await.map(|_| ())
            }
            Kind::NginxRtmp => Ok(()),
            Kind::Srs => self.ask(server, Method::DELETE, &format!("/api/v1/clients/{id}")).await.map(|_| ()),
            Kind::MediaMtx => {
                for page in 0..mediamtx::MOST_PAGES {
                    let answer = self.ask(server, Method::GET, &mediamtx::paths(page)).await?;
                    let paths = mediamtx::Paths::read(&answer.body)?;
                    if let Some(kick) = paths.kick(id) {
                        return self.ask(server, Method::POST, &kick).await.map(|_| ());
                    }
                    if page + 1 >= paths.page_count {
                        break;
                    }
                }
                Ok(())
            }
        }
    }

    /// Who is there now.
    async fn look(&self, server: &Address) -> Result<Seen, NoAnswer> {
        match server.kind {
            Kind::NginxRtmp => {
                let Answer { body, run, .. } = self.ask(server, Method::GET, "/stat").await?;
                nginx_rtmp::seen(&body, run)
            }
            Kind::Srs => srs::seen(&self.ask(server, Method::GET, srs::CLIENTS).await?.body),
            Kind::MediaMtx => {
                let mut seen = Seen::default();
                for page in 0..mediamtx::MOST_PAGES {
                    let answer = self.ask(server, Method::GET, &mediamtx::paths(page)).await?;
                    let paths = mediamtx::Paths::read(&answer.body)?;
                    let is_last = page + 1 >= paths.page_count;
                    paths.add_to(&mut seen);
                    if is_last {
                        break;
                    }
                }
                Ok(seen)
            }
        }
    }

    /// What it has recorded, where its files can be listed.
    async fn recordings(&self, server: &Address) -> Result<Vec<Recording>, NoAnswer> {
        if server.kind != Kind::NginxRtmp {
            return Ok(Vec::new());
        }
        let Answer { body, folder, date, .. } = self.ask(server, Method::GET, "/rec/").await?;
        let folder = folder.ok_or(NoAnswer::Unreadable("it does not say which folder it is"))?;
        nginx_rtmp::recordings(&body, &folder, date.as_deref().unwrap_or_default())
    }

    async fn ask(&self, server: &Address, method: Method, path: &str) -> Result<Answer, NoAnswer> {
        let mut request = self.client.request(method, format!("{}{path}", server.url));
        if let Some((user, password)) = &server.login {
            request = request.basic_auth(user, Some(password.expose()));
        }
        if server.kind == Kind::NginxRtmp {
            request = request.header(SECRET_HEADER, self.secret.expose());
        }
        let mut answer = request.send().await?;
        if !answer.status().is_success() {
            return Err(NoAnswer::Status(answer.status()));
        }
        let header = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        let (run, folder, date) = (header(RUN_HEADER), header(FOLDER_HEADER), header(DATE.as_str()));
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            body.extend_from_slice(&piece);
            if body.len() > LONGEST_ANSWER {
                return Err(NoAnswer::TooLong);
            }
        }
        Ok(Answer { run, folder, date, body })
    }
}
