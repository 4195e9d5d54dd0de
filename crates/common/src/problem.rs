//! The one error format on the wire: RFC 9457, `application/problem+json`.
//!
//! A [`Kind`] is what an error *is* (status, code, title, explanation) and stands in
//! `proto-docs/problems.md`; a [`Problem`] is one occurrence, with its own detail.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Map, Value, json};

use crate::trace::Trace;

/// What an error is. Declared with [`problems!`](crate::problems), so that each stands in the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub status: u16,
    /// Stable, for programs: `no-such-stream`.
    pub code: &'static str,
    /// For people; the same at every occurrence.
    pub title: &'static str,
    /// When it happens and what to do: the paragraph in `proto-docs/problems.md`.
    pub explanation: &'static str,
}

impl Kind {
    /// An occurrence with nothing more to say than the title.
    #[must_use]
    pub fn problem(self) -> Problem {
        Problem(Box::new(Occurrence {
            kind: self,
            detail: Cow::Borrowed(self.title),
            extras: Map::new(),
            retry_after: None,
            source: None,
        }))
    }

    /// An occurrence that tells the reader what to do.
    #[must_use]
    pub fn say(self, detail: impl fmt::Display) -> Problem {
        let mut problem = self.problem();
        problem.0.detail = Cow::Owned(detail.to_string());
        problem
    }
}

/// Declares kinds of problems as constants, and `ALL`, the list that the documents are made from.
///
/// ```
/// common::problems! {
///     /// Why it happens, and what to do.
///     NO_SUCH_ROOM = 404 "no-such-room" "No such room";
/// }
/// assert_eq!(ALL[0].explanation, " Why it happens, and what to do.");
/// ```
#[macro_export]
macro_rules! problems {
    ($($(#[doc = $explanation:literal])+ $name:ident = $status:literal $code:literal $title:literal;)*) => {
        $(
            $(#[doc = $explanation])+
            pub const $name: $crate::Kind = $crate::Kind {
                status: $status,
                code: $code,
                title: $title,
                explanation: concat!($($explanation),+),
            };
        )*

        /// Every problem declared here.
        pub const ALL: &[$crate::Kind] = &[$($name),*];
    };
}

pub mod kinds {
    //! The problems that every service can answer with.
    crate::problems! {
        /// No token was sent. Log in, and send the cookie `auth_token` or `Authorization: Bearer`.
        TOKEN_MISSING = 401 "token-missing" "Not logged in";
        /// A token was sent, but it is not one of ours, or not meant for here. Log in again.
        TOKEN_INVALID = 401 "token-invalid" "Token not valid";
        /// The token was good once, but its time is over. Log in again.
        TOKEN_EXPIRED = 401 "token-expired" "Token expired";
        /// The token was good, but its session has ended: logged out here or elsewhere, or by an administrator. Log in again.
        SESSION_ENDED = 401 "session-ended" "Session ended";
        /// The caller is known, but not allowed to do this.
        FORBIDDEN = 403 "forbidden" "Not allowed";
        /// The path, the query or the body cannot be read: not JSON, a field missing or of the wrong type.
        BAD_REQUEST = 400 "bad-request" "Request cannot be read";
        /// No resource has this path.
        NO_SUCH_PATH = 404 "no-such-path" "No such path";
        /// The path exists, but not for this method.
        METHOD_NOT_ALLOWED = 405 "method-not-allowed" "Method not allowed";
        /// The body is larger than this path takes.
        BODY_TOO_LARGE = 413 "body-too-large" "Body too large";
        /// The body is not of a type that this path takes.
        UNSUPPORTED_MEDIA_TYPE = 415 "unsupported-media-type" "Unsupported media type";
        /// The body was read, but some fields have values that are not allowed. `fields` names each with the reason.
        INVALID_FIELDS = 422 "invalid-fields" "Fields not valid";
        /// Something failed on our side. The log has the cause under the same `trace_id`.
        INTERNAL = 500 "internal" "Internal error";
        /// Something this request needs is away for now. Try again after `Retry-After`; look first whether it took
        /// effect, if doing it twice would hurt.
        UNAVAILABLE = 503 "unavailable" "Temporarily unavailable";
    }
}

/// One occurrence of an error, as a client sees it. Never carries our insides.
#[derive(Debug)]
pub struct Problem(Box<Occurrence>);

#[derive(Debug)]
struct Occurrence {
    kind: Kind,
    detail: Cow<'static, str>,
    extras: Map<String, Value>,
    retry_after: Option<Duration>,
    /// What is logged with a 5xx, and never sent.
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Problem {
    /// 500, with its cause for the log alone.
    pub fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        kinds::INTERNAL.problem().caused_by(cause)
    }

    /// 503, with `Retry-After` in whole seconds, at least 1, and its cause for the log alone.
    pub fn unavailable(retry_after: Duration, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        kinds::UNAVAILABLE.problem().retry_after(retry_after).caused_by(cause)
    }

    /// Adds a member of its own to the body.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl serde::Serialize) -> Self {
        self.0.extras.insert(name.to_owned(), json!(value));
        self
    }

    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// What the log should know about the cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(cause.into());
        self
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The body: `type`, `title`, `status`, `detail`, `code`, `trace_id`, and named extras.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = self.0.extras.clone();
        body.insert("type".into(), json!(format!("urn:amphi:problem:{}", self.0.kind.code)));
        body.insert("title".into(), json!(self.0.kind.title));
        body.insert("status".into(), json!(self.0.kind.status));
        body.insert("detail".into(), json!(self.0.detail));
        body.insert("code".into(), json!(self.0.kind.code));
        body.insert("trace_id".into(), json!(Trace::current().map(|trace| trace.id().to_string())));
        Value::Object(body)
    }

    fn log(&self) {
        if self.0.kind.status < 500 {
            return;
        }
        let cause = self.0.source.as_deref().map(|cause| chain(cause)).unwrap_or_default();
        let trace_id = Trace::current().map(|trace| trace.id().to_string());
        // Busy or away for now: whoever asked is told to come back, and nothing of ours is broken.
        if self.0.kind.status == 503 {
            tracing::warn!(code = self.0.kind.code, cause, trace_id, "{}", self.0.detail);
        } else {
            tracing::error!(code = self.0.kind.code, cause, trace_id, "{}", self.0.detail);
        }
    }
}

/// An error with everything that led to it, for the log.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.kind.status, self.0.kind.code, self.0.detail)
    }
}

impl Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    /// The response. A 5xx is logged here, once, with its cause: 503 as a warning, the others as errors.
    fn error_response(&self) -> HttpResponse {
        self.log();
        let mut response = HttpResponse::build(self.status());
        response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(after) = self.0.retry_after {
            response.insert_header((header::RETRY_AFTER, after.as_secs().max(1).to_string()));
        }
        if self.0.kind.status == 401 {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        response.body(self.body().to_string())
    }
}

/// Collects what is wrong with the fields of a body, so that a client learns all of it at once.
#[derive(Debug, Default)]
pub struct Invalid {
    fields: BTreeMap<&'static str, String>,
}

impl Invalid {
    pub fn field(&mut self, name: &'static str, reason: impl fmt::Display) {
        self.fields.entry(name).or_insert_with(|| reason.to_string());
    }

    /// `value`, or a 422 that names every field.
    pub fn or<T>(self, value: T) -> Result<T, Problem> {
        if self.fields.is_empty() { Ok(value) } else { Err(self.problem()) }
    }

    /// The 422 that names every field.
    #[must_use]
    pub fn problem(self) -> Problem {
        let detail = self.fields.iter().map(|(name, reason)| format!("{name} {reason}")).collect::<Vec<_>>().join("; ");
        kinds::INVALID_FIELDS.say(detail).with("fields", &self.fields)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use actix_web::body::to_bytes;
    use tracing::{Event, Level, Subscriber};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt as _};

    use super::*;

    #[actix_web::test]
    async fn a_5xx_says_nothing_about_its_cause() {
        let response = Problem::internal("password=hunter2").error_response();

        assert_eq!(response.status(), 500);
        assert_eq!(response.headers().get("content-type").unwrap(), "application/problem+json");
        let body = to_bytes(response.into_body()).await.unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("hunter2"));
    }

    /// The levels that are logged at, in their order.
    #[derive(Clone, Default)]
    struct Levels(Arc<Mutex<Vec<Level>>>);

    impl<S: Subscriber> Layer<S> for Levels {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }
    }

    #[test]
    fn what_is_broken_is_logged_as_an_error_and_what_is_busy_as_a_warning() {
        let levels = Levels::default();
        let problems = [
            Problem::internal("a bug"),
            Problem::unavailable(Duration::from_secs(1), "busy"),
            kinds::BAD_REQUEST.problem(),
        ];

        tracing::subscriber::with_default(tracing_subscriber::registry().with(levels.clone()), || {
            problems.iter().for_each(|problem| drop(problem.error_response()));
        });

        assert_eq!(*levels.0.lock().unwrap(), [Level::ERROR, Level::WARN]);
    }

    #[test]
    fn all_invalid_fields_are_named_at_once() {
        let mut invalid = Invalid::default();
        invalid.field("title", "is too long");
        invalid.field("limit", "must be from 1 to 100");

        let body = invalid.or(()).unwrap_err().body();

        assert_eq!(body["status"], 422);
        assert_eq!(body["fields"]["title"], "is too long");
        assert_eq!(body["fields"]["limit"], "must be from 1 to 100");
    }

    #[test]
    fn retry_after_is_never_zero() {
        let response = Problem::unavailable(Duration::from_millis(10), "away").error_response();
        assert_eq!(response.headers().get("retry-after").unwrap(), "1");
    }
}
