//! What nginx-rtmp says in its callbacks, parsed.
//!
//! A callback is a form. nginx-rtmp appends a publisher's own query to it, unescaped, after its own fields: a
//! publisher can so add a second `call`, `name` or `path`. Therefore the first occurrence of a field counts, and only
//! the fields that belong to the call are read (`ngx_rtmp_notify_module.c`, `ngx_rtmp_netcall_module.c`).

use std::borrow::Cow;

use crate::call::{Call, Name, What};
use crate::dialect::NoCall;
use crate::domain::StreamKey;

/// What a form says, if anything follows from it.
pub(super) fn read(form: &[u8]) -> Result<Option<Call>, NoCall> {
    let first = |name: &'static str| {
        let value = form_urlencoded::parse(form)
            .find_map(|(key, value): (Cow<'_, str>, _)| (key == name).then(|| value.into_owned()))
            .ok_or(NoCall::Missing(name))?;
        if value.chars().any(char::is_control) { Err(NoCall::ControlCharacters(name)) } else { Ok(value) }
    };
    let name = || first("name").map(|name| Name::of(&name));
    let call = first("call")?;
    let what = match call.as_str() {
        "publish" => What::Publish { key: StreamKey::of(&first("name")?), under: None },
        "update_publish" => What::Heartbeat { name: name()? },
        "done" | "publish_done" | "play_done" => What::Leave { name: name()? },
        "play" => What::Play { name: name()? },
        "record_done" => {
            let what = What::Recorded { name: name()?, path: first("path")? };
            return Ok(Some(Call { client_id: String::new(), what }));
        }
        _ => return Ok(None),
    };
    Ok(Some(Call { client_id: first("clientid")?, what }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As received from nginx-rtmp 1.2.2.
    const COMMON: &str = "app=live&flashver=FMLE/3.0%20(compatible%3B%20Lavf59.27&swfurl=\
                          &tcurl=rtmp://127.0.0.1:1935/live&pageurl=&addr=127.0.0.1&clientid=1";

    fn parse(rest: &str) -> Result<Option<Call>, NoCall> {
        read(format!("{COMMON}&{rest}").as_bytes())
    }

    fn call(what: What) -> Call {
        Call { client_id: "1".to_owned(), what }
    }

    #[test]
    fn callbacks_are_read_as_nginx_rtmp_sends_them() {
        let key = StreamKey::of("key123");
        let name = || Name::of("key123");
        let cases = [
            ("call=publish&name=key123&type=live", call(What::Publish { key, under: None })),
            ("call=update_publish&time=2&timestamp=1990&name=key123", call(What::Heartbeat { name: name() })),
            ("call=done&name=key123", call(What::Leave { name: name() })),
            ("call=play&name=key123&start=4294965296&duration=0&reset=0", call(What::Play { name: name() })),
            (
                "call=record_done&recorder=&name=key123&path=/rec/key123-1795226177.flv",
                Call {
                    client_id: String::new(),
                    what: What::Recorded { name: name(), path: "/rec/key123-1795226177.flv".into() },
                },
            ),
        ];
        for (form, expected) in cases {
            assert_eq!(parse(form).unwrap(), Some(expected), "{form}");
        }
        assert_eq!(parse("call=disconnect&app=live").unwrap(), None);
    }

    #[test]
    fn a_publisher_cannot_smuggle_fields_in() {
        let smuggled = parse("call=publish&name=mykey&type=live&name=victim&call=done&clientid=9&path=/etc/passwd");
        assert_eq!(smuggled.unwrap(), Some(call(What::Publish { key: StreamKey::of("mykey"), under: None })));
    }

    #[test]
    fn a_form_without_the_fields_of_its_call_is_refused() {
        assert_eq!(parse("call=publish"), Err(NoCall::Missing("name")));
        assert_eq!(read(b"name=x"), Err(NoCall::Missing("call")));
        assert_eq!(read(b"\xff\xfe%%%"), Err(NoCall::Missing("call")));
    }
}
