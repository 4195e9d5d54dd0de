//! What media servers tell us.

use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, web};
use common::problem::kinds;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::App;
use crate::broadcasting::{Outcome, Report};
use crate::dialect;
use crate::domain::MediaServer;
use crate::error::StreamError;
use crate::machine::Answer;

/// The header that carries the secret, where the media server or the proxy beside it can set one.
const SECRET_HEADER: &str = "x-webhook-secret";
/// The header that names the media server, where there are several.
const SERVER_HEADER: &str = "x-media-server";
/// The header that tells which run of the media server it is: it numbers connections anew when it is restarted.
const RUN_HEADER: &str = "x-media-server-started";
/// A callback has at most a few fields of 256 bytes each, and a publisher's query.
const LONGEST_BODY: usize = 16 * 1024;
/// Names of media servers are hostnames.
const LONGEST_NAME: usize = 255;

/// What nginx-rtmp posts, as far as it is of use here, for the document: it is read by [`dialect::read`]. `name` is the stream
/// key of a publisher and the public name of a player; `clientid` numbers the connection. Other calls are answered 204.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "call", rename_all = "snake_case")]
#[expect(dead_code, reason = "it is described, not used")]
enum CallbackForm {
    /// An encoder wants to publish.
    Publish {
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        name: String,
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        clientid: String,
    },
    /// An encoder is still publishing.
    UpdatePublish {
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        name: String,
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        clientid: String,
    },
    /// An encoder has left.
    PublishDone {
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        name: String,
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        clientid: String,
    },
    /// A player wants to play.
    Play {
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        name: String,
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        clientid: String,
    },
    /// A player has left.
    PlayDone {
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        name: String,
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        clientid: String,
    },
    /// An encoder or a player has left.
    Done {
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        name: String,
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        clientid: String,
    },
    /// A file was recorded.
    RecordDone {
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        name: String,
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        path: String,
    },
}

/// A media server's callback.
///
/// nginx-rtmp posts a form; the field `call` says what happened (`publish`, `update_publish`, `play`, `done`,
/// `record_done`, …). Shows the secret in the header `X-Webhook-Secret`, in `?secret=`, or as the last part of the
/// path. A `2xx` lets the encoder or player go on, `302` hands a broadcast on under its public name, anything else
/// disconnects it.
#[utoipa::path(
    post,
    path = "/api/v1/webhook/stream-event",
    tag = "webhook",
    params(
        ("X-Webhook-Secret" = Option<String>, Header, description = "The shared secret"),
        ("X-Media-Server" = Option<String>, Header, description = "Which media server calls, where there are several"),
        ("X-Media-Server-Started" = Option<String>, Header, description = "Which run of it: connections are numbered anew in each"),
        ("secret" = Option<String>, Query, description = "The shared secret, where no header can be set"),
    ),
    request_body(content = CallbackForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 204, description = "Go on"),
        (status = 302, description = "Publish accepted: relay to `Location`"),
        (status = 400, description = "`bad-request`: not a callback"),
        (status = 401, description = "`webhook-secret-wrong`"),
        (status = 403, description = "`wrong-stream-key`, or `broadcast-ended`"),
        (status = 404, description = "`no-such-stream`: nothing is played under this name"),
        (status = 409, description = "`already-live`: another encoder is on air with this key"),
    )
)]
#[tracing::instrument(name = "stream.webhook.receive", skip_all)]
pub(crate) async fn stream_event(
    app: web::Data<App>,
    request: HttpRequest,
    body: web::Payload,
) -> Result<HttpResponse, StreamError> {
    if !shows_secret(&app, &request) {
        return Err(StreamError::WrongSecret);
    }
    let too_large = || kinds::BODY_TOO_LARGE.say(format!("a callback has at most {LONGEST_BODY} bytes"));
    let body = body.to_bytes_limited(LONGEST_BODY).await.map_err(|_exceeded| too_large())?;
    let body = body.map_err(|_broken| kinds::BAD_REQUEST.say("the body did not arrive whole"))?;
    let Some(call) = dialect::read(&body).map_err(|error| kinds::BAD_REQUEST.say(error))? else {
        return Ok(HttpResponse::NoContent().finish());
    };
    let name = |name| header(&request, name).filter(|text| text.len() <= LONGEST_NAME);
    let media_server = MediaServer {
        name: name(SERVER_HEADER).unwrap_or("default").to_owned(),
        run: name(RUN_HEADER).unwrap_or_default().to_owned(),
    };
    let Outcome { answer, verdict, .. } = app.calls.settle(Report { media_server, call }).await?;
    Ok(match answer.map_err(|refusal| StreamError::Refused(refusal, verdict))? {
        Answer::Fine => HttpResponse::NoContent().finish(),
        Answer::PublishAs(playback_id) => {
            let address = format!("{}/{playback_id}", app.config.relay_url);
            HttpResponse::Found().insert_header((LOCATION, address)).finish()
        }
    })
}

fn shows_secret(app: &App, request: &HttpRequest) -> bool {
    let secret = &app.config.webhook_secret;
    let in_query = || {
        form_urlencoded::parse(request.query_string().as_bytes())
            .any(|(name, value)| name == "secret" && secret.matches(&value))
    };
    let in_path = || request.match_info().get("secret").is_some_and(|value| secret.matches(value));
    header(request, SECRET_HEADER).is_some_and(|value| secret.matches(value)) || in_query() || in_path()
}

fn header<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}
