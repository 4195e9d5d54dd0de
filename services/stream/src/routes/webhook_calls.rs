//! What media servers said lately, and what became of it: for administrators who wonder why a stream has ended.

use actix_web::web;
use chrono::{DateTime, Utc};
use common::{Caller, Invalid, PageQuery, Role, StreamId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::App;
use crate::broadcasting::{self, Mode, Report};
use crate::dialect::{self, Dialect};
use crate::domain::MediaServer;
use crate::error::{self, StreamError};
use crate::routes::webhook;
use crate::store::webhook_calls::{self, Filter, Kept};

/// Which calls.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListCalls {
    /// Only those about this stream.
    #[serde(alias = "stream_id")]
    stream_id: Option<i64>,
    /// Only those of this dialect.
    #[param(inline)]
    dialect: Option<Dialect>,
    /// Only those that came before this one.
    before: Option<i64>,
    /// How many calls to show. Default 20, at most 100.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
}

/// The last calls, the last one first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallsView {
    items: Vec<CallView>,
    /// What to ask for the calls before these with, as `before`; null: there are none.
    #[schema(required)]
    next_before: Option<i64>,
}

/// A call of a media server, without keys and secrets.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CallView {
    id: i64,
    received_at: DateTime<Utc>,
    /// Null if it was not even read: whoever called did not prove to be a media server of ours. Of those at most one a
    /// second is kept.
    #[schema(required)]
    dialect: Option<Dialect>,
    media_server: String,
    /// Which run of it, where that is known.
    server_run: String,
    #[schema(required)]
    client_address: Option<String>,
    /// The media server's own word for what happened.
    #[schema(example = "done")]
    call: String,
    /// What came with it, as far as it is known and not secret.
    #[schema(value_type = Object)]
    fields: Value,
    /// Whose call it was, as far as that is known.
    #[schema(required)]
    stream_id: Option<StreamId>,
    /// What the media server was answered.
    status: u16,
    /// What was decided and why.
    #[schema(example = "`done` from client 12 ignored: the publisher is client 7")]
    verdict: String,
    /// Whether it can be tried again.
    is_replayable: bool,
}

impl From<Kept> for CallView {
    fn from(Kept { id, entry }: Kept) -> Self {
        Self {
            id,
            received_at: entry.received_at,
            dialect: entry.dialect,
            media_server: entry.media_server,
            server_run: entry.server_run,
            client_address: entry.client_address,
            call: entry.call,
            fields: entry.fields,
            stream_id: entry.stream_id,
            status: entry.status,
            verdict: entry.verdict,
            is_replayable: entry.understood.is_some(),
        }
    }
}

/// How to try it again.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Replay {
    /// `1`: nothing is changed, only what would be is said. There is no other way.
    #[param(pattern = "^(1|true)$", example = "1", required = true)]
    dry: Option<String>,
}

/// What would become of a call now.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReplayView {
    /// What the media server would be answered.
    status: u16,
    /// What would be decided and why.
    verdict: String,
}

/// What media servers said lately, each with what became of it, the last first.
///
/// The last `WEBHOOK_LOG` calls are kept, and as many heartbeats. A call is here a moment after it was answered.
#[utoipa::path(
    get,
    path = "/api/v1/admin/webhooks",
    tag = "administration",
    security(("cookie" = []), ("bearer" = [])),
    params(ListCalls),
    responses(
        (status = 200, description = "The calls", body = CallsView),
        (status = 400, description = "`bad-request`"),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 403, description = "`forbidden`"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "stream.webhook_call.list", skip_all)]
pub(crate) async fn list(
    app: web::Data<App>,
    caller: Caller,
    query: web::Query<ListCalls>,
) -> Result<web::Json<CallsView>, StreamError> {
    ensure_admin(&caller)?;
    let ListCalls { stream_id, dialect, before, limit } = query.into_inner();
    let limit = PageQuery::of(None, limit)?.limit;
    let filter = Filter { stream: stream_id, dialect, before };
    let mut kept = webhook_calls::page(&mut *app.pool.get().await?, filter, i64::from(limit) + 1).await?;
    let more = kept.len() > limit as usize;
    kept.truncate(limit as usize);
    let next_before = kept.last().filter(|_| more).map(|kept| kept.id);
    Ok(web::Json(CallsView { items: kept.into_iter().map(CallView::from).collect(), next_before }))
}

/// Try a call of a media server again, without changing anything: what would be decided as things stand now?
#[utoipa::path(
    post,
    path = "/api/v1/admin/webhooks/{id}/replay",
    tag = "administration",
    security(("cookie" = []), ("bearer" = [])),
    params(("id" = i64, Path), Replay),
    responses(
        (status = 200, description = "What would become of it", body = ReplayView),
        (status = 400, description = "`bad-request`"),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 403, description = "`forbidden`"),
        (status = 404, description = "`no-such-call`"),
        (status = 409, description = "`nothing-to-replay`"),
        (status = 422, description = "`invalid-fields`: without `dry=1`"),
    )
)]
#[tracing::instrument(name = "stream.webhook_call.replay", skip_all)]
pub(crate) async fn replay(
    app: web::Data<App>,
    caller: Caller,
    id: web::Path<i64>,
    query: web::Query<Replay>,
) -> Result<web::Json<ReplayView>, StreamError> {
    ensure_admin(&caller)?;
    let mut invalid = Invalid::default();
    if !matches!(query.dry.as_deref(), Some("1" | "true")) {
        invalid.field("dry", "must be 1: a call is only tried, never repeated");
    }
    invalid.or(())?;
    let entry = webhook_calls::find(&mut *app.pool.get().await?, *id).await?.ok_or(StreamError::NoSuchCall(*id))?;
    let (Some(understood), Some(dialect)) = (entry.understood, entry.dialect) else {
        return Err(StreamError::NothingToReplay(*id));
    };
    let media_server = MediaServer { name: entry.media_server, run: entry.server_run };
    let report = Report { media_server, call: understood.call() };
    let outcome = broadcasting::settle(&app, &[report], Mode::Dry).await?.pop().ok_or(StreamError::Busy)?;
    let verdict = dialect::shown(&outcome.verdict, &[]);
    let status = match outcome.answer {
        Ok(answer) => webhook::answer(&app, dialect, answer, &verdict).status().as_u16(),
        Err(refusal) => error::kind_of(refusal).status,
    };
    Ok(web::Json(ReplayView { status, verdict }))
}

fn ensure_admin(caller: &Caller) -> Result<(), StreamError> {
    match caller.role {
        Role::Admin => Ok(()),
        Role::Member => Err(StreamError::NotAdministrator),
    }
}
