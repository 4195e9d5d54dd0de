//! What MediaMTX asks (`authMethod: http`, `internal/auth/manager.go`) and what its configuration has it tell us, with a
//! line of shell for each hook (`internal/hooks/`):
//!
//! ```yaml
//! runOnAvailable: curl -X POST -H "X-Webhook-Secret: …" "http://…/webhook/stream-event?event=available&path=$MTX_PATH&source_id=$MTX_SOURCE_ID"
//! ```
//!
//! MediaMTX hands nothing on: viewers ask for the path that an encoder publishes to. So that is the playback id, and the
//! key comes as the password or the token.

use crate::call::{Call, Name, What};
use crate::dialect::fields::{Fields, Shown};
use crate::dialect::{NoCall, Said};
use crate::domain::StreamKey;

const QUESTION: &[(&str, Shown)] = &[
    ("action", Shown::Plain),
    ("path", Shown::Name),
    ("protocol", Shown::Plain),
    ("id", Shown::Plain),
    ("ip", Shown::Plain),
    ("user", Shown::Hidden),
    ("password", Shown::Hidden),
    ("token", Shown::Hidden),
    ("query", Shown::Hidden),
    ("userAgent", Shown::Plain),
];

const HOOK: &[(&str, Shown)] = &[
    ("event", Shown::Plain),
    ("path", Shown::Name),
    ("source_id", Shown::Plain),
    ("source_type", Shown::Plain),
    ("reader_id", Shown::Plain),
    ("reader_type", Shown::Plain),
    ("segment_path", Shown::Plain),
    ("segment_duration", Shown::Plain),
];

/// Whether somebody may do something.
pub(super) fn read_question(fields: &Fields) -> Said {
    Said { word: "action", call: question(fields), shown: QUESTION }
}

fn question(fields: &Fields) -> Result<Option<Call>, NoCall> {
    let client_id = fields.optional("id")?.unwrap_or_default();
    let path = fields.need("path")?;
    let what = match fields.need("action")? {
        "publish" => {
            let key = key_of(fields).ok_or(NoCall::NoKey)?;
            What::Publish { name: Name::Key(StreamKey::of(&key)), under: Some(path.to_owned()) }
        }
        // It asks for everybody who plays, more than once for some, and does not tell who has left: hooks count.
        "read" | "playback" => What::MayPlay { name: Name::of(path) },
        _ => return Err(NoCall::NotOurs),
    };
    Ok(Some(Call { client_id, what }))
}

/// The key, wherever the encoder can be told to put one.
fn key_of(fields: &Fields) -> Option<String> {
    let credentials = ["password", "token"].into_iter().filter_map(|name| fields.first(name)).map(str::to_owned);
    let query = fields.first("query").unwrap_or_default();
    let in_query = form_urlencoded::parse(query.strip_prefix('?').unwrap_or(query).as_bytes())
        .filter(|(name, _)| matches!(&**name, "key" | "token" | "pass"))
        .map(|(_, key)| key.into_owned());
    credentials.chain(in_query).find(|key| !key.is_empty())
}

/// What has happened.
pub(super) fn read_hook(fields: &Fields) -> Said {
    Said { word: "event", call: hook(fields), shown: HOOK }
}

fn hook(fields: &Fields) -> Result<Option<Call>, NoCall> {
    let name = || fields.need("path").map(Name::of);
    let source = || fields.id(&["source_id"]);
    let reader = || fields.id(&["reader_id"]);
    // Whoever watches HLS tells us so itself.
    let is_hls = fields.first("reader_type").is_some_and(|kind| kind.starts_with("hls"));
    let (client_id, what) = match fields.need("event")? {
        "available" => (source()?, What::Confirm { name: name()? }),
        "unavailable" => (source()?, What::Leave { name: name()? }),
        "read" | "unread" if is_hls => return Ok(None),
        "read" => (reader()?, What::Play { name: name()? }),
        "unread" => (reader()?, What::Leave { name: name()? }),
        "segment" => {
            let (path, file) = (fields.need("path")?, fields.need("segment_path")?);
            return super::recorded(path, file.to_owned()).map(Some);
        }
        _ => return Ok(None),
    };
    Ok(Some(Call { client_id, what }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    const PUBLIC: Uuid = Uuid::from_u128(0x3b24_1101_e2bb_4255_8caf_4136_c566_a962);
    const CONNECTION: &str = "b5f3c1de-7a0c-4f6c-9d0e-0a1b2c3d4e5f";

    /// The fields and their order are those of `authenticateHTTP`.
    fn ask(action: &str, protocol: &str, change: &[(&str, Value)]) -> Result<Option<Call>, NoCall> {
        let mut body = json!({
            "ip": "192.0.2.7", "user": "", "password": "", "token": "", "action": action, "path": PUBLIC,
            "protocol": protocol, "id": CONNECTION, "query": "", "userAgent": "",
        });
        for (name, value) in change {
            body[*name] = value.clone();
        }
        question(&Fields::of_json(body.to_string().as_bytes()).unwrap())
    }

    fn tell(query: &str) -> Result<Option<Call>, NoCall> {
        hook(&Fields::of_form(b"", query))
    }

    #[test]
    fn the_key_is_taken_from_wherever_an_encoder_can_put_it() {
        let what = What::Publish { name: Name::of("key123"), under: Some(PUBLIC.to_string()) };
        let expected = Some(Call { client_id: CONNECTION.to_owned(), what });
        for (name, value) in [
            ("password", "key123"),
            ("token", "key123"),
            ("query", "key=key123"),
            ("query", "user=ana&pass=key123"),
            ("query", "token=key123"),
        ] {
            assert_eq!(ask("publish", "rtmp", &[(name, json!(value))]).unwrap(), expected, "{name}={value}");
        }
        assert_eq!(ask("publish", "rtsp", &[]), Err(NoCall::NoKey));
        assert_eq!(ask("publish", "rtsp", &[("user", json!("ana"))]), Err(NoCall::NoKey));
    }

    #[test]
    fn players_may_ask_and_are_counted_by_hooks_alone() {
        for (action, protocol) in [("read", "rtmp"), ("read", "hls"), ("playback", "hls")] {
            let call = ask(action, protocol, &[("id", Value::Null)]).unwrap().unwrap();
            assert_eq!(call, Call { client_id: String::new(), what: What::MayPlay { name: Name::Public(PUBLIC) } });
        }
    }

    #[test]
    fn what_is_not_of_streams_is_not_allowed() {
        for action in ["api", "metrics", "pprof", ""] {
            assert_eq!(ask(action, "", &[("path", json!(""))]), Err(NoCall::NotOurs), "{action}");
        }
    }

    #[test]
    fn hooks_are_read_as_the_shell_sends_them() {
        let of = |client_id: &str, what| Some(Call { client_id: client_id.to_owned(), what });
        let name = || Name::Public(PUBLIC);
        let path = format!("path={PUBLIC}");
        let cases = [
            (format!("event=available&{path}&source_id=c1"), of("c1", What::Confirm { name: name() })),
            (format!("event=unavailable&{path}&source_id=c1"), of("c1", What::Leave { name: name() })),
            (format!("event=read&{path}&reader_id=r1"), of("r1", What::Play { name: name() })),
            (format!("event=unread&{path}&reader_id=r1"), of("r1", What::Leave { name: name() })),
            (format!("event=read&{path}&reader_id=r1&reader_type=hlsSession"), None),
            (
                format!("event=segment&{path}&segment_path=/rec/{PUBLIC}/2026-11-21_10-00-00-000000.mp4"),
                of("", What::Recorded { name: name(), path: format!("/rec/{PUBLIC}/2026-11-21_10-00-00-000000.mp4") }),
            ),
            (format!("event=demand&{path}"), None),
        ];
        for (query, expected) in cases {
            assert_eq!(tell(&query).unwrap(), expected, "{query}");
        }
        assert_eq!(tell(&format!("event=available&{path}")), Err(NoCall::Missing("source_id")));
        assert_eq!(tell("event=available&source_id=c1"), Err(NoCall::Missing("path")));
    }
}
