//! What nginx-rtmp says in its callbacks.
//!
//! A callback is a form. nginx-rtmp appends a publisher's own query to it, unescaped, after its own fields: a
//! publisher can so add a second `call`, `name` or `path`. Therefore the first occurrence of a field counts, and only
//! the fields that belong to the call are read (`ngx_rtmp_notify_module.c`, `ngx_rtmp_netcall_module.c`).

use std::net::IpAddr;

use crate::call::{Call, Name, What};
use crate::dialect::fields::{Fields, Shown};
use crate::dialect::{NoCall, Said};
use crate::domain::StreamKey;

const SHOWN: &[(&str, Shown)] = &[
    ("call", Shown::Plain),
    ("app", Shown::Plain),
    ("name", Shown::Name),
    ("clientid", Shown::Plain),
    ("addr", Shown::Plain),
    ("key", Shown::Hidden),
    ("flashver", Shown::Plain),
    ("tcurl", Shown::Address),
    ("swfurl", Shown::Address),
    ("pageurl", Shown::Address),
    ("type", Shown::Plain),
    ("start", Shown::Plain),
    ("duration", Shown::Plain),
    ("reset", Shown::Plain),
    ("time", Shown::Plain),
    ("timestamp", Shown::Plain),
    ("recorder", Shown::Plain),
    ("path", Shown::Plain),
];

pub(super) fn read(fields: &Fields, relay_app: &str) -> Said {
    Said { word: "call", call: call(fields, relay_app), shown: SHOWN }
}

fn call(fields: &Fields, relay_app: &str) -> Result<Option<Call>, NoCall> {
    let name = || fields.need("name").map(Name::of);
    let what = match fields.need("call")? {
        "publish" => publish(fields, relay_app)?,
        "update_publish" => What::Heartbeat { name: name()? },
        "done" | "publish_done" | "play_done" => What::Leave { name: name()? },
        "play" => What::Play { name: name()? },
        "record_done" => {
            let (name, path) = (fields.need("name")?, fields.need("path")?);
            return super::recorded(name, path.to_owned()).map(Some);
        }
        _ => return Ok(None),
    };
    Ok(Some(Call { client_id: fields.id(&["clientid"])?, what }))
}

fn publish(fields: &Fields, relay_app: &str) -> Result<What, NoCall> {
    let name = fields.need("name")?;
    let public = match Name::of(name) {
        Name::Public(playback_id) => Some(playback_id),
        Name::Key(_) | Name::Kept(_) => None,
    };
    let is_here = fields.first("addr").is_some_and(is_loopback);
    Ok(match (public, fields.first("key")) {
        // Having been sent on to there, nginx-rtmp comes to itself as an encoder, and asks again.
        (Some(playback_id), _) if is_here && fields.first("app") == Some(relay_app) => {
            What::HandOn { name: Name::Public(playback_id) }
        }
        // From the publisher's own query: of all calls only this one takes anything from there.
        (Some(_), Some(key)) => What::Publish { name: Name::Key(StreamKey::of(key)), under: Some(name.to_owned()) },
        _ => What::Publish { name: Name::Key(StreamKey::of(name)), under: None },
    })
}

fn is_loopback(address: &str) -> bool {
    address == "unix:" || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// As received from nginx-rtmp 1.2.2.
    const COMMON: &str = "app=live&flashver=FMLE/3.0%20(compatible%3B%20Lavf59.27&swfurl=\
                          &tcurl=rtmp://127.0.0.1:1935/live&pageurl=&addr=127.0.0.1&clientid=1";
    const PUBLIC: Uuid = Uuid::from_u128(0x3b24_1101_e2bb_4255_8caf_4136_c566_a962);

    fn read_form(form: &str) -> Result<Option<Call>, NoCall> {
        call(&Fields::of_form(form.as_bytes(), ""), "watch")
    }

    fn parse(rest: &str) -> Result<Option<Call>, NoCall> {
        read_form(&format!("{COMMON}&{rest}"))
    }

    fn of_client(what: What) -> Call {
        Call { client_id: "1".to_owned(), what }
    }

    fn publish_with(key: &str) -> What {
        What::Publish { name: Name::Key(StreamKey::of(key)), under: None }
    }

    #[test]
    fn callbacks_are_read_as_nginx_rtmp_sends_them() {
        let name = || Name::of("key123");
        let recorded = format!("call=record_done&recorder=&name=key123&path=/rec/{PUBLIC}-1795226177.flv");
        let cases = [
            ("call=publish&name=key123&type=live", of_client(publish_with("key123"))),
            ("call=update_publish&time=2&timestamp=1990&name=key123", of_client(What::Heartbeat { name: name() })),
            ("call=done&name=key123", of_client(What::Leave { name: name() })),
            ("call=play&name=key123&start=4294965296&duration=0&reset=0", of_client(What::Play { name: name() })),
            // The name is the one that was published with, even if the broadcast was handed on under another.
            (
                &recorded,
                Call {
                    client_id: String::new(),
                    what: What::Recorded { name: name(), path: format!("/rec/{PUBLIC}-1795226177.flv") },
                },
            ),
        ];
        for (form, expected) in cases {
            assert_eq!(parse(form).unwrap(), Some(expected), "{form}");
        }
        assert_eq!(parse("call=disconnect&app=live").unwrap(), None);
        let example = "app=myapp&flashver=FMLE/3.0 (compatible; FMSc/1.0)&swfurl=rtmp://vm1/myapp&tcurl=rtmp://vm1/myapp\
                       &pageurl=&addr=192.168.50.98&clientid=7&call=publish&name=7a09&type=live";
        assert_eq!(read_form(example).unwrap(), Some(Call { client_id: "7".into(), what: publish_with("7a09") }));
    }

    #[test]
    fn a_publisher_cannot_smuggle_fields_in() {
        let smuggled =
            parse("call=publish&name=mykey&type=live&name=victim&call=done&clientid=9&path=/etc/passwd&key=victim");
        assert_eq!(smuggled.unwrap(), Some(of_client(publish_with("mykey"))));
        let done = parse(&format!("call=done&name=mykey&call=record_done&path=/etc/passwd&name={PUBLIC}"));
        assert_eq!(done.unwrap(), Some(of_client(What::Leave { name: Name::of("mykey") })));
    }

    #[test]
    fn whoever_publishes_under_the_public_name_has_the_key_beside_it() {
        let form = format!("call=publish&name={PUBLIC}&type=live&key=key123&key=other");
        let expected = What::Publish { name: Name::of("key123"), under: Some(PUBLIC.to_string()) };
        assert_eq!(parse(&form).unwrap(), Some(of_client(expected)));
        let without = parse(&format!("call=publish&name={PUBLIC}&type=live"));
        assert_eq!(without.unwrap(), Some(of_client(publish_with(&PUBLIC.to_string()))));
    }

    #[test]
    fn only_nginx_rtmp_itself_hands_broadcasts_on() {
        let from = |app: &str, addr: &str, name: &str| {
            let form =
                format!("app={app}&flashver=&swfurl=&tcurl=&pageurl=&addr={addr}&clientid=1&call=publish&name={name}");
            read_form(&form).unwrap().unwrap().what
        };
        let public = PUBLIC.to_string();
        let handed_on = What::HandOn { name: Name::Public(PUBLIC) };
        assert_eq!(from("watch", "127.0.0.1", &public), handed_on);
        assert_eq!(from("watch", "unix:", &public), handed_on);
        assert_eq!(from("watch", "192.0.2.1", &public), publish_with(&public));
        assert_eq!(from("watch", "unknown&addr=127.0.0.1", &public), publish_with(&public));
        assert_eq!(from("live", "127.0.0.1&app=watch", &public), publish_with(&public));
        assert_eq!(from("watch", "127.0.0.1", "key123"), publish_with("key123"));
    }

    #[test]
    fn a_recording_that_is_named_after_the_key_is_told_to_nobody() {
        let refused = parse("call=record_done&recorder=&name=key12345&path=/rec/key12345-1795226177.flv");
        assert_eq!(refused, Err(NoCall::NamedByKey));
    }

    #[test]
    fn a_form_without_the_fields_of_its_call_is_refused() {
        assert_eq!(parse("call=publish"), Err(NoCall::Missing("name")));
        assert_eq!(parse("call=done&name=%07"), Err(NoCall::ControlCharacters("name")));
        assert_eq!(read_form("call=done&name=x"), Err(NoCall::Missing("clientid")));
        assert_eq!(
            read_form(&format!("call=done&name=x&clientid={}", "1".repeat(256))),
            Err(NoCall::TooLong("clientid"))
        );
        assert_eq!(read_form("name=x"), Err(NoCall::Missing("call")));
    }
}
