//! Servers of a test's own, to stop and kill.
//!
//! They are started by the scripts in `deploy/local`, keep their port and data when they are started again, and are
//! removed with the value that stands for them. Starting takes: PostgreSQL 1 s, RabbitMQ 3 s, Redis nothing.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::services::workspace;

/// A PostgreSQL server.
#[derive(Debug)]
pub struct Postgres(Server);

/// A RabbitMQ node.
#[derive(Debug)]
pub struct RabbitMq(Server);

/// A Redis server. It keeps nothing when it ends.
#[derive(Debug)]
pub struct Redis(Server);

impl Postgres {
    pub async fn private() -> Self {
        Self(Server::start_new("postgres").await)
    }

    /// A superuser's address. The same for as long as this value lives.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.0.port)
    }

    /// End it at once, as `pg_ctl stop -m immediate` does: it recovers when it is started again.
    pub async fn stop_at_once(&self) {
        self.0.run("abort").await;
    }
}

impl RabbitMq {
    pub async fn private() -> Self {
        Self(Server::start_new("rabbitmq").await)
    }

    /// The same for as long as this value lives.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.0.port)
    }
}

impl Redis {
    pub async fn private() -> Self {
        Self(Server::start_new("redis").await)
    }

    /// The same for as long as this value lives.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.0.port)
    }
}

macro_rules! servers {
    ($($name:ident),*) => {$(
        impl $name {
            /// End it as a crash would.
            pub async fn kill(&self) {
                self.0.run("kill").await;
            }

            /// End it in good order.
            pub async fn stop(&self) {
                self.0.run("stop").await;
            }

            /// Have it hang: connections stay, nothing answers.
            pub async fn pause(&self) {
                self.0.signal(Signal::STOP);
            }

            /// Let it go on after [`Self::pause`].
            pub async fn resume(&self) {
                self.0.signal(Signal::CONT);
            }

            /// Start it again. Returns when it answers.
            pub async fn start(&self) {
                self.0.run("start").await;
            }
        }
    )*};
}

servers!(Postgres, RabbitMq, Redis);

/// What the three have in common: a script of `deploy/local`, and the folder that it was given.
#[derive(Debug)]
struct Server {
    kind: &'static str,
    dir: PathBuf,
    port: u16,
}

impl Server {
    async fn start_new(kind: &'static str) -> Self {
        let dir = std::env::temp_dir().join(format!("amphi-{kind}-{}", uuid::Uuid::now_v7().simple()));
        let mut server = Self { kind, dir, port: 0 };
        let port = server.run("start").await;
        server.port = port.trim().parse().unwrap_or_else(|_| panic!("deploy/local/{kind} printed no port: {port}"));
        server
    }

    /// Run the script and return what it printed. Panics with what it complained of when it fails.
    async fn run(&self, action: &'static str) -> String {
        let mut command = self.command(action);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
        let output = output.unwrap_or_else(|error| panic!("deploy/local/{}: {error}", self.kind));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "deploy/local/{} {action}: {complaint}", self.kind);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn signal(&self, signal: Signal) {
        let file = if self.kind == "postgres" { "data/postmaster.pid" } else { "pid" };
        let pid = std::fs::read_to_string(self.dir.join(file)).expect("a server that runs");
        let pid = pid.lines().next().and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?)).expect("a process id");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{} did not take {signal:?}: {error}", self.kind));
    }

    /// Stop it, and remove its folder, but not from under a server that may still run.
    fn remove(&self) -> Result<(), String> {
        let stopped = self.command("stop").output().map_err(|error| error.to_string())?;
        if !stopped.status.success() {
            return Err(format!("the server may still run: {}", String::from_utf8_lossy(&stopped.stderr).trim()));
        }
        let folder = std::fs::canonicalize(&self.dir).map_err(|error| error.to_string())?;
        std::fs::remove_dir_all(folder).map_err(|error| error.to_string())?;
        if self.dir.is_symlink() {
            // The script made it, because the server's user may not enter where it points from.
            std::fs::remove_file(&self.dir).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn command(&self, action: &str) -> Command {
        let mut command = Command::new(workspace().join("deploy/local").join(self.kind));
        command.arg(action).arg(&self.dir).stdin(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(complaint) = self.remove() {
            eprintln!("{} stays: {complaint}", self.dir.display());
        }
    }
}
