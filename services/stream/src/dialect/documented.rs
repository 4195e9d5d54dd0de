//! The calls of our own document, for media servers and scripts that can be made to send them: `{"event": "on_publish",
//! "streamKey": …, "clientId": …}`. Fields may be written with capitals or with underscores.

use crate::call::{Call, Name, What};
use crate::dialect::fields::{Fields, Shown};
use crate::dialect::{NoCall, Said};
use crate::domain::StreamKey;

const SHOWN: &[(&str, Shown)] = &[
    ("event", Shown::Plain),
    ("streamKey", Shown::Name),
    ("stream_key", Shown::Name),
    ("name", Shown::Name),
    ("playbackId", Shown::Name),
    ("playback_id", Shown::Name),
    ("clientId", Shown::Plain),
    ("client_id", Shown::Plain),
    ("path", Shown::Plain),
];

const KEY: &[&str] = &["streamKey", "stream_key", "name"];
const NAME: &[&str] = &["streamKey", "stream_key", "playbackId", "playback_id", "name"];
const PUBLIC_NAME: &[&str] = &["playbackId", "playback_id", "name", "streamKey", "stream_key"];

pub(super) fn read(fields: &Fields) -> Said {
    Said { word: "event", call: call(fields), shown: SHOWN }
}

fn call(fields: &Fields) -> Result<Option<Call>, NoCall> {
    let name = |names| fields.need_any(names).map(Name::of);
    let what = match fields.need("event")? {
        "on_publish" => What::Publish { name: Name::Key(StreamKey::of(fields.need_any(KEY)?)), under: None },
        "on_update" => What::Heartbeat { name: name(NAME)? },
        "on_done" | "on_publish_done" | "on_play_done" => What::Leave { name: name(NAME)? },
        "on_play" => What::Play { name: name(PUBLIC_NAME)? },
        "on_record_done" => {
            return super::recorded(fields.need_any(PUBLIC_NAME)?, fields.need("path")?.to_owned()).map(Some);
        }
        _ => return Ok(None),
    };
    let client_id = fields.optional_any(&["clientId", "client_id"])?.unwrap_or_default();
    Ok(Some(Call { client_id, what }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(body: &Value) -> Result<Option<Call>, NoCall> {
        call(&Fields::of_json(body.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn events_are_read_as_they_are_documented_in_either_casing() {
        let of = |client_id: &str, what| Some(Call { client_id: client_id.to_owned(), what });
        let name = || Name::of("key123");
        let public = "3b241101-e2bb-4255-8caf-4136c566a962";
        let publish = || What::Publish { name: name(), under: None };
        let cases = [
            (json!({"event": "on_publish", "streamKey": "key123", "clientId": "7"}), of("7", publish())),
            (json!({"event": "on_publish", "stream_key": "key123", "client_id": 7}), of("7", publish())),
            (json!({"event": "on_publish", "name": "key123"}), of("", publish())),
            (json!({"event": "on_update", "streamKey": "key123"}), of("", What::Heartbeat { name: name() })),
            (json!({"event": "on_done", "name": "key123"}), of("", What::Leave { name: name() })),
            (json!({"event": "on_play_done", "playbackId": public}), of("", What::Leave { name: Name::of(public) })),
            (
                json!({"event": "on_play", "playback_id": public, "clientId": "9"}),
                of("9", What::Play { name: Name::of(public) }),
            ),
            (
                json!({"event": "on_record_done", "name": public, "path": "/rec/1.flv"}),
                of("", What::Recorded { name: Name::of(public), path: "/rec/1.flv".into() }),
            ),
            (json!({"event": "on_tea"}), None),
        ];
        for (body, expected) in cases {
            assert_eq!(parse(&body).unwrap(), expected, "{body}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(parse(&json!({})), Err(NoCall::Missing("event")));
        assert_eq!(parse(&json!({"event": "on_publish"})), Err(NoCall::Missing("streamKey")));
        assert_eq!(parse(&json!({"event": "on_publish", "name": "a\0"})), Err(NoCall::ControlCharacters("name")));
        assert_eq!(parse(&json!({"event": "on_record_done", "name": "x"})), Err(NoCall::Missing("path")));
    }
}
