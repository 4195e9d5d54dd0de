//! What media servers tell us.

use std::net::IpAddr;

use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use common::problem::kinds;
use common::{Problem, StreamId};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::App;
use crate::broadcasting::Report;
use crate::call::Understood;
use crate::dialect::{self, Dialect, Read};
use crate::domain::MediaServer;
use crate::error::StreamError;
use crate::machine::Answer;
use crate::routes::proof;
use crate::store::webhook_calls::Entry;

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

/// What a media server or a script can be made to post: `event` says what happened. Fields may be written with underscores
/// as well. The JSON of SRS and MediaMTX is taken here, too. Other events are answered 200.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "event", rename_all_fields = "camelCase")]
#[expect(dead_code, reason = "it is described, not used")]
enum CallbackJson {
    /// An encoder wants to publish.
    #[serde(rename = "on_publish")]
    Publish {
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        stream_key: String,
        /// What the media server calls the connection: only the same one ends what it has begun.
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", max_length = 255)]
        client_id: Option<String>,
    },
    /// An encoder is still publishing. Several times in `BROADCAST_STALE_AFTER`.
    #[serde(rename = "on_update")]
    Update {
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        stream_key: String,
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", max_length = 255)]
        client_id: Option<String>,
    },
    /// An encoder or a player has left. A player gives `playbackId` instead.
    #[serde(rename = "on_done")]
    Done {
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        stream_key: String,
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", max_length = 255)]
        client_id: Option<String>,
    },
    /// A player wants to play.
    #[serde(rename = "on_play")]
    Play {
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        playback_id: String,
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", max_length = 255)]
        client_id: Option<String>,
    },
    /// A player has left.
    #[serde(rename = "on_play_done")]
    PlayDone {
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        playback_id: String,
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", max_length = 255)]
        client_id: Option<String>,
    },
    /// A file was recorded.
    #[serde(rename = "on_record_done")]
    RecordDone {
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        playback_id: String,
        #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
        path: String,
    },
}

/// What whoever posts JSON is answered: `code` is what SRS wants to see.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is described, not used")]
struct CallbackAnswer {
    /// 0: go on.
    #[schema(example = 0)]
    code: u8,
    /// What was decided and why, in words. Not for SRS.
    verdict: Option<String>,
}

/// A media server's callback.
///
/// nginx-rtmp posts a form; the field `call` says what happened (`publish`, `update_publish`, `play`, `done`,
/// `record_done`, …). SRS posts JSON with an `action`; MediaMTX asks with JSON who may do what, and its hooks tell with
/// `?event=available|unavailable|read|unread|segment&path=…`. Anything else can post the JSON described here.
///
/// Whoever calls shows the secret in the header `X-Webhook-Secret`, in `?secret=`, or as the last part of the path; or signs
/// the body with it; or comes from an address that needs none. What is signed only is read from the body only.
///
/// A `2xx` lets the encoder or player go on, `302` hands a broadcast on under its public name, anything else disconnects
/// it.
#[utoipa::path(
    post,
    path = "/api/v1/webhook/stream-event",
    tag = "webhook",
    params(
        ("X-Webhook-Secret" = Option<String>, Header, description = "The shared secret"),
        ("X-Webhook-Signature" = Option<String>, Header, description = "`sha256=` and the HMAC-SHA256 of the body with the secret, in hexadecimal"),
        ("X-Media-Server" = Option<String>, Header, description = "Which media server calls, where there are several"),
        ("X-Media-Server-Started" = Option<String>, Header, description = "Which run of it: connections are numbered anew in each"),
        ("secret" = Option<String>, Query, description = "The shared secret, where no header can be set"),
        ("server" = Option<String>, Query, description = "Which media server calls, where no header can be set"),
    ),
    request_body(content(
        (CallbackForm = "application/x-www-form-urlencoded"),
        (CallbackJson = "application/json"),
    )),
    responses(
        (status = 200, description = "Go on, to whoever posts JSON", body = CallbackAnswer),
        (status = 204, description = "Go on"),
        (status = 302, description = "Publish accepted: relay to `Location`"),
        (status = 400, description = "`bad-request`: not a callback"),
        (status = 401, description = "`webhook-secret-wrong`, or `stream-key-missing`"),
        (status = 403, description = "`wrong-stream-key`, `broadcast-ended`, `sent-away`, `not-its-name`, or `forbidden`"),
        (status = 404, description = "`no-such-stream`: nothing is played under this name"),
        (status = 409, description = "`already-live`: another encoder is on air with this key"),
        (status = 413, description = "`body-too-large`"),
    )
)]
#[tracing::instrument(name = "stream.webhook.receive", skip_all)]
pub(crate) async fn stream_event(
    app: web::Data<App>,
    request: HttpRequest,
    body: web::Payload,
) -> Result<HttpResponse, StreamError> {
    let received_at = app.clock.now();
    let address = proof::address_of(&request);
    let stranger = |why| {
        app.call_log.keep_stranger(of_stranger(received_at, address, why));
        Err(StreamError::WrongSecret(why))
    };
    let is_shown = proof::is_shown(&app.config, &request, address);
    let signature = header(&request, proof::SIGNATURE_HEADER);
    if !is_shown && signature.is_none() {
        return stranger("the callback shows no secret that is known here, and no signature");
    }
    let too_large = || kinds::BODY_TOO_LARGE.say(format!("a callback has at most {LONGEST_BODY} bytes"));
    let body = body.to_bytes_limited(LONGEST_BODY).await.map_err(|_exceeded| too_large())?;
    let body = body.map_err(|_broken| kinds::BAD_REQUEST.say("the body did not arrive whole"))?;
    if signature.is_some_and(|signature| !proof::is_signed(&app.config, signature, &body)) {
        return stranger("the signature is not that of the body with a secret that is known here");
    }
    // The query is not signed: anybody on the way can have written it.
    let query = if is_shown { request.query_string() } else { "" };
    let read = dialect::read(&body, query, app.config.relay_app());
    let media_server = media_server(&request, query, &read);
    let said = settle(&app, &media_server, &read).await;
    let status = said.result.as_ref().map_or_else(|problem| problem.kind().status, |answer| answer.status().as_u16());
    let entry = Entry {
        received_at,
        dialect: Some(read.dialect),
        media_server: media_server.name,
        server_run: media_server.run,
        client_address: address.map(|address| address.to_string()),
        call: read.word,
        fields: Value::Object(read.fields),
        understood: said.understood,
        stream_id: said.stream_id,
        status,
        verdict: said.verdict,
    };
    log(&entry);
    app.call_log.keep(entry);
    Ok(said.result?)
}

/// What a call is answered, and what is kept of that.
struct Said {
    result: Result<HttpResponse, Problem>,
    verdict: String,
    understood: Option<Understood>,
    stream_id: Option<StreamId>,
}

async fn settle(app: &App, media_server: &MediaServer, read: &Read) -> Said {
    let call = match &read.call {
        Ok(Some(call)) => call,
        Ok(None) => {
            let verdict = "nothing follows from it".to_owned();
            let result = Ok(answer(app, read.dialect, Answer::Fine, &verdict));
            return Said { result, verdict, understood: None, stream_id: None };
        }
        Err(error) => {
            let verdict = format!("refused: {error}");
            let result = Err(StreamError::from(error.clone()).into());
            return Said { result, verdict, understood: None, stream_id: None };
        }
    };
    match app.calls.settle(Report { media_server: media_server.clone(), call: call.clone() }).await {
        Ok(outcome) => {
            // The connection's name in it may be anything where scripts call.
            let verdict = dialect::shown(&outcome.verdict, &[]);
            let result = match outcome.answer {
                Ok(fine) => Ok(answer(app, read.dialect, fine, &verdict)),
                Err(refusal) => Err(StreamError::Refused(refusal, verdict.clone()).into()),
            };
            let understood = Some(Understood::of(call, outcome.key_id));
            Said { result, verdict, understood, stream_id: outcome.stream_id }
        }
        Err(error) => {
            let verdict = format!("not decided: {error}");
            Said { result: Err(error.into()), verdict, understood: None, stream_id: None }
        }
    }
}

/// What the media server understands as "go on".
pub(super) fn answer(app: &App, dialect: Dialect, answer: Answer, verdict: &str) -> HttpResponse {
    match (dialect, answer) {
        (Dialect::NginxRtmp, Answer::PublishAs(playback_id)) => {
            let address = format!("{}/{playback_id}", app.config.relay_url);
            HttpResponse::Found().insert_header((LOCATION, address)).finish()
        }
        (Dialect::NginxRtmp, Answer::Fine) | (Dialect::MediaMtx, _) => HttpResponse::NoContent().finish(),
        // It refuses any other status than 200 and 201, and any other code.
        (Dialect::Srs, _) => HttpResponse::Ok().json(json!({"code": 0})),
        (Dialect::Documented, _) => HttpResponse::Ok().json(json!({"code": 0, "verdict": verdict})),
    }
}

/// Who calls. SRS says it in what it sends.
fn media_server(request: &HttpRequest, query: &str, read: &Read) -> MediaServer {
    let is_name = |text: &&str| !text.is_empty() && text.len() <= LONGEST_NAME && !text.chars().any(char::is_control);
    let in_header = |name| header(request, name).filter(is_name).map(str::to_owned);
    let in_query = || {
        let mut query = form_urlencoded::parse(query.as_bytes());
        query
            .find(|(name, _)| name == "server")
            .filter(|(_, value)| is_name(&&**value))
            .map(|(_, value)| value.into_owned())
    };
    let name = in_header(SERVER_HEADER).or_else(in_query).or_else(|| read.server_name.clone());
    let run = in_header(RUN_HEADER).or_else(|| read.server_run.clone());
    MediaServer { name: name.unwrap_or_else(|| "default".to_owned()), run: run.unwrap_or_default() }
}

/// A call of somebody who is no media server of ours: nothing of it was looked at.
fn of_stranger(received_at: DateTime<Utc>, address: Option<IpAddr>, why: &str) -> Entry {
    Entry {
        received_at,
        dialect: None,
        media_server: String::new(),
        server_run: String::new(),
        client_address: address.map(|address| address.to_string()),
        call: String::new(),
        fields: json!({}),
        understood: None,
        stream_id: None,
        status: StatusCode::UNAUTHORIZED.as_u16(),
        verdict: format!("refused: {why}"),
    }
}

fn log(entry: &Entry) {
    let Entry { media_server, call, status, verdict, .. } = entry;
    let dialect = entry.dialect.map(Dialect::as_str);
    let stream_id = entry.stream_id.map(|id| id.0);
    if entry.is_routine() {
        tracing::debug!(dialect, media_server, call, stream_id, status, verdict, "a media server called");
    } else {
        tracing::info!(dialect, media_server, call, stream_id, status, verdict, "a media server called");
    }
}

pub(super) fn header<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}
