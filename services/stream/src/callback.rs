//! What nginx-rtmp says in its callbacks, parsed.
//!
//! A callback is a form. nginx-rtmp appends a publisher's own query to it, unescaped, after its own fields: a
//! publisher can so add a second `call`, `name` or `path`. Therefore the first occurrence of a field counts, and only
//! the fields that belong to the call are read (`ngx_rtmp_notify_module.c`, `ngx_rtmp_netcall_module.c`).

use std::borrow::Cow;

/// The parts of a callback that we act on. `client` is nginx's number of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callback {
    /// An encoder wants to publish. The answer decides.
    Publish { key: String, client: String },
    /// An encoder is still publishing. A refusal disconnects it.
    UpdatePublish { key: String, client: String },
    /// A connection is gone that published or played, which of the two is not said.
    Done { name: String, client: String },
    /// A player wants to play. The answer decides.
    Play { name: String, client: String },
    /// A file was recorded.
    RecordDone { name: String, path: String },
}

/// Why a body is no callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoCallback {
    #[error("the form has no `{0}`")]
    Missing(&'static str),
    #[error("`{0}` has control characters")]
    ControlCharacters(&'static str),
}

impl Callback {
    /// Reads the form that nginx-rtmp posts. `None`: a call that nothing follows from.
    pub fn parse(form: &[u8]) -> Result<Option<Self>, NoCallback> {
        let first = |name: &'static str| {
            let value = form_urlencoded::parse(form)
                .find_map(|(key, value): (Cow<'_, str>, _)| (key == name).then(|| value.into_owned()))
                .ok_or(NoCallback::Missing(name))?;
            if value.chars().any(char::is_control) { Err(NoCallback::ControlCharacters(name)) } else { Ok(value) }
        };
        let call = first("call")?;
        Ok(Some(match call.as_str() {
            "publish" => Self::Publish { key: first("name")?, client: first("clientid")? },
            "update_publish" => Self::UpdatePublish { key: first("name")?, client: first("clientid")? },
            "done" | "publish_done" | "play_done" => Self::Done { name: first("name")?, client: first("clientid")? },
            "play" => Self::Play { name: first("name")?, client: first("clientid")? },
            "record_done" => Self::RecordDone { name: first("name")?, path: first("path")? },
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As received from nginx-rtmp 1.2.2.
    const COMMON: &str = "app=live&flashver=FMLE/3.0%20(compatible%3B%20Lavf59.27&swfurl=\
                          &tcurl=rtmp://127.0.0.1:1935/live&pageurl=&addr=127.0.0.1&clientid=1";

    fn parse(rest: &str) -> Result<Option<Callback>, NoCallback> {
        Callback::parse(format!("{COMMON}&{rest}").as_bytes())
    }

    #[test]
    fn callbacks_are_read_as_nginx_rtmp_sends_them() {
        let client = || "1".to_owned();
        let key = || "key123".to_owned();
        let cases = [
            ("call=publish&name=key123&type=live", Callback::Publish { key: key(), client: client() }),
            (
                "call=update_publish&time=2&timestamp=1990&name=key123",
                Callback::UpdatePublish { key: key(), client: client() },
            ),
            ("call=done&name=key123", Callback::Done { name: key(), client: client() }),
            (
                "call=play&name=key123&start=4294965296&duration=0&reset=0",
                Callback::Play { name: key(), client: client() },
            ),
            (
                "call=record_done&recorder=&name=key123&path=/rec/key123-1795226177.flv",
                Callback::RecordDone { name: key(), path: "/rec/key123-1795226177.flv".into() },
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
        assert_eq!(smuggled.unwrap(), Some(Callback::Publish { key: "mykey".into(), client: "1".into() }));
    }

    #[test]
    fn a_form_without_the_fields_of_its_call_is_refused() {
        assert_eq!(parse("call=publish"), Err(NoCallback::Missing("name")));
        assert_eq!(Callback::parse(b"name=x"), Err(NoCallback::Missing("call")));
        assert_eq!(Callback::parse(b"\xff\xfe%%%"), Err(NoCallback::Missing("call")));
    }
}
