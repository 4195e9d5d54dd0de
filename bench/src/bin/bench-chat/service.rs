//! A chat service of one measurement alone.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

pub(crate) const BETWEEN_TRIES: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(30);

/// A chat service that is killed when this is dropped.
pub(crate) struct Service(Child);

impl Service {
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("storm.err"))?;
        let mut command = Command::new(folder.join("run-storm"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir(folder);
        Ok(Self(command.spawn().context("a chat service")?))
    }

    /// Waits until it does.
    pub(crate) async fn serves(&self, address: SocketAddr) -> anyhow::Result<()> {
        let connect = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(BETWEEN_TRIES).await;
            }
        };
        timeout(PATIENCE, connect).await.context("the chat service did not start")
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Service {
    /// kill -9.
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
