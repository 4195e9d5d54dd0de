//! Everything that is checked before a service hears of a request.

use actix_web::HttpResponse;
use actix_web::ResponseError as _;
use actix_web::dev::RequestHead;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode, Version};
use chassis::http::redact;
use common::problem::kinds;
use common::token::Carrier;
use common::{Problem, Verified};

use crate::client::Client;
use crate::origin::{self, Origin};
use crate::path;
use crate::problems::{
    CROOKED_PATH, CROOKED_UPGRADE, FOREIGN_ORIGIN, HEAD_TOO_LARGE, TOO_MANY_REQUESTS, URI_TOO_LONG, body_too_large,
};
use crate::rate::{Subject, Verdict};
use crate::router::Found;
use crate::table::{Limits, Methods};
use crate::upstream::RequestFraming;
use crate::worker::Gateway;

/// The longest path with its query, in bytes.
const LONGEST_TARGET: usize = 8 * 1024;
/// The most that all headers of a request may have, in bytes: names and values.
const LARGEST_HEAD: usize = 32 * 1024;
/// How many segments of an unknown path are logged: what comes later may be a secret that was sent to the wrong place.
const LOGGED_SEGMENTS: usize = 2;

/// What became known of a request, for its answer, the log and the metrics, whether it was admitted or not.
pub struct Notes {
    pub client: Client,
    pub origin: Origin,
    /// The pattern of its route.
    pub route: &'static str,
    /// Its path and query as they may be logged, where the usual redaction is not enough.
    pub target: Option<String>,
    pub is_embeddable: bool,
    /// The rate that leaves least.
    pub rate: Option<Verdict>,
}

impl Notes {
    #[must_use]
    pub fn new(gateway: &Gateway, head: &RequestHead, scheme: &'static str) -> Self {
        let client = gateway.config.proxies.client_of(head, scheme);
        let origin = gateway.config.origins.judge(head, &client);
        Self { client, origin, route: "none", target: None, is_embeddable: false, rate: None }
    }
}

/// A request that may go on to its service, if whoever sent it may.
pub struct Admitted<'a> {
    pub found: Found<'a>,
    pub framing: RequestFraming,
}

/// Why no service hears of a request.
pub enum Refusal {
    Problem(Problem),
    /// The table does not know the path.
    NoSuchPath(Problem),
    /// A method that the route does not let through.
    Method(Problem, Methods),
    /// No refusal at all: a browser asked what it may send, and is told.
    Preflight(Methods),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl Refusal {
    #[must_use]
    pub fn answer(self, head: &RequestHead) -> HttpResponse {
        match self {
            Self::Problem(problem) | Self::NoSuchPath(problem) => problem.error_response(),
            Self::Method(problem, methods) => {
                let mut answer = problem.error_response();
                answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods.allow()));
                answer
            }
            Self::Preflight(methods) => {
                let mut answer = HttpResponse::new(StatusCode::NO_CONTENT);
                origin::answer_preflight(methods.allow(), head, answer.headers_mut());
                answer
            }
        }
    }
}

/// Lets a request through, or says why not: what cannot be read (400, 414, 431), what is not there (404, 405), what comes too
/// often (429), and from the wrong page (403). Who sent it is looked at next, by [`identify`].
pub fn admit<'a>(gateway: &Gateway, head: &'a RequestHead, notes: &mut Notes) -> Result<Admitted<'a>, Refusal> {
    let path = head.uri.path();
    let query = head.uri.query().unwrap_or_default();
    path::check(path).map_err(|crooked| {
        notes.target = Some(redact(&beginning(path), query));
        CROOKED_PATH.say(crooked)
    })?;
    let Some(found) = gateway.router.find(path) else {
        notes.target = Some(redact(&beginning(path), query));
        return Err(Refusal::NoSuchPath(kinds::NO_SUCH_PATH.say(format!("nothing is at {path}"))));
    };
    let route = found.route;
    notes.target = found.logged.as_deref().map(|path| redact(path, query));
    notes.route = found.pattern;
    notes.is_embeddable = route.is_embeddable;
    check_size(head)?;
    if route.limits == Limits::Rates
        && let Some(address) = notes.client.address
    {
        count(gateway.per_address.count(address), notes)?;
    }
    let method = &head.method;
    let is_foreign = notes.origin == Origin::Foreign;
    if origin::is_preflight(head) {
        if is_foreign && !route.is_embeddable {
            return Err(foreign().into());
        }
        return Err(Refusal::Preflight(route.methods));
    }
    if !route.methods.contains(method) {
        let problem = kinds::METHOD_NOT_ALLOWED.say(format!("{method} is not possible at {}", found.pattern));
        return Err(Refusal::Method(problem, route.methods));
    }
    let framing = framing(head)?;
    // A page can make its visitor's browser send both of these with the visitor's cookies.
    let is_misusable =
        framing == RequestFraming::Upgrade || (!is_safe(method) && head.headers.contains_key(header::COOKIE));
    if is_foreign && is_misusable {
        return Err(foreign().into());
    }
    Ok(Admitted { found, framing })
}

/// Who sent a request, if its route asks or it opens a WebSocket: 401 if the route asks and nobody can tell, 429 if it is
/// somebody who asks too often, 413 if the body is too large. `token`: one that was had otherwise.
pub fn identify(
    gateway: &Gateway,
    head: &RequestHead,
    admitted: &Admitted<'_>,
    token: Option<&str>,
    notes: &mut Notes,
) -> Result<Option<Verified>, Problem> {
    let route = admitted.found.route;
    let is_needed = route.access.needs_token(&head.method);
    let verify = || match token {
        Some(token) => gateway.verifier.verify(token).map(|claims| Verified { claims, carrier: Carrier::Query }),
        None => gateway.verifier.caller(head, route.token_in_query),
    };
    let verified = match (is_needed, admitted.framing) {
        (true, _) => Some(verify().map_err(Problem::from)?),
        // A WebSocket ends with the session that it was opened in, whether the service asks for one or not.
        (false, RequestFraming::Upgrade) => verify().ok(),
        (false, _) => None,
    };
    if let (Limits::Rates, Some(verified)) = (route.limits, &verified) {
        count(gateway.per_user.count(Subject::User(verified.claims.sub)), notes)?;
    }
    match admitted.framing {
        RequestFraming::Length(length) if length > route.max_body => Err(body_too_large(route.max_body)),
        _ => Ok(verified),
    }
}

/// Counts a request, and keeps the verdict that leaves least for the answer.
fn count(verdict: Verdict, notes: &mut Notes) -> Result<(), Problem> {
    if notes.rate.is_none_or(|known| verdict.remaining < known.remaining || !verdict.is_allowed) {
        notes.rate = Some(verdict);
    }
    if verdict.is_allowed {
        return Ok(());
    }
    // In whole seconds, so rounded up: who comes when it says is let through.
    let wait = std::time::Duration::from_secs(verdict.reset.as_secs_f64().ceil() as u64);
    Err(TOO_MANY_REQUESTS
        .say(format!("at most {} requests are taken: wait and try again", verdict.limit))
        .retry_after(wait))
}

fn foreign() -> Problem {
    FOREIGN_ORIGIN.say("this page may not do that here: its origin is not among those that are allowed")
}

/// Whether a request with `method` changes nothing.
pub(crate) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn check_size(head: &RequestHead) -> Result<(), Problem> {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > LONGEST_TARGET {
        return Err(URI_TOO_LONG.say(format!("path and query may have at most {LONGEST_TARGET} bytes")));
    }
    let size: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if size > LARGEST_HEAD {
        return Err(HEAD_TOO_LARGE.say(format!("the headers may have at most {LARGEST_HEAD} bytes")));
    }
    Ok(())
}

/// The first segments of a path that nobody knows.
fn beginning(path: &str) -> String {
    match path.match_indices('/').nth(LOGGED_SEGMENTS) {
        Some((end, _)) => format!("{}/…", &path[..end]),
        None => path.to_owned(),
    }
}

/// How the body goes on to the service: as it came, but framed anew.
fn framing(head: &RequestHead) -> Result<RequestFraming, Problem> {
    let headers = &head.headers;
    let has_body = headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    if asks_for_websocket(headers) {
        // The server takes whatever follows such a head as it comes, so it has to be a handshake and nothing else.
        let is_handshake = head.method == Method::GET && head.version == Version::HTTP_11 && head.upgrade();
        if !is_handshake || has_body {
            return Err(
                CROOKED_UPGRADE.say("a WebSocket begins with GET in HTTP/1.1, `Connection: Upgrade` and no body")
            );
        }
        return Ok(RequestFraming::Upgrade);
    }
    // The server has refused requests with both, with either twice, or with a length that is not plain. It refuses other
    // codings too, but a service must never be told of chunks that the server did not read as such: so they are checked.
    if let Some(encoding) = headers.get(header::TRANSFER_ENCODING) {
        let is_chunked = head.version == Version::HTTP_11 && encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
        return if is_chunked {
            Ok(RequestFraming::Chunked)
        } else {
            Err(kinds::BAD_REQUEST.say("a body comes with `Content-Length`, or in HTTP/1.1 as `chunked`"))
        };
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.trim().parse().ok());
    Ok(match length {
        Some(length) => RequestFraming::Length(length),
        // HTTP/2 frames bodies by itself, and says nothing of one of unknown length.
        None if head.version == Version::HTTP_2 && !is_safe(&head.method) => RequestFraming::Chunked,
        None => RequestFraming::None,
    })
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(header::UPGRADE).any(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn only_plain_chunks_in_http_1_1_are_passed_on_as_chunks() {
        for (version, encoding, expected) in [
            (Version::HTTP_11, "chunked", Some(RequestFraming::Chunked)),
            (Version::HTTP_11, "Chunked", Some(RequestFraming::Chunked)),
            (Version::HTTP_11, "identity", None),
            (Version::HTTP_11, "gzip, chunked", None),
            (Version::HTTP_10, "chunked", None),
        ] {
            let request = TestRequest::post().version(version).insert_header(("transfer-encoding", encoding));
            assert_eq!(framing(request.to_http_request().head()).ok(), expected, "{version:?} {encoding}");
        }
    }

    #[test]
    fn an_unknown_path_is_logged_by_its_beginning() {
        for (path, shown) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/webhook/stream-events/hunter2", "/webhook/stream-events/…"),
            ("/a//hunter2/", "/a//…"),
            ("*", "*"),
        ] {
            assert_eq!(beginning(path), shown);
        }
    }
}
