//! What relayed WebSockets cost: memory of idle ones, CPU of messages.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use bench::figures::Spread;
use bench::servers::Server;

/// The stub echoes at every path; this is one that the gateway leads to a service.
const PATH: &str = "/api/v1/streams/1/echo";
const CONNECTIONS: usize = 5_000;
/// How many are opened at once.
const AT_ONCE: usize = 50;
/// How many send messages; the others stay open meanwhile.
const TALKING: usize = 64;
const ROUNDS: usize = 12;
const TIME: Duration = Duration::from_secs(1);
/// What buffers are given back after.
const SETTLE: Duration = Duration::from_millis(500);

const PAYLOAD: usize = 100;
/// A binary message as a client sends it: masked, here with zeros.
const FROM_CLIENT: [u8; 6 + PAYLOAD] = {
    let mut frame = [b'x'; 6 + PAYLOAD];
    (frame[0], frame[1]) = (0x82, 0x80 | PAYLOAD as u8);
    (frame[2], frame[3], frame[4], frame[5]) = (0, 0, 0, 0);
    frame
};
const FROM_SERVER: [u8; 2 + PAYLOAD] = {
    let mut frame = [b'x'; 2 + PAYLOAD];
    (frame[0], frame[1]) = (0x82, PAYLOAD as u8);
    frame
};

/// Opens all connections through both, then lets some of them talk, in interleaved rounds.
pub(crate) async fn measure(nginx: &Server, gateway: &Server) -> anyhow::Result<String> {
    eprintln!("bench: {CONNECTIONS} WebSockets through nginx and through the gateway; {ROUNDS} rounds of messages");
    let servers = [nginx, gateway];
    let mut memory = Vec::new();
    let mut sockets = Vec::new();
    for server in servers {
        // What is allocated once, whatever the number of connections, is there already.
        drop(open_all(server.address, AT_ONCE).await.with_context(|| server.name.clone())?);
        tokio::time::sleep(SETTLE).await;
        let before = server.memory()?;
        sockets.push(open_all(server.address, CONNECTIONS).await.with_context(|| server.name.clone())?);
        tokio::time::sleep(SETTLE).await;
        memory.push((server.memory()? - before) / CONNECTIONS as f64);
    }
    let mut costs = [const { Vec::new() }; 2];
    for round in 0..=ROUNDS {
        for place in 0..servers.len() {
            // Each is first in turn.
            let index = (place + round) % servers.len();
            let server = servers[index];
            let before = server.cpu()?;
            let messages = talk(&mut sockets[index][..TALKING]).await.with_context(|| server.name.clone())?;
            let seconds: f64 = server.cpu()?.since(&before).iter().sum();
            // The first round is to warm up.
            if round > 0 {
                costs[index].push(seconds / messages as f64);
            }
        }
    }
    let [nginx_costs, our_costs] = &costs;
    let ratio = Spread::of(our_costs.iter().zip(nginx_costs).map(|(ours, nginx)| ours / nginx));
    let mut text = format!(
        "### WebSockets\n\nMemory: PSS of the server a connection, {CONNECTIONS} idle ones after one message each; the \
         kernel's socket buffers are not in it. CPU: of a relayed message of {PAYLOAD} bytes, {TALKING} connections \
         sending and getting their echo while the others stay open; medians of {ROUNDS} rounds of {} s, in parentheses the \
         quartiles.\n\n\
         | server | KiB a connection | CPU µs a message | ratio to nginx |\n|---|---|---|---|\n",
        TIME.as_secs()
    );
    let median = |costs: &[f64]| Spread::of(costs.iter().copied()).median * 1e6;
    writeln!(text, "| nginx 1.22 | {:.1} | {:.2} | 1.00 |", memory[0] / 1024.0, median(nginx_costs))?;
    writeln!(text, "| **amphi-gateway** | {:.1} | {:.2} | {ratio} |", memory[1] / 1024.0, median(our_costs))?;
    Ok(text)
}

async fn open_all(address: SocketAddr, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    let mut sockets = Vec::with_capacity(count);
    while sockets.len() < count {
        sockets.extend(try_join_all((0..AT_ONCE.min(count - sockets.len())).map(|_| open(address))).await?);
    }
    Ok(sockets)
}

/// A WebSocket that has sent one message and got it back.
async fn open(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    ensure!(head.starts_with(b"HTTP/1.1 101 "), "answered {}", String::from_utf8_lossy(&head));
    exchange(&mut socket).await?;
    Ok(socket)
}

async fn exchange(socket: &mut TcpStream) -> anyhow::Result<()> {
    socket.write_all(&FROM_CLIENT).await?;
    let mut frame = [0; FROM_SERVER.len()];
    socket.read_exact(&mut frame).await?;
    ensure!(frame == FROM_SERVER, "the echo is another one");
    Ok(())
}

/// Messages to and fro on all of `sockets` for a while. How many were relayed.
async fn talk(sockets: &mut [TcpStream]) -> anyhow::Result<u64> {
    let end = Instant::now() + TIME;
    let counts = try_join_all(sockets.iter_mut().map(async |socket| {
        let mut messages = 0;
        while Instant::now() < end {
            exchange(socket).await?;
            messages += 2;
        }
        Ok::<u64, anyhow::Error>(messages)
    }));
    Ok(counts.await?.iter().sum())
}
