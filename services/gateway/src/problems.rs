//! The problems that the gateway itself answers with, beside those that every service has.

use std::time::Duration;

use actix_web::error::PayloadError;
use common::Problem;
use common::problem::kinds;

use crate::table::Route;
use crate::upstream::{Fault, UpstreamError};

common::problems! {
    /// The path has empty or dotted segments, a backslash, or slashes, dots or control characters in disguise (`%2F`,
    /// `%2E`, `%00`). Send it in its plain form.
    CROOKED_PATH = 400 "crooked-path" "Path not in its plain form";
    /// The request asks for a WebSocket in a way that is not one: by another method than GET, with a body, in HTTP/1.0,
    /// or without `Connection: Upgrade`.
    CROOKED_UPGRADE = 400 "crooked-upgrade" "Not a WebSocket handshake";
    /// A page of another origin made a browser send this with the cookies of its visitor, or open a WebSocket. Its origin is
    /// not among `ALLOWED_ORIGINS`.
    FOREIGN_ORIGIN = 403 "foreign-origin" "Origin not allowed";
    /// The path with its query is too long.
    URI_TOO_LONG = 414 "uri-too-long" "Path and query too long";
    /// Too many requests came from this address, or of this user. `Retry-After` says when the next is taken.
    TOO_MANY_REQUESTS = 429 "too-many-requests" "Too many requests";
    /// The headers of the request are too large, all together.
    HEAD_TOO_LARGE = 431 "head-too-large" "Headers too large";
    /// The service that this path belongs to is not part of this installation.
    NOT_INSTALLED = 503 "not-installed" "Service not installed";
    /// The body of the request stopped arriving halfway. Send the request again, whole; the connection is closed.
    REQUEST_STALLED = 408 "request-stalled" "Request body stopped arriving";
    /// The service behind the gateway broke off, or answered with something that is not HTTP. The request may have taken
    /// effect: look before you repeat it.
    BAD_GATEWAY = 502 "bad-gateway" "No valid answer from the service";
    /// The service behind the gateway did not answer in time. The request may have taken effect: look before you repeat
    /// it.
    UPSTREAM_TIMEOUT = 504 "upstream-timeout" "No answer from the service in time";
}

/// When a client should try again after a service could not be reached.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// An upstream failed; for the log.
#[derive(Debug, thiserror::Error)]
#[error("{service}")]
struct Failed {
    service: &'static str,
    source: UpstreamError,
}

/// A body that has more than `max_bytes` bytes.
#[must_use]
pub fn body_too_large(max_bytes: u64) -> Problem {
    kinds::BODY_TOO_LARGE.say(format!("the body may have at most {max_bytes} bytes")).with("max_bytes", max_bytes)
}

/// What a client may see of `error`, which came of passing a request on along `route`.
#[must_use]
pub fn of_upstream(route: &Route, error: UpstreamError) -> Problem {
    let problem = match &error.fault {
        Fault::NoInstance { retry_after } => kinds::UNAVAILABLE
            .say("the service takes no requests for now, and this one was not sent: try again")
            // A header of whole seconds, so the next one, lest they come too soon.
            .retry_after(Duration::from_secs(retry_after.as_millis().div_ceil(1000) as u64)),
        Fault::Connect(_) => {
            kinds::UNAVAILABLE.say("the service cannot be reached for now: try again").retry_after(RETRY_AFTER)
        }
        Fault::Client(PayloadError::Overflow) => body_too_large(route.max_body),
        Fault::Client(_) => kinds::BAD_REQUEST.say("the body did not arrive whole"),
        Fault::Stalled(patience) => REQUEST_STALLED
            .say(format!("nothing more of the body came for {patience:?}: send the request again, whole")),
        Fault::Silent(_) => UPSTREAM_TIMEOUT.say("the request may have taken effect: look before you repeat it"),
        Fault::BrokenOff(_) | Fault::Malformed(_) | Fault::TooLarge(_) => {
            BAD_GATEWAY.say("the request may have taken effect: look before you repeat it")
        }
    };
    problem.caused_by(Failed { service: route.service.name(), source: error })
}
