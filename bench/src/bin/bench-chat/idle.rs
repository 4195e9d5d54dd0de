//! What a connection takes of the memory that says nothing.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bench::servers::{self, Server};
use tokio::time::sleep;

use crate::client::User;
use crate::fan_out::{AT_ONCE, open_all};
use crate::service::Service;
use crate::speech::Speech;
use crate::{Part, ROOMS, Target};

/// What buffers are given back after, and everybody has been told who is there.
const SETTLE: Duration = Duration::from_millis(1500);
const MOST: f64 = 12.0;

pub(crate) async fn measure(servers: &[Server], users: &[User], folder: &Path) -> anyhow::Result<Part> {
    let count = users.len();
    eprintln!("bench: {count} idle WebSockets at 4 servers");
    let mut text = format!(
        "PSS of the server a connection, {count} idle WebSockets: ours authenticated, \
         each in one of {ROOMS} rooms. The kernel's socket buffers are not in it, and are the same for all.\n\n\
         | server | KB a connection |\n|---|---|\n"
    );
    let mut ours = 0.0;
    for (what, name, speech) in [
        ("nchan", "nchan", Speech::Plain),
        ("npm `ws`", "ws", Speech::Plain),
        ("npm `socket.io`", "socket_io", Speech::SocketIo),
        ("**amphi-chat**, Socket.IO", "storm", Speech::SocketIo),
        ("**amphi-chat**, rooms", "storm", Speech::Rooms),
    ] {
        let listed = servers::find(servers, name)?;
        // Those of others are new: this is measured first. Ours is new each time.
        let service = (name == "storm").then(|| Service::start(folder)).transpose()?;
        let own = match &service {
            Some(service) => {
                service.serves(listed.address).await?;
                Some(Server::of(name, listed.address, service.id()))
            }
            None => None,
        };
        let server = own.as_ref().unwrap_or(listed);
        let room = |user: usize| user % ROOMS + 1;
        // What is allocated once, whatever the number of connections, is there already.
        drop(open_all(server.address, speech, &users[..AT_ONCE], room).await.context(what)?);
        sleep(SETTLE).await;
        let before = server.memory()?;
        let clients = open_all(server.address, speech, users, room).await.context(what)?;
        sleep(SETTLE).await;
        ours = (server.memory()? - before) / count as f64 / 1e3;
        writeln!(text, "| {what} | {ours:.1} |")?;
        drop(clients);
        sleep(SETTLE).await;
    }
    let target = Target {
        what: format!("memory of an idle WebSocket, of {count}"),
        aim: "≤ 12 KB",
        figure: format!("{ours:.1}"),
        is_met: ours <= MOST,
    };
    Ok(Part { text, targets: vec![target], is_valid: true })
}
