//! Where media servers can be asked and ordered.

use chassis::env::Value;
use common::Secret;
use percent_encoding::percent_decode_str;
use url::Url;

/// Which program it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    NginxRtmp,
    Srs,
    MediaMtx,
}

/// A media server's control interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// As the media server is called in its own calls (`X-Media-Server`).
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Without credentials, and without a slash at the end.
    pub(crate) url: String,
    /// User and password, where it asks for them.
    pub(crate) login: Option<(String, Secret)>,
}

impl Address {
    /// `name=kind+http://user:password@host:port/path`.
    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('=')?;
        let (kind, url) = rest.split_once('+')?;
        let kind = match kind {
            "nginx-rtmp" => Kind::NginxRtmp,
            "srs" => Kind::Srs,
            "mediamtx" => Kind::MediaMtx,
            _ => return None,
        };
        let mut url = Url::parse(url).ok()?;
        let is_plain = matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
        if name.is_empty() || !is_plain {
            return None;
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(String::from);
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((decoded(user)?, Secret::new(decoded(password.unwrap_or_default())?))),
        };
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
        Some(Self { name: name.to_owned(), kind, url: url.as_str().trim_end_matches('/').to_owned(), login })
    }
}

/// All that there are. Not to be shown as they are written: they may have passwords.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses(pub(crate) Vec<Address>);

impl Value for Addresses {
    const EXPECTS: &'static str = "addresses such as m1=nginx-rtmp+http://127.0.0.1:8090 (or srs+…, mediamtx+…), each with another name, separated by commas";
    const IS_SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        let all: Vec<Address> = text.split(',').map(|one| Address::parse(one.trim())).collect::<Option<_>>()?;
        let is_twice = |index: usize| all[..index].iter().any(|other| other.name == all[index].name);
        (!(0..all.len()).any(is_twice)).then_some(Self(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_the_address_and_are_not_printed() {
        let text = "m1=nginx-rtmp+http://127.0.0.1:8090, eu-2=srs+https://ops:p%40ss%2Cword@media.example/srs/";
        let Addresses(all) = Addresses::parse(text).unwrap();
        let [nginx, srs] = &all[..] else { panic!("{all:?}") };
        assert_eq!((&*nginx.name, nginx.kind, &*nginx.url), ("m1", Kind::NginxRtmp, "http://127.0.0.1:8090"));
        assert_eq!(nginx.login, None);
        assert_eq!((&*srs.name, srs.kind, &*srs.url), ("eu-2", Kind::Srs, "https://media.example/srs"));
        assert_eq!(srs.login, Some(("ops".to_owned(), Secret::new("p@ss,word"))));
        assert!(!format!("{all:?}").contains("word"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for wrong in [
            "",
            "http://127.0.0.1",
            "m1=http://127.0.0.1",
            "m1=wowza+http://127.0.0.1",
            "=srs+http://127.0.0.1",
            "m1=srs+rtmp://127.0.0.1",
            "m1=srs+http://127.0.0.1/?a=b",
            "m1=srs+http://127.0.0.1,m1=srs+http://127.0.0.2",
            "m1=srs+http://127.0.0.1,",
        ] {
            assert_eq!(Addresses::parse(wrong), None, "{wrong}");
        }
    }
}
