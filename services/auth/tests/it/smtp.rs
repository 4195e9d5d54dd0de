//! A mail server that speaks as much SMTP as it takes to receive a mail (RFC 5321), and can refuse.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::Mail;

/// Ends with the runtime of its test.
pub(crate) struct MailServer {
    pub(crate) url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_out_of_order: AtomicBool,
    refused: Mutex<Vec<String>>,
    /// Each with the sender and the reader of its envelope.
    received: Mutex<Vec<(String, String, String)>>,
    said: Mutex<Vec<String>>,
}

impl MailServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        #[expect(clippy::disallowed_methods, reason = "a test has no task tracker")]
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    // A client may leave at any time.
                    let _ = talk(socket, &state).await;
                });
            }
        });
        Self { url, state }
    }

    /// From now on every mail is refused for the moment (451), or none is any more.
    pub(crate) fn set_out_of_order(&self, is_out_of_order: bool) {
        self.state.is_out_of_order.store(is_out_of_order, Ordering::Relaxed);
    }

    /// From now on no mailbox has this name (550).
    pub(crate) fn refuse(&self, to: &str) {
        self.state.refused.lock().unwrap().push(to.to_owned());
    }

    /// What has arrived for `to`.
    pub(crate) fn received(&self, to: &str) -> Vec<Mail> {
        let received = self.state.received.lock().unwrap();
        received.iter().filter(|(_, reader, _)| reader == to).map(|(_, _, text)| Mail::parse(text)).collect()
    }

    /// The commands that clients have sent so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.state.said.lock().unwrap().clone()
    }
}

async fn talk(socket: TcpStream, state: &State) -> std::io::Result<()> {
    let (reader, mut writer) = socket.into_split();
    let mut lines = BufReader::new(reader).lines();
    let (mut sender, mut reader) = (String::new(), String::new());
    writer.write_all(b"220 test ready\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        state.said.lock().unwrap().push(line.clone());
        let command = line.to_ascii_uppercase();
        let is_refused = || state.refused.lock().unwrap().iter().any(|to| line.contains(to));
        let answer = if command.starts_with("EHLO") {
            "250-test\r\n250 8BITMIME\r\n"
        } else if command.starts_with("MAIL FROM:") && state.is_out_of_order.load(Ordering::Relaxed) {
            "451 out of order\r\n"
        } else if command.starts_with("MAIL FROM:") {
            sender = address_in(&line);
            "250 ok\r\n"
        } else if command.starts_with("RCPT TO:") && is_refused() {
            "550 no such mailbox\r\n"
        } else if command.starts_with("RCPT TO:") {
            reader = address_in(&line);
            "250 ok\r\n"
        } else if command == "DATA" {
            writer.write_all(b"354 go on\r\n").await?;
            let mut text = String::new();
            while let Some(line) = lines.next_line().await? {
                if line == "." {
                    break;
                }
                text.push_str(line.strip_prefix('.').unwrap_or(&line));
                text.push_str("\r\n");
            }
            state.received.lock().unwrap().push((sender.clone(), reader.clone(), text));
            "250 taken\r\n"
        } else if command == "QUIT" {
            writer.write_all(b"221 bye\r\n").await?;
            return Ok(());
        } else {
            "250 ok\r\n"
        };
        writer.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// `MAIL FROM:<a@b>` names `a@b`.
fn address_in(line: &str) -> String {
    line.split(['<', '>']).nth(1).unwrap_or_default().to_owned()
}
