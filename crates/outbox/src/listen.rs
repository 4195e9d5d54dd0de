//! Being woken by PostgreSQL.

use std::pin::pin;
use std::time::Duration;

use diesel::QueryResult;
use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::pooled_connection::deadpool::{Object, PoolError};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;

use crate::Pool;

/// A notification may be lost while its listener reconnects, so nobody waits longer than this without looking.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// How long a connection may take to come.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NoConnection {
    #[error("no database connection: {0}")]
    Pool(#[from] PoolError),
    #[error("no database connection was free within {} s", CONNECT_WITHIN.as_secs())]
    Timeout,
}

/// A connection of the pool, in bounded time whatever the pool's own limits are.
pub(crate) async fn connection(pool: &Pool) -> Result<Object<AsyncPgConnection>, NoConnection> {
    match timeout(CONNECT_WITHIN, pool.get()).await {
        Ok(connection) => Ok(connection?),
        Err(_) => Err(NoConnection::Timeout),
    }
}

/// A connection of one's own, outside the pool's count: it keeps what a session keeps (`LISTEN`, locks), and
/// closing it gives that up.
pub(crate) async fn own_connection(pool: &Pool) -> Result<AsyncPgConnection, NoConnection> {
    connection(pool).await.map(Object::take)
}

/// Have this connection woken by `pg_notify(channel, …)`, when a queue has something new.
///
/// A queue is a table that is empty when a plan is made and may be long when it is used: plans go by its index.
pub(crate) async fn listen(conn: &mut AsyncPgConnection, channel: &str) -> QueryResult<()> {
    let quoted = channel.replace('"', "\"\"");
    conn.batch_execute(&format!("SET enable_seqscan = off; LISTEN \"{quoted}\"")).await
}

/// Wait until there may be something to do: a notification came, or it is time to look.
///
/// Several notifications that have come are one. Safe to drop. Fails when the connection is lost.
pub(crate) async fn wake(conn: &mut AsyncPgConnection) -> QueryResult<()> {
    let mut notifications = pin!(conn.notifications_stream());
    let Ok(mut notification) = timeout(POLL_EVERY, notifications.next()).await else {
        return Ok(());
    };
    loop {
        match notification {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => return Err(closed()),
        }
        match notifications.next().now_or_never() {
            Some(next) => notification = next,
            None => return Ok(()),
        }
    }
}

fn closed() -> Error {
    Error::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new("the connection was closed".to_owned()))
}
