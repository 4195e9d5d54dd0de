//! A running gateway, stubs for what is behind it, and clients that speak HTTP by hand.

use std::cell::Cell;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::rt;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::access_log::AccessLog;
use chassis::health::Health;
use chassis::http::Options;
use chassis::telemetry::LogFormat;
use chassis::{Core, Env};
use common::token::{Jwk, Jwks};
use common::trust::Trust;
use common::{Clock as _, SessionId, SharedClock, SystemClock, UserId, Verifier};
use ed25519_dalek::{Signer as _, SigningKey};
use futures_util::future::{Either, select};
use gateway::config::Config;
use gateway::tls::Certificate as Tls;
use gateway::upstream::{Resolve, SystemResolver};
use gateway::worker::Gateway;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A test that waits longer than this for anything has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address that refuses connections: nobody may listen on port 1 but root, and nobody does.
pub(crate) const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// Waits for `future`, but not for ever.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing came")
}

/// A gateway on a port of its own.
pub(crate) struct TestGateway {
    pub(crate) address: SocketAddr,
    key: SigningKey,
    verifier: Verifier,
    certificate: Option<Certificate>,
    logged: Arc<Mutex<Vec<u8>>>,
    server: ServerHandle,
    _shutdown: DropGuard,
}

impl TestGateway {
    /// A gateway with every service at `upstream`.
    pub(crate) async fn before(upstream: SocketAddr) -> Self {
        let at = format!("http://{upstream}");
        Self::with(["AUTH_URL", "STREAM_URL", "CHAT_URL", "VOD_URL", "HLS_ORIGIN_URL"].map(|name| (name, &*at)))
    }

    pub(crate) fn with<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let key = SigningKey::from_bytes(&[7; 32]);
        let keys = Jwks { keys: vec![Jwk::ed25519("k1", key.verifying_key().as_bytes())] };
        Self::start(settings, key, &keys, None, None)
    }

    /// A gateway with every service at `upstream`, which speaks TLS.
    pub(crate) async fn with_tls(upstream: SocketAddr) -> Self {
        let at = format!("http://{upstream}");
        let urls = ["AUTH_URL", "STREAM_URL", "VOD_URL"].map(|name| (name, &*at));
        let key = SigningKey::from_bytes(&[7; 32]);
        let keys = Jwks { keys: vec![Jwk::ed25519("k1", key.verifying_key().as_bytes())] };
        Self::start(urls, key, &keys, None, Some(Certificate::new()))
    }

    /// A gateway that looks services up with `resolver` and probes them, as the real one does.
    pub(crate) fn watching<'a>(
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
        resolver: impl Resolve + 'static,
    ) -> Self {
        let key = SigningKey::from_bytes(&[7; 32]);
        Self::start(settings, key, &Jwks { keys: Vec::new() }, Some(Arc::new(resolver)), None)
    }

    /// A gateway that auth has told nothing yet.
    pub(crate) fn without_keys() -> Self {
        Self::start([], SigningKey::from_bytes(&[7; 32]), &Jwks { keys: Vec::new() }, None, None)
    }

    /// `watching`: services are looked up with it, and probed.
    fn start<'a>(
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
        key: SigningKey,
        keys: &Jwks,
        watching: Option<Arc<dyn Resolve>>,
        certificate: Option<Certificate>,
    ) -> Self {
        let files = certificate.iter().flat_map(Certificate::settings).map(|(name, file)| (name.to_owned(), file));
        let env = Env::of(settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).chain(files));
        let core = Core::from_env(&env).unwrap();
        let config = Config::from_env(&env, &core).unwrap();
        let shutdown = CancellationToken::new();
        let is_watching = watching.is_some();
        let fleets = config.fleets(&watching.unwrap_or_else(|| Arc::new(SystemResolver)));
        for fleet in fleets.iter().flatten().filter(|_| is_watching) {
            rt::spawn(Arc::clone(fleet).keep_watch(shutdown.clone()));
        }
        let logged = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&logged);
        let log = AccessLog::new(vec![(
            LogFormat::Text,
            Box::new(move |line| lines.lock().unwrap().extend_from_slice(line)),
        )]);
        let clock: SharedClock = Arc::new(SystemClock);
        let verifier = Verifier::new("amphi", Arc::clone(&clock));
        verifier.learn(Trust::Keys { keys: keys.keys.clone() });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let options = Options { service: "gateway", workers: 1, drain: Duration::from_secs(1) };
        let tls = config.tls.clone().map(|files| Tls::load(files).unwrap().server_config().unwrap());
        let gateway = Gateway::new(config, fleets, verifier.clone(), Health::default(), clock, log.clone()).unwrap();
        let server = gateway::server::server(listener, &options, Arc::new(gateway), tls).unwrap();
        let handle = server.handle();
        rt::spawn(server);
        Self { address, key, verifier, certificate, logged, server: handle, _shutdown: shutdown.drop_guard() }
    }

    /// Lets the gateway learn what auth tells.
    pub(crate) fn learn(&self, trust: Trust) {
        self.verifier.learn(trust);
    }

    pub(crate) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Its access log so far.
    pub(crate) fn logged(&self) -> String {
        String::from_utf8(self.logged.lock().unwrap().clone()).unwrap()
    }

    /// Whom to trust, for one with TLS: PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate.as_ref().unwrap().pem
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.address.port())
    }

    pub(crate) async fn connect(&self) -> Peer {
        Peer::new(soon(TcpStream::connect(self.address)).await.unwrap())
    }

    /// The answer to `request` on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        self.connect().await.ask(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: amphi.test\r\n\r\n")).await
    }

    /// A token of a user, good for a minute.
    pub(crate) fn token(&self) -> String {
        self.token_for(60)
    }

    /// A token that ends `seconds` from now.
    pub(crate) fn token_for(&self, seconds: i64) -> String {
        let now = SystemClock.now().timestamp();
        let claims = json!({
            "iss": "amphi", "aud": "amphi", "sub": UserId::new(), "name": "Ana", "role": "Member",
            "sid": SessionId::new(), "iat": now, "exp": now + seconds,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&json!({"alg": "EdDSA", "typ": "JWT", "kid": "k1"})), part(&claims));
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(self.key.sign(text.as_bytes()).to_bytes()))
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        // Nobody waits: the test is over.
        drop(self.server.stop(false));
    }
}

/// A certificate of 127.0.0.1, signed by itself.
struct Certificate {
    pem: String,
    folder: tempfile::TempDir,
}

impl Certificate {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Self { pem: made.cert.pem(), folder }
    }

    fn settings(&self) -> impl Iterator<Item = (&'static str, String)> {
        [("GATEWAY_TLS_CERT", "cert.pem"), ("GATEWAY_TLS_KEY", "key.pem")]
            .into_iter()
            .map(|(name, file)| (name, self.folder.path().join(file).display().to_string()))
    }
}

/// A server that plays a script on every connection.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    heads: mpsc::UnboundedReceiver<String>,
    connections: Rc<Cell<usize>>,
}

/// What a script tells its stub.
#[derive(Clone)]
pub(crate) struct Notebook(mpsc::UnboundedSender<String>);

impl Notebook {
    pub(crate) fn note(&self, text: impl Into<String>) {
        // A test that is through with its stub no longer reads.
        let _ = self.0.send(text.into());
    }
}

impl Stub {
    /// Runs `script` on each connection.
    pub(crate) async fn new<F, S>(script: S) -> Self
    where
        S: Fn(Peer, Notebook) -> F + 'static,
        F: Future<Output = ()> + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heads) = mpsc::unbounded_channel();
        let connections = Rc::new(Cell::new(0));
        let counter = Rc::clone(&connections);
        rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.set(counter.get() + 1);
                rt::spawn(script(Peer::new(stream), Notebook(sender.clone())));
            }
        });
        Self { address, heads, connections }
    }

    /// Answers every request with `response`, and keeps connections open.
    pub(crate) async fn answering(response: &'static str) -> Self {
        Self::new(move |mut peer, notebook| async move {
            while let Some(head) = peer.read_request().await {
                notebook.note(head);
                peer.write(response).await;
            }
        })
        .await
    }

    /// What the script noted next: mostly, the head of a request.
    pub(crate) async fn next(&mut self) -> String {
        soon(self.heads.recv()).await.unwrap()
    }

    pub(crate) fn has_heard(&mut self) -> bool {
        self.heads.try_recv().is_ok()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.get()
    }
}

/// One side of a connection, speaking by hand.
pub(crate) struct Peer {
    reader: OwnedReadHalf,
    writer: Option<OwnedWriteHalf>,
    buffer: Vec<u8>,
}

/// A response, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of a problem, after checking that it is one.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.head);
        let body = self.json();
        assert_eq!(body["status"], self.status);
        body["code"].as_str().unwrap().to_owned()
    }
}

/// The value of a header in `head`.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, v)| v.trim())
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let (reader, writer) = stream.into_split();
        Self { reader, writer: Some(writer), buffer: Vec::new() }
    }

    /// Writes all of `bytes`; nothing happens if the other side is gone.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = soon(self.writer.as_mut().unwrap().write_all(bytes.as_ref())).await;
    }

    /// Writes `bytes` while `read` reads, and answers what that does. Nobody waits for the rest once it is through.
    pub(crate) async fn write_while<T>(&mut self, bytes: &[u8], read: impl AsyncFnOnce(&mut Self) -> T) -> T {
        let mut writer = self.writer.take().unwrap();
        let result = match select(pin!(read(self)), pin!(writer.write_all(bytes))).await {
            Either::Left((result, _)) => result,
            Either::Right((_, read)) => soon(read).await,
        };
        self.writer = Some(writer);
        result
    }

    /// Writes until nothing more is taken for a while, at most `size` bytes; answers how many were.
    pub(crate) async fn write_until_blocked(&mut self, size: usize) -> usize {
        let zeros = [0; 64 * 1024];
        let writer = self.writer.as_mut().unwrap();
        let mut sent = 0;
        while sent < size {
            let part = &zeros[..zeros.len().min(size - sent)];
            match tokio::time::timeout(Duration::from_millis(300), writer.write(part)).await {
                Ok(written) => sent += written.unwrap(),
                Err(_) => return sent,
            }
        }
        sent
    }

    /// Reads more. `false` at the end, be it orderly or not.
    async fn more(&mut self) -> bool {
        matches!(soon(self.reader.read_buf(&mut self.buffer)).await, Ok(1..))
    }

    /// What stands before `end`, and `end`.
    async fn read_past(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Some(self.buffer.drain(..at + end.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The head of a message; `None` when the other side has closed.
    pub(crate) async fn read_head(&mut self) -> Option<String> {
        self.read_past(b"\r\n\r\n").await.map(|head| String::from_utf8(head).unwrap())
    }

    /// A whole request, of which the head is returned.
    pub(crate) async fn read_request(&mut self) -> Option<String> {
        let head = self.read_head().await?;
        self.read_body(&head).await?;
        Some(head)
    }

    /// The body that belongs to the request or response with `head`.
    pub(crate) async fn read_body(&mut self, head: &str) -> Option<Vec<u8>> {
        if header(head, "transfer-encoding").is_some() {
            return self.read_chunks().await;
        }
        let size = header(head, "content-length").map_or(0, |length| length.parse().unwrap());
        self.read_exact(size).await
    }

    pub(crate) async fn read_exact(&mut self, size: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < size {
            if !self.more().await {
                return None;
            }
        }
        Some(self.buffer.drain(..size).collect())
    }

    /// The next chunk; empty for the last one.
    pub(crate) async fn read_chunk(&mut self) -> Option<Vec<u8>> {
        let line = String::from_utf8(self.read_past(b"\r\n").await?).unwrap();
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
        let mut chunk = self.read_exact(size + 2).await?;
        chunk.truncate(size);
        Some(chunk)
    }

    async fn read_chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match self.read_chunk().await? {
                chunk if chunk.is_empty() => return Some(body),
                chunk => body.extend(chunk),
            }
        }
    }

    /// Everything until the other side closes, be it orderly or not.
    pub(crate) async fn read_to_end(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Sends `request`, and reads the response to it.
    pub(crate) async fn ask(&mut self, request: &str) -> Answer {
        self.write(request).await;
        self.answer(request.starts_with("HEAD ")).await
    }

    /// Reads a response. `is_bodiless`: it answers HEAD.
    pub(crate) async fn answer(&mut self, is_bodiless: bool) -> Answer {
        let head = self.read_head().await.expect("no answer");
        let status = head[9..12].parse().unwrap();
        let body = match status {
            204 | 304 => Vec::new(),
            _ if is_bodiless => Vec::new(),
            _ => self.read_body(&head).await.expect("the answer broke off"),
        };
        Answer { status, head, body }
    }
}

/// `data` as one chunk.
pub(crate) fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// Bytes without a pattern that a wrong offset could hide in.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    })
    .take(size)
    .collect()
}
