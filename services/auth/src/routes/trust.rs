//! What every process has to know about tokens, as it changes. For processes of the installation, not for clients.

use std::convert::Infallible;

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};
use futures_util::stream;

use crate::App;

/// The feed, as [`common::trust`] describes it. It goes on until its reader leaves or this instance stops.
pub(crate) async fn feed(app: web::Data<App>) -> HttpResponse {
    let feed = app.trust.feed(app.stopping.clone());
    let lines = stream::unfold(feed, async |mut feed| Some((Ok::<_, Infallible>(feed.next().await?), feed)));
    HttpResponse::Ok()
        .content_type("application/x-ndjson")
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(Box::pin(lines))
}
