//! The history of a stream: when it was on air.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use common::{BroadcastId, Caller, Page, PageQuery};
use events::EndReason;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::App;
use crate::domain::{StreamName, in_words};
use crate::error::StreamError;
use crate::routes::streams::{answer, find_visible};
use crate::store::broadcasts::{self, Past};

/// Which page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListBroadcasts {
    /// Which page, from 1. Default 1, at most 10,000.
    #[param(minimum = 1, maximum = 10_000)]
    page: Option<u32>,
    /// How many items a page has. Default 20, at most 100.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
}

/// One time that a stream was on air.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BroadcastView {
    id: BroadcastId,
    started_at: DateTime<Utc>,
    /// When it went off the air; null while it is on. An encoder that comes back soon goes on with the same broadcast.
    #[schema(required)]
    ended_at: Option<DateTime<Utc>>,
    #[schema(required)]
    end_reason: Option<EndReason>,
    /// The reason, for people.
    #[schema(required, example = "The encoder stopped publishing.")]
    ended: Option<&'static str>,
    /// The most who watched at once.
    peak_viewers: i32,
    /// How many watched over HLS, each counted once.
    unique_viewers: i64,
    /// How long they watched, all together, in seconds.
    watch_seconds: i64,
    /// How many files were recorded.
    recordings: i64,
}

impl From<Past> for BroadcastView {
    fn from(past: Past) -> Self {
        Self {
            id: past.id,
            started_at: past.started_at,
            ended_at: past.end.map(|(at, _)| at),
            end_reason: past.end.map(|(_, reason)| reason),
            ended: past.end.map(|(_, reason)| in_words(reason)),
            peak_viewers: past.peak_viewers,
            unique_viewers: past.unique_viewers,
            watch_seconds: past.watch_seconds,
            recordings: past.recordings,
        }
    }
}

/// When a stream was on air, the last time first, and why it ended each time. For whoever may see the stream.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{id}/broadcasts",
    tag = "streams",
    security((), ("cookie" = []), ("bearer" = [])),
    params(("id" = String, Path, description = "The stream's id or its playback id"), ListBroadcasts),
    responses(
        (status = 200, description = "A page of broadcasts", body = Page<BroadcastView>),
        (status = 404, description = "`no-such-stream`"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "stream.broadcast.list", skip_all, fields(stream = %name))]
pub(crate) async fn list(
    app: web::Data<App>,
    caller: Option<Caller>,
    name: web::Path<StreamName>,
    query: web::Query<ListBroadcasts>,
) -> Result<HttpResponse, StreamError> {
    let query = PageQuery::of(query.page, query.limit)?;
    let mut conn = app.pool.get().await?;
    let stream = find_visible(&mut conn, *name, caller.as_ref()).await?;
    let page = broadcasts::page(&mut conn, stream.id, query).await?.map(BroadcastView::from);
    Ok(answer(serde_json::to_vec(&page)?.into(), stream.visibility))
}
