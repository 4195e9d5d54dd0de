//! What happens on streams, as it happens: server-sent events.

use std::collections::HashSet;
use std::convert::Infallible;

use actix_web::http::header::{CACHE_CONTROL, HeaderName};
use actix_web::{HttpRequest, HttpResponse, web};
use common::{Invalid, StreamId};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::App;
use crate::error::StreamError;
use crate::feed::Reader;

/// The header with which a browser says where it was.
const LAST_EVENT_ID: &str = "last-event-id";
/// No more streams are picked out in one answer.
const MOST_STREAMS: usize = 100;

/// Which news.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Wanted {
    /// Only of these streams: ids, separated by commas, at most 100. Default: of all public ones.
    #[param(pattern = "^[0-9]+(,[0-9]+)*$", example = "17,4")]
    stream: Option<String>,
    /// Where to go on, for clients that cannot set the header `Last-Event-ID`.
    #[param(minimum = 0)]
    last_event_id: Option<i64>,
}

/// What happens on public streams, as it happens.
///
/// An endless answer of server-sent events: `live`, `ended`, `viewers`, `scheduled`, each with the id of the stream
/// (`streamId`) in its JSON. `id` says where to go on: a browser's `EventSource` does so by itself, others send it as
/// `Last-Event-ID`. Nothing is left out and nothing is told twice, for an hour (`FEED_KEEP`). What cannot be gone on
/// from begins with `reset`: load the list again. A comment comes every 15 s while nothing happens.
#[utoipa::path(
    get,
    path = "/api/v1/streams/events",
    tag = "streams",
    params(
        Wanted,
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the event that was heard last"),
    ),
    responses(
        (status = 200, description = "Events, for as long as the client stays", content_type = "text/event-stream", body = String),
        (status = 400, description = "`bad-request`"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "stream.news.follow", skip_all)]
pub(crate) async fn follow(
    app: web::Data<App>,
    request: HttpRequest,
    wanted: web::Query<Wanted>,
) -> Result<HttpResponse, StreamError> {
    let mut invalid = Invalid::default();
    let of: HashSet<StreamId> = match &wanted.stream {
        None => HashSet::new(),
        Some(text) => text.split(',').map(str::parse).collect::<Result<_, _>>().unwrap_or_else(|_not_ids| {
            invalid.field("stream", "must be ids of streams, separated by commas");
            HashSet::new()
        }),
    };
    if of.len() > MOST_STREAMS {
        invalid.field("stream", format!("may have at most {MOST_STREAMS} ids"));
    }
    let of = invalid.or(of)?;
    // What is no id of ours cannot be gone on from; a browser that sent it would otherwise ask for ever.
    let in_header = request.headers().get(LAST_EVENT_ID).map(|id| {
        let id = id.to_str().ok().and_then(|id| id.trim().parse().ok());
        id.filter(|id| *id >= 0).unwrap_or(i64::MAX)
    });
    let last = in_header.or(wanted.last_event_id);

    let stopping = app.stopping.clone();
    let reader = Reader::new(app.into_inner(), last, of, stopping);
    let greeting = stream::once(std::future::ready(Ok::<_, Infallible>(reader.greeting())));
    let news = stream::unfold(reader, async |mut reader| Some((Ok::<_, Infallible>(reader.next().await?), reader)));
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        // Proxies of the kind of nginx would hold events back.
        .insert_header((HeaderName::from_static("x-accel-buffering"), "no"))
        .streaming(Box::pin(greeting.chain(news))))
}
