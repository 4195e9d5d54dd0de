//! What auth tells every process about tokens, and how its instances tell each other of a change.
//!
//! A change is notified in its own transaction: PostgreSQL delivers it when that commits, and not otherwise.

use common::trust::EndedSession;
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::{Deserialize, Serialize};

/// PostgreSQL refuses a notification of 8000 bytes. An ended session takes 70.
const MOST_IN_A_NOTICE: usize = 100;

/// A notification: what has changed, or where to look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Notice {
    /// These sessions have ended.
    Ended { ended: Vec<EndedSession> },
}

/// Tells every instance that these sessions have ended.
pub(crate) async fn tell_ended(conn: &mut AsyncPgConnection, ended: &[EndedSession]) -> QueryResult<()> {
    for some in ended.chunks(MOST_IN_A_NOTICE) {
        tell(conn, &Notice::Ended { ended: some.to_vec() }).await?;
    }
    Ok(())
}

async fn tell(conn: &mut AsyncPgConnection, notice: &Notice) -> QueryResult<()> {
    let text =
        serde_json::to_string(notice).map_err(|error| diesel::result::Error::SerializationError(Box::new(error)))?;
    diesel::sql_query("select pg_notify(current_schema() || '.trust', $1)").bind::<Text, _>(text).execute(conn).await?;
    Ok(())
}
