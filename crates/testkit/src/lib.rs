//! Real services for tests, which run in parallel and share them.
//!
//! - [`services`]: the PostgreSQL, RabbitMQ and Redis of `make up`.
//! - [`database`]: a database of the test's own on that PostgreSQL.
//! - [`amqp_namespace`]: names of the test's own on that RabbitMQ.
//! - [`private`]: a server of the test's own, to kill.
//! - [`Program`]: our own programs as processes. [`media`]: a media server, encoders and players.
//! - [`Issuer`]: mints tokens, for tests of a service without auth.
//! - [`Documented`]: whether what is said on a WebSocket is as a document has it.
//! - [`otlp`]: a collector that keeps the traces it is sent. [`client`]: an HTTP client.
//! - [`eventually`]: the one place where a test waits for something to become true.

mod amqp;
mod database;
mod documented;
mod issuer;
pub mod media;
pub mod otlp;
mod ports;
pub mod private;
mod program;
mod services;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use amqp::{AmqpNamespace, amqp_namespace};
pub use database::{TestDatabase, database, database_on, pool};
pub use documented::Documented;
pub use issuer::Issuer;
pub use ports::free_port;
pub use private::{Postgres, RabbitMq, Redis};
pub use program::Program;
pub use services::{Services, services, workspace};

/// How long [`eventually`] waits. Far more than anything takes, so that a busy machine fails no test.
const PATIENCE: Duration = Duration::from_secs(20);

const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Wait until `look` finds something, and return it. Panics after 20 s, naming `what` was awaited.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "after {} s still not: {what}", PATIENCE.as_secs());
        sleep(BETWEEN_LOOKS).await;
    }
}

/// An HTTP client that keeps no cookies and follows no redirects.
#[must_use]
pub fn client() -> reqwest::Client {
    // Named once for the process; a repeat changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    client.timeout(PATIENCE).build().expect("the client can be built")
}

/// Run something that is async to its end where nothing can be awaited: in a `Drop`.
fn block_on_aside<F: Future<Output = ()>>(future: impl FnOnce() -> F + Send + 'static) {
    let aside = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime for cleaning up").block_on(future());
    });
    // A test that failed already must not abort the process by failing again.
    if aside.join().is_err() && !std::thread::panicking() {
        panic!("cleaning up after the test failed: see above");
    }
}
