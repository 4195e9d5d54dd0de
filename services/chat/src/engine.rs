//! Engine.IO 4, the server's side: a connection of packets, over a WebSocket, or over long polls that may become one.
//!
//! A [`Line`] is a connection, whatever carries it at the moment. A task of its own keeps its beat and brings its messages
//! to a [`Speaker`], who knows what they mean; what is sent to the client waits in an [`Outbox`], which a WebSocket empties
//! as it is, and a poll without the frames.

use std::collections::HashMap;
use std::future::pending;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_http::ws::{CloseCode, OpCode};
use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::socket::{self, Broken, Inbox, Outbox, Received, pong_frame, text_frame};

/// Separates the packets of a poll.
const SEPARATOR: u8 = 0x1e;
/// No more packets than these wait for a speaker: beyond, the client is not read.
const MOST_WAITING: usize = 16;
/// No more lines than these have begun as polls at an instance.
const MOST_LINES: usize = 50_000;

/// The times and sizes that a client is told when a line opens.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Between a pong and the next ping.
    pub ping_interval: Duration,
    /// How long a client may take to answer a ping.
    pub ping_timeout: Duration,
    /// The most bytes of the body of a POST.
    pub max_payload: u32,
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Text(Bytes),
    Binary(Bytes),
}

/// Who answers a client.
pub(crate) trait Speaker {
    /// Hears a message. `false`: it is none, and the line ends.
    async fn hear(&mut self, message: Message) -> bool;

    /// Whether another message is heard now.
    fn is_ready(&self) -> bool;

    /// Goes on with what is underway. `false`: the line ends. Safe to drop.
    async fn work(&mut self) -> bool;
}

/// What comes from a client, whatever carries it.
#[derive(Debug, PartialEq, Eq)]
enum Packet {
    Close,
    Probe,
    Pong,
    Message(Message),
    Upgrade,
    Noop,
    /// The client is gone without a word.
    Gone,
}

impl Packet {
    /// `None`: no packet that a client sends.
    fn read(text: Bytes) -> Option<Self> {
        let (kind, rest) = text.split_first()?;
        Some(match kind {
            b'1' => Self::Close,
            b'2' if rest == b"probe" => Self::Probe,
            b'3' => Self::Pong,
            b'4' => Self::Message(Message::Text(text.slice(1..))),
            b'5' => Self::Upgrade,
            b'6' => Self::Noop,
            b'b' => Self::Message(Message::Binary(STANDARD.decode(rest).ok()?.into())),
            _ => return None,
        })
    }

    fn received(received: Received) -> Option<Self> {
        match received {
            Received::Text(text) => Self::read(text),
            Received::Binary(bytes) => Some(Self::Message(Message::Binary(bytes))),
            Received::Ping(_) | Received::Pong => Some(Self::Noop),
            Received::Close => Some(Self::Gone),
        }
    }
}

/// A connection.
struct Line {
    sid: String,
    outbox: Arc<Outbox>,
    packets: mpsc::Sender<Packet>,
    uses: Mutex<Uses>,
    /// A WebSocket wants to take over from the polls.
    probed: Notify,
}

/// What a line is used by at the moment.
#[derive(Debug, Default)]
struct Uses {
    is_polled: bool,
    is_posted: bool,
    /// A WebSocket is taking over, or has.
    is_upgraded: bool,
    /// The client has shown that its WebSocket carries something: polls are to end.
    is_probed: bool,
    /// A WebSocket carries it.
    is_socket: bool,
}

impl Line {
    fn new(sid: String, outbox: Arc<Outbox>) -> (Arc<Self>, mpsc::Receiver<Packet>) {
        let (packets, receiver) = mpsc::channel(MOST_WAITING);
        let line = Self { sid, outbox, packets, uses: Mutex::default(), probed: Notify::new() };
        (Arc::new(line), receiver)
    }

    fn is_socket(&self) -> bool {
        lock(&self.uses).is_socket
    }

    /// Ends the line, whoever uses it.
    fn hang_up(&self) {
        self.outbox.end();
        let _ = self.packets.try_send(Packet::Gone); // With a full queue its end is seen after the next packet.
    }

    /// Waits until a WebSocket wants to take over.
    async fn probed(&self) {
        let mut notified = pin!(self.probed.notified());
        notified.as_mut().enable();
        if !lock(&self.uses).is_probed {
            notified.await;
        }
    }

    /// Takes the turn of a request; `None`: another one of its kind is there.
    fn turn(self: &Arc<Self>, of: fn(&mut Uses) -> &mut bool) -> Option<Turn> {
        let is_taken = std::mem::replace(of(&mut lock(&self.uses)), true);
        (!is_taken).then(|| Turn { line: Arc::clone(self), of, is_done: false })
    }
}

/// A request that uses a line. One that is not answered, as its client has gone, ends the line.
struct Turn {
    line: Arc<Line>,
    of: fn(&mut Uses) -> &mut bool,
    is_done: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        *(self.of)(&mut lock(&self.line.uses)) = false;
        if !self.is_done {
            self.line.hang_up();
        }
    }
}

/// The lines of an instance.
pub(crate) struct Lines {
    /// What the name of every line begins with: the gateway finds the instance by it.
    instance: u64,
    rules: Rules,
    /// Those that have begun as polls: others are never asked for.
    known: Mutex<HashMap<String, Arc<Line>>>,
    /// Cancelled when lines must end.
    stopping: CancellationToken,
}

#[derive(Deserialize)]
pub(crate) struct Query {
    #[serde(rename = "EIO")]
    version: Option<String>,
    transport: Option<String>,
    sid: Option<String>,
}

/// Why a request is refused, as the protocol has it.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    Transport,
    Sid,
    Method,
    Request,
    Version,
    TooLarge,
    Full,
}

impl Refusal {
    fn answer(self) -> HttpResponse {
        let (status, code, message) = match self {
            Self::Transport => (StatusCode::BAD_REQUEST, 0, "Transport unknown"),
            Self::Sid => (StatusCode::BAD_REQUEST, 1, "Session ID unknown"),
            Self::Method => (StatusCode::BAD_REQUEST, 2, "Bad handshake method"),
            Self::Request => (StatusCode::BAD_REQUEST, 3, "Bad request"),
            Self::Version => (StatusCode::BAD_REQUEST, 5, "Unsupported protocol version"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, 3, "Payload too large"),
            Self::Full => (StatusCode::SERVICE_UNAVAILABLE, 4, "Too many sessions"),
        };
        HttpResponse::build(status).json(json!({"code": code, "message": message}))
    }
}

impl Lines {
    pub(crate) fn new(instance: u64, rules: Rules, stopping: CancellationToken) -> Self {
        Self { instance, rules, known: Mutex::default(), stopping }
    }

    /// Answers a request of a client. A new line is spoken to by who `speaker` makes.
    pub(crate) async fn serve<S: Speaker + 'static>(
        self: &Arc<Self>,
        request: &HttpRequest,
        query: Query,
        payload: web::Payload,
        speaker: impl FnOnce(Arc<Outbox>) -> S,
    ) -> Result<HttpResponse, actix_web::Error> {
        if query.version.as_deref() != Some("4") {
            return Ok(Refusal::Version.answer());
        }
        let is_socket = match query.transport.as_deref() {
            Some("polling") => false,
            Some("websocket") => true,
            _ => return Ok(Refusal::Transport.answer()),
        };
        let answer = match (query.sid, is_socket) {
            (None, false) if request.method() == Method::GET => self.open_polled(speaker),
            (None, true) if request.method() == Method::GET => return self.open_socket(request, speaker),
            (None, _) => Err(Refusal::Method),
            (Some(sid), is_socket) => {
                let line = lock(&self.known).get(&sid).cloned();
                match (line, request.method()) {
                    (None, _) => Err(Refusal::Sid),
                    (Some(line), &Method::GET) if is_socket => return self.upgrade(request, line),
                    (Some(line), _) if line.is_socket() => Err(Refusal::Request),
                    (Some(line), &Method::GET) => self.poll(line).await,
                    (Some(line), &Method::POST) if !is_socket => self.post(line, payload).await,
                    (Some(_), _) => Err(Refusal::Request),
                }
            }
        };
        Ok(answer.unwrap_or_else(Refusal::answer))
    }

    /// A new line over a WebSocket.
    fn open_socket<S: Speaker + 'static>(
        self: &Arc<Self>,
        request: &HttpRequest,
        speaker: impl FnOnce(Arc<Outbox>) -> S,
    ) -> Result<HttpResponse, actix_web::Error> {
        let opened = socket::open(request)?;
        let (line, packets) = Line::new(self.new_sid(), Arc::clone(&opened.outbox));
        lock(&line.uses).is_socket = true;
        line.outbox.send(text_frame(self.opening(&line, false).as_bytes()));
        let (lines, speaker) = (Arc::clone(self), speaker(Arc::clone(&line.outbox)));
        opened.heard_by(request, async move |inbox| {
            tokio::select! {
                () = lines.keep(Arc::clone(&line), packets, speaker) => {}
                () = async { pump(&line, inbox).await; pending().await } => {}
            }
        })
    }

    /// A new line that is polled.
    fn open_polled<S: Speaker + 'static>(
        self: &Arc<Self>,
        speaker: impl FnOnce(Arc<Outbox>) -> S,
    ) -> Result<HttpResponse, Refusal> {
        let (line, packets) = Line::new(self.new_sid(), Arc::default());
        {
            let mut known = lock(&self.known);
            if known.len() >= MOST_LINES {
                return Err(Refusal::Full);
            }
            known.insert(line.sid.clone(), Arc::clone(&line));
        }
        let answer = content(self.opening(&line, true));
        let (lines, speaker) = (Arc::clone(self), speaker(Arc::clone(&line.outbox)));
        actix_web::rt::spawn(async move {
            lines.keep(Arc::clone(&line), packets, speaker).await;
            // The next poll brings what was said last.
            if !line.is_socket() && !line.outbox.is_over() && lines.knows(&line) {
                sleep(lines.rules.ping_timeout).await;
            }
            lines.forget(&line);
        });
        Ok(answer)
    }

    /// Nobody can guess it: who has it has the line.
    fn new_sid(&self) -> String {
        format!("{:016x}.{}", self.instance, Uuid::new_v4().simple())
    }

    fn opening(&self, line: &Line, is_polled: bool) -> String {
        let upgrades: &[&str] = if is_polled { &["websocket"] } else { &[] };
        let opening = json!({
            "sid": line.sid,
            "upgrades": upgrades,
            "pingInterval": millis(self.rules.ping_interval),
            "pingTimeout": millis(self.rules.ping_timeout),
            "maxPayload": self.rules.max_payload,
        });
        format!("0{opening}")
    }

    fn knows(&self, line: &Line) -> bool {
        lock(&self.known).contains_key(&line.sid)
    }

    fn forget(&self, line: &Line) {
        lock(&self.known).remove(&line.sid);
    }

    /// Answers a poll, as soon as there is something.
    async fn poll(&self, line: Arc<Line>) -> Result<HttpResponse, Refusal> {
        if line.outbox.is_over() {
            return Err(Refusal::Sid);
        }
        let Some(mut turn) = line.turn(|uses| &mut uses.is_polled) else {
            self.forget(&line);
            line.hang_up();
            return Err(Refusal::Request);
        };
        let packets = tokio::select! {
            biased;
            frames = line.outbox.gathered() => match frames {
                Some(frames) => written(&frames),
                None => "1".into(),
            },
            () = line.probed() => "6".into(),
        };
        turn.is_done = true;
        Ok(content(packets))
    }

    /// Takes what a client that polls has to say.
    async fn post(&self, line: Arc<Line>, payload: web::Payload) -> Result<HttpResponse, Refusal> {
        let turn = line.turn(|uses| &mut uses.is_posted);
        let taken = match turn {
            Some(mut turn) => {
                let taken = self.take(&line, payload).await;
                turn.is_done = taken.is_ok();
                taken
            }
            None => Err(Refusal::Request),
        };
        match taken {
            Ok(()) => Ok(content("ok")),
            Err(refusal) => {
                self.forget(&line);
                line.hang_up();
                Err(refusal)
            }
        }
    }

    async fn take(&self, line: &Line, payload: web::Payload) -> Result<(), Refusal> {
        let body = timeout(self.rules.ping_timeout, self.body(payload)).await;
        let body = body.map_err(|_too_slow| Refusal::Request)??;
        let mut packets = Vec::new();
        for text in body.split(|byte| *byte == SEPARATOR) {
            packets.push(Packet::read(body.slice_ref(text)).ok_or(Refusal::Request)?);
        }
        for packet in packets {
            line.packets.send(packet).await.map_err(|_ended| Refusal::Sid)?;
        }
        Ok(())
    }

    async fn body(&self, mut payload: web::Payload) -> Result<Bytes, Refusal> {
        let mut body = BytesMut::new();
        while let Some(part) = payload.next().await {
            let part = part.map_err(|_broken| Refusal::Request)?;
            if body.len() + part.len() > self.rules.max_payload as usize {
                return Err(Refusal::TooLarge);
            }
            body.extend_from_slice(&part);
        }
        Ok(body.freeze())
    }

    /// A WebSocket that wants to take over from the polls.
    fn upgrade(self: &Arc<Self>, request: &HttpRequest, line: Arc<Line>) -> Result<HttpResponse, actix_web::Error> {
        let opened = socket::open(request)?;
        let outbox = Arc::clone(&opened.outbox);
        let Some(mut turn) = line.turn(|uses| &mut uses.is_upgraded) else {
            outbox.close(CloseCode::Policy, "another WebSocket carries this session");
            return opened.heard_by(request, |_| std::future::ready(()));
        };
        // Whatever comes of it, the line goes on.
        turn.is_done = true;
        let lines = Arc::clone(self);
        opened.heard_by(request, async move |mut inbox| {
            let probed = timeout(lines.rules.ping_timeout, probe(&line, &outbox, &mut inbox)).await;
            if probed != Ok(true) {
                lock(&line.uses).is_probed = false;
                drop(turn);
                outbox.close(CloseCode::Policy, "no upgrade");
                return;
            }
            lock(&line.uses).is_socket = true;
            outbox.go_on_with(&line.outbox);
            pump(&line, inbox).await;
            drop(turn);
        })
    }

    /// Keeps the beat of a line, and brings what the client says to `speaker`, until it ends.
    async fn keep(&self, line: Arc<Line>, mut packets: mpsc::Receiver<Packet>, mut speaker: impl Speaker) {
        let Rules { ping_interval, ping_timeout, .. } = self.rules;
        let mut beat = pin!(sleep(ping_interval));
        let mut is_asked = false;
        while !line.outbox.is_closed() {
            tokio::select! {
                packet = packets.recv(), if speaker.is_ready() => match packet {
                    // On the heap: a line that is idle does not hold room for it.
                    Some(Packet::Message(message)) => if !Box::pin(speaker.hear(message)).await { break },
                    Some(Packet::Pong) => {
                        is_asked = false;
                        beat.as_mut().reset(Instant::now() + ping_interval);
                    }
                    Some(Packet::Close) => {
                        if lock(&line.uses).is_polled {
                            line.outbox.send(text_frame(b"6"));
                        }
                        break;
                    }
                    Some(Packet::Probe | Packet::Upgrade | Packet::Noop) => {}
                    Some(Packet::Gone) | None => break,
                },
                goes_on = speaker.work() => if !goes_on { break },
                () = &mut beat => {
                    if is_asked {
                        self.forget(&line);
                        break;
                    }
                    is_asked = true;
                    line.outbox.send(text_frame(b"2"));
                    let asked_at = beat.deadline();
                    beat.as_mut().reset(asked_at + ping_timeout);
                }
                () = self.stopping.cancelled() => {
                    line.outbox.close(CloseCode::Restart, "come back: another instance takes you");
                }
            }
        }
        drop(speaker);
        if line.is_socket() {
            line.outbox.close(CloseCode::Normal, "");
        } else {
            line.outbox.end();
        }
    }
}

/// Whether the client of a WebSocket has shown that it can take over, and does.
async fn probe(line: &Line, outbox: &Arc<Outbox>, inbox: &mut Inbox) -> bool {
    let mut next = async || match inbox.next().await {
        Some(Ok(received)) => Packet::received(received),
        _ => None,
    };
    if next().await != Some(Packet::Probe) {
        return false;
    }
    outbox.send(text_frame(b"3probe"));
    lock(&line.uses).is_probed = true;
    line.probed.notify_waiters();
    next().await == Some(Packet::Upgrade) && !line.outbox.is_closed()
}

/// Brings what comes over a WebSocket to its line, until it is gone.
async fn pump(line: &Line, mut inbox: Inbox) {
    loop {
        let packet = match inbox.next().await {
            Some(Ok(Received::Ping(bytes))) => {
                line.outbox.send(pong_frame(&bytes));
                continue;
            }
            Some(Ok(received)) => Packet::received(received),
            Some(Err(broken)) => {
                match broken {
                    Broken::TooLarge => line.outbox.close(CloseCode::Size, "a message has at most 64 KiB"),
                    Broken::Protocol(_) => line.outbox.close(CloseCode::Protocol, "no WebSocket"),
                    Broken::Gone => {}
                }
                Some(Packet::Gone)
            }
            None => Some(Packet::Gone),
        };
        let is_last = matches!(packet, None | Some(Packet::Gone));
        let sent = line.packets.send(packet.unwrap_or(Packet::Gone)).await;
        if is_last || sent.is_err() {
            return;
        }
    }
}

/// Frames of an outbox, as a poll has them.
fn written(frames: &[Bytes]) -> Bytes {
    let mut packets = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
    for frame in frames {
        if !packets.is_empty() {
            packets.extend_from_slice(&[SEPARATOR]);
        }
        match socket::unframe(frame) {
            (OpCode::Binary, bytes) => {
                packets.extend_from_slice(b"b");
                packets.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            }
            (OpCode::Close, _) => packets.extend_from_slice(b"1"),
            (_, text) => packets.extend_from_slice(text),
        }
    }
    packets.freeze()
}

fn content(packets: impl Into<Bytes>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/plain; charset=UTF-8"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(packets.into())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
