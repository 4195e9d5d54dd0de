//! The embedded default: a private PostgreSQL, started, adopted and stopped by this process.
//!
//! The first process to lock the folder owns the server: it starts it, or adopts one that a killed process left
//! running, and stops it at its end. Any other process (`amphi events parked`, say) is a guest of the running server.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use common::Secret;
use rustix::process::{Pid, Signal, geteuid, kill_process, test_kill_process};

use crate::postgres_binaries::{self, Binaries};
use crate::secrets;

/// Where the data goes when root cannot hand out the configured folder to another user.
const ROOT_FALLBACK: &str = "/var/lib/amphi";
/// A server that has not answered by then did not start. Crash recovery is part of it.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server may take to stop before its owner leaves it behind, to be adopted at the next start.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a server is started, each time on another port, before it is given up.
const START_TRIES: u32 = 3;
const POLL: Duration = Duration::from_millis(20);

/// The user that PostgreSQL runs as: it refuses to run as root.
#[derive(Debug, Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

/// A running server. [`EmbeddedPostgres::stop`] ends it, if this process owns it.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    url: Secret,
    owned: Option<Owned>,
}

#[derive(Debug)]
struct Owned {
    data: PathBuf,
    /// Held as long as the server is ours.
    _lock: File,
}

impl EmbeddedPostgres {
    /// The server under `data_dir`, started if it is not running. `bin_dir`: where `postgres` is, if not found by itself.
    ///
    /// Takes half a second the first time, less than a tenth later. Durable: fsync stays on.
    pub async fn open(data_dir: &Path, bin_dir: Option<&Path>) -> anyhow::Result<Self> {
        let account = if geteuid().is_root() { Some(unprivileged_account()?) } else { None };
        let root = place(data_dir, account)?;
        let lock = File::options().create(true).truncate(false).write(true).open(root.join("lock"))?;
        let owns = lock.try_lock().is_ok();
        let password = secrets::load_or_make(&root.join("password")).context("the database password cannot be kept")?;
        let deadline = Instant::now() + START_TIMEOUT;

        if !owns {
            return Self::guest(&root, &password, deadline).await;
        }
        let binaries = postgres_binaries::find(bin_dir, &root, existing_major(&root)?).await?;
        let data = root.join(format!("data{}", binaries.major));
        if !data.exists() {
            init(&binaries, &root, &data, account)?;
        }
        let owned = Owned { data, _lock: lock };
        let mut tries = START_TRIES;
        loop {
            let (port, child) = match running(&owned.data) {
                Some(server) => {
                    tracing::info!(port = server.port, "adopted the PostgreSQL that was left running");
                    (server.port, None)
                }
                None => {
                    // A server that was killed leaves its pid file, and may itself be left as a zombie for a moment.
                    remove_if_there(&owned.data.join("postmaster.pid"))?;
                    let (port, child) = start(&binaries, &root, &owned.data, account)?;
                    (port, Some(child))
                }
            };
            let url = url(port, &password);
            tries -= 1;
            match wait_until_ours(&url, &owned.data, &root, child, deadline).await {
                Ok(()) => return Ok(Self { url, owned: Some(owned) }),
                Err(error) if tries == 0 => return Err(error),
                // The one that was left was just stopping, or another program took the port that we chose.
                Err(error) => tracing::warn!("{error:#}; trying again"),
            }
        }
    }

    async fn guest(root: &Path, password: &Secret, deadline: Instant) -> anyhow::Result<Self> {
        loop {
            let folders = fs::read_dir(root)?.filter_map(Result::ok).map(|entry| entry.path());
            let server = folders
                .filter(|path| path.join("PG_VERSION").exists())
                .find_map(|data| running(&data).map(|server| (server, data)));
            if let Some((server, data)) = server {
                let url = url(server.port, password);
                wait_until_ours(&url, &data, root, None, deadline).await?;
                return Ok(Self { url, owned: None });
            }
            if Instant::now() > deadline {
                bail!("another process holds {}, but its PostgreSQL does not start", root.display());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// `postgres://…`, with the password.
    #[must_use]
    pub fn url(&self) -> &Secret {
        &self.url
    }

    /// Stops the server if this process owns it: open transactions are rolled back, committed ones are kept.
    pub async fn stop(self) {
        let Some(owned) = &self.owned else { return };
        owned.ask_to_stop();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while running(&owned.data).is_some() {
            if Instant::now() > deadline {
                tracing::warn!("PostgreSQL takes long to stop; the next start adopts it");
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Owned {
    fn ask_to_stop(&self) {
        // SIGINT is PostgreSQL's "fast" shutdown.
        if let Some(server) = running(&self.data)
            && let Err(error) = kill_process(server.pid, Signal::INT)
        {
            tracing::warn!(%error, "PostgreSQL could not be stopped");
        }
    }
}

impl Drop for Owned {
    /// For a start that fails half-way: nobody is left to wait for the server, but it is not left running.
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

/// The major version of the data that is there. Several can be, after a move from one to the next: the newest counts.
fn existing_major(root: &Path) -> io::Result<Option<u32>> {
    let names = fs::read_dir(root)?.filter_map(Result::ok).map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.to_str()?.strip_prefix("data")?.parse().ok()).max())
}

/// The folder that holds the server, made if needed, and reachable by the user that the server runs as.
fn place(data_dir: &Path, account: Option<Account>) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(data_dir).with_context(|| format!("AMPHI_DATA_DIR: {} cannot be made", data_dir.display()))?;
    let data_dir = data_dir.canonicalize()?;
    let mut root = data_dir.join("postgres");
    if let Some(account) = account {
        let closed = data_dir.ancestors().find(|folder| !is_open_to_all(folder));
        if let Some(closed) = closed {
            // Two checkouts must not share a database, so the folder's name follows from the configured one.
            let name = data_dir.to_string_lossy().trim_matches('/').replace('/', "-");
            root = Path::new(ROOT_FALLBACK).join(name).join("postgres");
            tracing::warn!(
                "{} is closed to the user that PostgreSQL runs as, so its data is in {}",
                closed.display(),
                root.display()
            );
        }
        fs::create_dir_all(&root)?;
        chown(&root, Some(account.uid), Some(account.gid))?;
    } else {
        fs::create_dir_all(&root)?;
    }
    fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
    Ok(root)
}

fn is_open_to_all(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|data| data.permissions().mode() & 0o001 != 0)
}

/// `postgres` where Debian made it, else `nobody`.
fn unprivileged_account() -> anyhow::Result<Account> {
    let passwd = fs::read_to_string("/etc/passwd").context("/etc/passwd cannot be read")?;
    let find = |wanted: &str| {
        passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| match fields[..] {
            [name, _, uid, gid, ..] if name == wanted => {
                Some(Account { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
            }
            _ => None,
        })
    };
    find("postgres").or_else(|| find("nobody")).context("PostgreSQL cannot run as root, and there is no user `nobody`")
}

/// A command that runs as `account`, with nothing of our environment.
fn command(program: PathBuf, account: Option<Account>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C.UTF-8").current_dir("/").stdin(Stdio::null());
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
    command
}

/// Makes the data folder, whole or not at all.
fn init(binaries: &Binaries, root: &Path, data: &Path, account: Option<Account>) -> anyhow::Result<()> {
    let draft = data.with_extension("new");
    // Left over from an attempt that was interrupted.
    match fs::remove_dir_all(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    if let Some(Account { uid, gid }) = account {
        chown(root.join("password"), Some(uid), Some(gid))?;
    }
    let output = command(binaries.folder.join("initdb"), account)
        .arg("-D")
        .arg(&draft)
        .arg("--pwfile")
        .arg(root.join("password"))
        .args(["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-A", "scram-sha-256", "--no-instructions"])
        .output()
        .context("initdb cannot be run")?;
    if !output.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::rename(draft, data)?;
    Ok(())
}

/// Starts the server on a free port. It outlives this process if that is killed.
fn start(binaries: &Binaries, root: &Path, data: &Path, account: Option<Account>) -> anyhow::Result<(u16, Child)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut log = File::options().create(true).append(true).open(root.join("postgres.log"))?;
    writeln!(log, "-- starting PostgreSQL {} on port {port}", binaries.major)?;
    let child = command(binaries.folder.join("postgres"), account)
        .arg("-D")
        .arg(data)
        .args(["-p", &port.to_string(), "-k", "", "-c", "listen_addresses=127.0.0.1"])
        // Ctrl-C in a terminal goes to our process group; the server is to stop after us, not with us.
        .process_group(0)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("postgres cannot be run")?;
    Ok((port, child))
}

struct Server {
    pid: Pid,
    port: u16,
}

/// The server that runs on `data`, by its own pid file; `None` when that process is gone, a zombie, or another program.
fn running(data: &Path) -> Option<Server> {
    let file = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let lines: Vec<_> = file.lines().collect();
    let pid = Pid::from_raw(lines.first()?.trim().parse().ok()?)?;
    let port = lines.get(3)?.trim().parse().ok()?;
    test_kill_process(pid).ok()?;
    let proc = PathBuf::from(format!("/proc/{pid}", pid = pid.as_raw_nonzero()));
    if proc.exists() {
        let stat = fs::read_to_string(proc.join("stat")).ok()?;
        let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
        let cmdline = fs::read(proc.join("cmdline")).ok()?;
        let is_ours = cmdline.split(|byte| *byte == 0).any(|part| part == data.as_os_str().as_encoded_bytes());
        if state == 'Z' || !is_ours {
            return None;
        }
    }
    Some(Server { pid, port })
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn url(port: u16, password: &Secret) -> Secret {
    Secret::new(format!("postgres://postgres:{}@127.0.0.1:{port}/postgres", password.expose()))
}

/// Waits for an answer from the server on `data`: a port that answers could be somebody else's. Gives up at once when it
/// has ended; `child` is the server if we started it.
async fn wait_until_ours(
    url: &Secret,
    data: &Path,
    root: &Path,
    mut child: Option<Child>,
    deadline: Instant,
) -> anyhow::Result<()> {
    let last = loop {
        let has_ended = match &mut child {
            Some(child) => child.try_wait().is_ok_and(|status| status.is_some()),
            None => running(data).is_none(),
        };
        match data_directory(url).await {
            Ok(found) if Path::new(&found) == data => return Ok(()),
            Ok(_) => return Err(anyhow!("the port of our PostgreSQL belongs to another server; start again")),
            Err(error) if has_ended || Instant::now() > deadline => break error,
            Err(_) => tokio::time::sleep(POLL).await,
        }
    };
    let log = fs::read_to_string(root.join("postgres.log")).unwrap_or_default();
    let tail: Vec<_> = log.lines().rev().take(5).collect();
    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    Err(last.context(format!("PostgreSQL did not start; its log ends with:\n{tail}")))
}

async fn data_directory(url: &Secret) -> anyhow::Result<String> {
    let (client, connection) = tokio_postgres::connect(url.expose(), tokio_postgres::NoTls).await?;
    // The driver and the query run side by side here, so that no task is left behind.
    tokio::select! {
        row = client.query_one("show data_directory", &[]) => Ok(row?.get(0)),
        ended = connection => match ended {
            Err(error) => Err(error.into()),
            Ok(()) => bail!("the connection was closed"),
        },
    }
}
