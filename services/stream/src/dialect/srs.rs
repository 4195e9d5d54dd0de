//! What SRS says in its HTTP callbacks (`srs_app_http_hooks.cpp`).
//!
//! SRS hands nothing on: viewers ask for the name that an encoder publishes under. So that is the playback id, and the
//! key stands beside it: `rtmp://host/live/<playback id>?key=<stream key>`.

use crate::call::{Call, Name, What};
use crate::dialect::fields::{Fields, Shown};
use crate::dialect::{NoCall, Said};
use crate::domain::StreamKey;

const SHOWN: &[(&str, Shown)] = &[
    ("action", Shown::Plain),
    ("client_id", Shown::Plain),
    ("ip", Shown::Plain),
    ("vhost", Shown::Plain),
    ("app", Shown::Plain),
    ("stream", Shown::Name),
    ("param", Shown::Hidden),
    ("server_id", Shown::Plain),
    ("service_id", Shown::Plain),
    ("tcUrl", Shown::Address),
    ("pageUrl", Shown::Address),
    ("stream_url", Shown::Address),
    ("stream_id", Shown::Plain),
    ("send_bytes", Shown::Plain),
    ("recv_bytes", Shown::Plain),
    ("duration", Shown::Plain),
    ("cwd", Shown::Plain),
    ("file", Shown::Plain),
    ("url", Shown::Address),
    ("m3u8", Shown::Plain),
    ("m3u8_url", Shown::Address),
    ("seq_no", Shown::Plain),
];

pub(super) fn read(fields: &Fields) -> Said {
    Said { word: "action", call: call(fields), shown: SHOWN }
}

fn call(fields: &Fields) -> Result<Option<Call>, NoCall> {
    let name = || fields.need("stream").map(Name::of);
    let what = match fields.need("action")? {
        "on_publish" => publish(fields)?,
        "on_unpublish" | "on_stop" => What::Leave { name: name()? },
        "on_play" => What::Play { name: name()? },
        "on_dvr" => {
            let (stream, file) = (fields.need("stream")?, fields.need("file")?);
            return super::recorded(stream, absolute(file, fields.first("cwd"))).map(Some);
        }
        _ => return Ok(None),
    };
    Ok(Some(Call { client_id: fields.id(&["client_id"])?, what }))
}

fn publish(fields: &Fields) -> Result<What, NoCall> {
    let stream = fields.need("stream")?;
    let under = Some(stream.to_owned());
    Ok(match Name::of(stream) {
        Name::Public(_) => {
            let param = fields.first("param").unwrap_or_default();
            let query = param.strip_prefix('?').unwrap_or(param);
            let key = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "key").ok_or(NoCall::NoKey)?.1;
            What::Publish { name: Name::Key(StreamKey::of(&key)), under }
        }
        // SRS would show it to everybody. Whoever has a key at all is told what to do instead.
        name => What::Publish { name, under },
    })
}

/// Where a file is that SRS names as seen from its working folder.
fn absolute(file: &str, folder: Option<&str>) -> String {
    match folder {
        Some(folder) if !file.starts_with('/') => {
            format!("{}/{}", folder.trim_end_matches('/'), file.strip_prefix("./").unwrap_or(file))
        }
        _ => file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    const PUBLIC: Uuid = Uuid::from_u128(0x3b24_1101_e2bb_4255_8caf_4136_c566_a962);

    fn parse(body: &Value) -> Result<Option<Call>, NoCall> {
        call(&Fields::of_json(body.to_string().as_bytes()).unwrap())
    }

    /// The example in SRS's `full.conf`.
    fn example(stream: &str, param: &str) -> Value {
        json!({
            "action": "on_publish", "client_id": "9308h583", "ip": "192.168.1.10", "vhost": "video.test.com",
            "app": "live", "stream": stream, "param": param, "server_id": "vid-werty",
            "stream_url": "video.test.com/live/livestream", "stream_id": "vid-124q9y3",
        })
    }

    #[test]
    fn callbacks_are_read_as_srs_sends_them() {
        let public = PUBLIC.to_string();
        let with = |action: &str| {
            let mut body = example(&public, "?key=key123&salt=yyy");
            body["action"] = json!(action);
            body["cwd"] = json!("/usr/local/srs");
            body["file"] = json!("./objs/nginx/html/live/livestream.1420254068776.flv");
            parse(&body).unwrap()
        };
        let of_client = |what| Some(Call { client_id: "9308h583".to_owned(), what });
        let name = || Name::Public(PUBLIC);
        let publish = What::Publish { name: Name::of("key123"), under: Some(public.clone()) };
        assert_eq!(with("on_publish"), of_client(publish));
        assert_eq!(with("on_unpublish"), of_client(What::Leave { name: name() }));
        assert_eq!(with("on_play"), of_client(What::Play { name: name() }));
        assert_eq!(with("on_stop"), of_client(What::Leave { name: name() }));
        let path = "/usr/local/srs/objs/nginx/html/live/livestream.1420254068776.flv".to_owned();
        let recorded = What::Recorded { name: name(), path };
        assert_eq!(with("on_dvr"), Some(Call { client_id: String::new(), what: recorded }));
        for action in ["on_connect", "on_close", "on_hls", "on_forward"] {
            assert_eq!(with(action), None, "{action}");
        }
    }

    #[test]
    fn older_releases_number_their_clients() {
        let body = json!({"action": "on_stop", "client_id": 1985, "stream": PUBLIC});
        assert_eq!(parse(&body).unwrap().unwrap().client_id, "1985");
    }

    #[test]
    fn a_key_in_place_of_the_name_is_no_name() {
        let what = parse(&example("key123", "")).unwrap().unwrap().what;
        assert_eq!(what, What::Publish { name: Name::of("key123"), under: Some("key123".into()) });
    }

    #[test]
    fn a_name_without_a_key_is_refused() {
        for param in ["", "?", "?salt=yyy"] {
            assert_eq!(parse(&example(&PUBLIC.to_string(), param)), Err(NoCall::NoKey), "{param}");
        }
        assert_eq!(parse(&json!({"action": "on_play", "client_id": "1"})), Err(NoCall::Missing("stream")));
        assert_eq!(parse(&json!({"action": "on_play", "stream": "x"})), Err(NoCall::Missing("client_id")));
    }

    #[test]
    fn files_are_found_from_anywhere() {
        assert_eq!(absolute("/rec/a.flv", Some("/srs")), "/rec/a.flv");
        assert_eq!(absolute("a.flv", Some("/srs/")), "/srs/a.flv");
        assert_eq!(absolute("a.flv", None), "a.flv");
    }
}
