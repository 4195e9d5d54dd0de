//! The problems that the gateway itself answers with, beside those that every service has.

use std::time::Duration;

use common::Problem;
use common::problem::kinds;

use crate::upstream::{Fault, UpstreamError};

common::problems! {
    /// The path has empty or dotted segments, a backslash, or slashes, dots or control characters in disguise (`%2F`,
    /// `%2E`, `%00`). Send it in its plain form.
    CROOKED_PATH = 400 "crooked-path" "Path not in its plain form";
    /// The request asks for a WebSocket in a way that is not one: by another method than GET, with a body, in HTTP/1.0,
    /// or without `Connection: Upgrade`.
    CROOKED_UPGRADE = 400 "crooked-upgrade" "Not a WebSocket handshake";
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

/// What a client may see of `error`, which came of passing a request to `service`.
#[must_use]
pub fn of_upstream(service: &'static str, error: UpstreamError) -> Problem {
    let problem = match &error.fault {
        Fault::NoInstance { retry_after } => kinds::UNAVAILABLE
            .say("the service fails for now, so it was not asked and nothing has happened: try again")
            .retry_after(*retry_after),
        Fault::Connect(_) => {
            kinds::UNAVAILABLE.say("the service cannot be reached for now: try again").retry_after(RETRY_AFTER)
        }
        Fault::Client(_) => kinds::BAD_REQUEST.say("the body did not arrive whole"),
        Fault::Stalled(patience) => REQUEST_STALLED
            .say(format!("nothing more of the body came for {patience:?}: send the request again, whole")),
        Fault::Silent(_) => UPSTREAM_TIMEOUT.say("the request may have taken effect: look before you repeat it"),
        Fault::BrokenOff(_) | Fault::Malformed(_) | Fault::TooLarge(_) => {
            BAD_GATEWAY.say("the request may have taken effect: look before you repeat it")
        }
    };
    problem.caused_by(Failed { service, source: error })
}
