//! The access log tells who asked for what, and no secret.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock};

use crate::support::{NOBODY, Stub, TestGateway};

/// What the process has logged so far.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Starts to record, at the first call.
    fn of_process() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let start = || {
            let log = Self::default();
            let writer = log.clone();
            tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).init();
            log
        };
        LOG.get_or_init(start).clone()
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[actix_web::test]
async fn a_secret_leaves_no_trace_wherever_it_is_sent() {
    let log = Log::of_process();
    let upstream = Stub::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let gateway = TestGateway::before(upstream.address).await;
    let nobody = TestGateway::with([("STREAM_URL", &*format!("http://{NOBODY}"))]);

    for gateway in [&gateway, &nobody] {
        for request in [
            "GET /streams?token=hunter2&page=2&ticket=hunter2&access_token=hunter2&jwt=hunter2&code=hunter2 HTTP/1.1\r\n",
            "GET /streams?page=2 HTTP/1.1\r\nCookie: auth_token=hunter2\r\n",
            "GET /streams?page=2 HTTP/1.1\r\nAuthorization: Bearer hunter2\r\n",
            "POST /streams?page=2 HTTP/1.1\r\nAuthorization: Bearer hunter2\r\n",
            "POST /webhook/stream-event?secret=hunter2 HTTP/1.1\r\nX-Webhook-Secret: hunter2\r\n",
            "POST /webhook/stream-event/hunter2 HTTP/1.1\r\n",
            "POST /webhook/stream-events/hunter2 HTTP/1.1\r\n",
            "POST /webhook//stream-event/hunter2?key=hunter2 HTTP/1.1\r\n",
        ] {
            gateway.ask(&format!("{request}Host: a\r\nContent-Length: 0\r\n\r\n")).await;
        }
    }

    let text = format!("{}{}{}", log.text(), gateway.logged(), nobody.logged());
    assert!(!text.contains("hunter2"), "{}", text.lines().find(|line| line.contains("hunter2")).unwrap());
    for shown in ["/streams?token=…&page=2", "/webhook/stream-event/…", "/webhook/stream-event/{secret}", "127.0.0.1"]
    {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
}
