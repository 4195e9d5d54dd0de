//! One TCP connection to an upstream.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::timer::Timer;

/// A connection that carries one exchange at a time.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) timer: Timer,
    /// It carried an exchange before, so the upstream may be about to close it.
    pub(super) is_reused: bool,
    /// When its last exchange ended.
    pub(super) idle_since: Instant,
}

impl Connection {
    /// Open a connection within `wait`.
    pub(super) async fn open(address: SocketAddr, wait: Duration) -> io::Result<Self> {
        let stream = timeout(wait, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, timer: Timer::default(), is_reused: false, idle_since: Instant::now() })
    }

    /// The upstream has neither closed an idle connection nor said anything on it.
    ///
    /// This costs a system call only if the runtime has heard something from the socket.
    pub(super) fn is_quiet(&self) -> bool {
        match self.stream.try_read(&mut [0; 1]) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}
