//! What media servers send, each in its own dialect, as the one [`Call`] that the rest of the service understands.
//!
//! Nobody says which dialect it speaks: it is told from the fields.

mod documented;
mod fields;
mod mediamtx;
mod nginx_rtmp;
mod srs;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::call::{Call, Name, What};
use crate::dialect::fields::{Fields, Shown};

pub(crate) use crate::dialect::fields::shown;

/// How a media server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// The forms of nginx-rtmp.
    NginxRtmp,
    /// The JSON of SRS.
    Srs,
    /// MediaMTX: its questions about who may do what, and the hooks that its configuration calls us with.
    #[serde(rename = "mediamtx")]
    MediaMtx,
    /// The JSON of our own document: `{"event": "on_publish", …}`.
    Documented,
}

impl Dialect {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NginxRtmp => "nginx-rtmp",
            Self::Srs => "srs",
            Self::MediaMtx => "mediamtx",
            Self::Documented => "documented",
        }
    }

    /// The one that [`Self::as_str`] calls so.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::NginxRtmp, Self::Srs, Self::MediaMtx, Self::Documented].into_iter().find(|one| one.as_str() == name)
    }
}

/// Why nothing can be made of what a media server sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCall {
    #[error("the body is no JSON object")]
    NotJson,
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{0}` has control characters")]
    ControlCharacters(&'static str),
    #[error("`{0}` has more than {LONGEST_NAME} bytes")]
    TooLong(&'static str),
    /// It wants to publish, and did not say with which key.
    #[error(
        "no stream key came with it: publish as `<playback id>?key=<stream key>`, or as the media server asks for it"
    )]
    NoKey,
    /// MediaMTX asks about what is not ours to allow.
    #[error("who may use this action of MediaMTX is not decided here: leave it out (`authHTTPExclude`)")]
    NotOurs,
    /// Everybody who is told of the recording would have the key.
    #[error("the file is named after the stream key: record where the broadcast has its public name")]
    NamedByKey,
}

/// Names of connections and media servers are no longer than this.
const LONGEST_NAME: usize = 255;

/// What a media server sent.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) dialect: Dialect,
    /// Its own word for what happened.
    pub(crate) word: String,
    /// As it came, as far as it may be kept: without keys and secrets.
    pub(crate) fields: Map<String, Value>,
    /// `None`: nothing follows from it.
    pub(crate) call: Result<Option<Call>, NoCall>,
    /// What it calls itself, where it says so in what it sends.
    pub(crate) server_name: Option<String>,
    /// Which run of it this is, where it says so.
    pub(crate) server_run: Option<String>,
}

/// What one dialect makes of fields.
struct Said {
    word: &'static str,
    call: Result<Option<Call>, NoCall>,
    /// The fields that may be kept, and how.
    shown: &'static [(&'static str, Shown)],
}

/// Reads what a media server has sent, in the body or, where that has nothing, in the query. `relay_app` is the application
/// of nginx-rtmp where broadcasts are handed on to.
pub(crate) fn read(body: &[u8], query: &str, relay_app: &str) -> Read {
    let is_json = body.trim_ascii_start().starts_with(b"{");
    let fields = match is_json {
        true => Fields::of_json(body),
        false => Ok(Fields::of_form(body, query)),
    };
    let fields = match fields {
        Ok(fields) => fields,
        Err(error) => {
            let (dialect, word, fields) = (Dialect::Documented, String::new(), Map::new());
            return Read { dialect, word, fields, call: Err(error), server_name: None, server_run: None };
        }
    };
    let has = |name| fields.first(name).is_some();
    let is_ours = |event: &str| event.starts_with("on_");
    let (dialect, said) = match fields.first("event") {
        // A publisher of nginx-rtmp may add any field; `call` is always there.
        _ if !is_json && has("call") => (Dialect::NginxRtmp, nginx_rtmp::read(&fields, relay_app)),
        _ if is_json && has("action") && has("protocol") => (Dialect::MediaMtx, mediamtx::read_question(&fields)),
        _ if is_json && has("action") => (Dialect::Srs, srs::read(&fields)),
        Some(event) if is_ours(event) || is_json => (Dialect::Documented, documented::read(&fields)),
        Some(_) => (Dialect::MediaMtx, mediamtx::read_hook(&fields)),
        None if is_json => (Dialect::Documented, documented::read(&fields)),
        None => (Dialect::NginxRtmp, nginx_rtmp::read(&fields, relay_app)),
    };
    let named = |name| match dialect {
        // What cannot be a name is none.
        Dialect::Srs => fields.optional(name).ok().flatten(),
        Dialect::NginxRtmp | Dialect::MediaMtx | Dialect::Documented => None,
    };
    let (server_name, server_run) = (named("server_id"), named("service_id"));
    Read {
        dialect,
        word: shown(fields.first(said.word).unwrap_or_default(), &[]),
        fields: fields.redacted(said.shown),
        call: said.call,
        server_name,
        server_run,
    }
}

/// A file was recorded of the stream that has this name.
fn recorded(name: &str, path: String) -> Result<Call, NoCall> {
    let is_named = |key: &str| !key.is_empty() && path.contains(key);
    let name = match Name::of(name) {
        Name::Key(_) if is_named(name) => return Err(NoCall::NamedByKey),
        _ if fields::has_key(&path) => return Err(NoCall::NamedByKey),
        name => name,
    };
    Ok(Call { client_id: String::new(), what: What::Recorded { name, path } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialect(body: &str, query: &str) -> Dialect {
        read(body.as_bytes(), query, "watch").dialect
    }

    #[test]
    fn the_dialect_is_told_from_the_fields() {
        let cases = [
            ("app=live&call=publish&name=x&clientid=1&event=available", "", Dialect::NginxRtmp),
            ("", "event=available&path=x&source_id=1", Dialect::MediaMtx),
            ("event=unavailable&path=x&source_id=1", "", Dialect::MediaMtx),
            (r#"{"action": "on_publish", "client_id": "1"}"#, "", Dialect::Srs),
            (r#"{"action": "publish", "path": "x", "protocol": "rtmp"}"#, "", Dialect::MediaMtx),
            (r#" {"event": "on_done"}"#, "event=available", Dialect::Documented),
            ("event=on_done&streamKey=x", "", Dialect::Documented),
            ("{", "", Dialect::Documented),
            ("", "", Dialect::NginxRtmp),
        ];
        for (body, query, expected) in cases {
            assert_eq!(dialect(body, query), expected, "{body} {query}");
        }
        for one in [Dialect::NginxRtmp, Dialect::Srs, Dialect::MediaMtx, Dialect::Documented] {
            assert_eq!(Dialect::named(one.as_str()), Some(one));
            assert_eq!(serde_json::to_value(one).unwrap(), one.as_str());
        }
    }
}
