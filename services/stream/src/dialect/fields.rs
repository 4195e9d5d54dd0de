//! The fields of a call, whatever they came in: a form, a query or JSON.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::call::Name;
use crate::dialect::{LONGEST_NAME, NoCall};

/// Stands for a stream key where calls are kept.
const A_KEY: &str = "‹key›";
/// Stands for what may have a secret in it.
const HIDDEN: &str = "‹hidden›";
/// Nobody reads more of a field, in characters.
const LONGEST_SHOWN: usize = 300;
/// Hexadecimal digits in a row that are taken for a stream key.
const DIGITS_OF_A_KEY: usize = 40;
/// What is shorter than this is no key of ours, and not worth looking for in other fields.
const SHORTEST_KEY: usize = 8;

/// How a field is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Plain,
    /// An address, whose query may have anything in it.
    Address,
    /// What a stream is called: its key, unless it is a playback id.
    Name,
    /// Never, only that it was there.
    Hidden,
}

/// Names and values, in the order in which they came.
#[derive(Debug)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Those of a form, and behind them those of a query.
    pub(super) fn of_form(form: &[u8], query: &str) -> Self {
        let owned = |(name, value): (Cow<'_, str>, Cow<'_, str>)| (name.into_owned(), value.into_owned());
        Self(form_urlencoded::parse(form).chain(form_urlencoded::parse(query.as_bytes())).map(owned).collect())
    }

    /// Those of a JSON object that are text, numbers, true or false.
    pub(super) fn of_json(json: &[u8]) -> Result<Self, NoCall> {
        let object: Map<String, Value> = serde_json::from_slice(json).map_err(|_unreadable| NoCall::NotJson)?;
        let text = |(name, value)| match value {
            Value::String(text) => Some((name, text)),
            Value::Number(number) => Some((name, number.to_string())),
            Value::Bool(answer) => Some((name, answer.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        Ok(Self(object.into_iter().filter_map(text).collect()))
    }

    /// The first of this name: those who cause a call can add further ones behind it.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The value of the field, which can be kept.
    pub(super) fn need(&self, name: &'static str) -> Result<&str, NoCall> {
        printable(name, self.first(name).ok_or(NoCall::Missing(name))?)
    }

    /// The same of the first of `names` that is there.
    pub(super) fn need_any(&self, names: &[&'static str]) -> Result<&str, NoCall> {
        let found = names.iter().find_map(|name| Some(printable(name, self.first(name)?)));
        found.unwrap_or_else(|| Err(NoCall::Missing(names.first().copied().unwrap_or_default())))
    }

    /// What a connection or a media server is called; `None` if it is not said.
    pub(super) fn optional_any(&self, names: &[&'static str]) -> Result<Option<String>, NoCall> {
        let Some((name, text)) = names.iter().find_map(|name| Some((*name, self.first(name)?))) else {
            return Ok(None);
        };
        if text.len() > LONGEST_NAME {
            return Err(NoCall::TooLong(name));
        }
        printable(name, text).map(|text| (!text.is_empty()).then(|| text.to_owned()))
    }

    pub(super) fn optional(&self, name: &'static str) -> Result<Option<String>, NoCall> {
        self.optional_any(&[name])
    }

    /// The same, where it has to be there.
    pub(super) fn id(&self, names: &[&'static str]) -> Result<String, NoCall> {
        self.optional_any(names)?.ok_or(NoCall::Missing(names.first().copied().unwrap_or_default()))
    }

    /// Those of `all` that came, as they may be kept.
    pub(super) fn redacted(&self, all: &[(&'static str, Shown)]) -> Map<String, Value> {
        let found = || all.iter().filter_map(|(name, how)| Some((*name, *how, self.first(name)?)));
        let is_secret = |how, text: &str| match how {
            Shown::Hidden => true,
            Shown::Name => !is_public(text),
            Shown::Plain | Shown::Address => false,
        };
        let secrets: Vec<&str> =
            found().filter(|(_, how, text)| is_secret(*how, text)).map(|(.., text)| text).collect();
        let kept = found().map(|(name, how, text)| {
            let text = match how {
                _ if text.is_empty() => String::new(),
                Shown::Hidden => HIDDEN.to_owned(),
                Shown::Name if !is_public(text) => A_KEY.to_owned(),
                Shown::Address => shown(text.split('?').next().unwrap_or_default(), &secrets),
                Shown::Plain | Shown::Name => shown(text, &secrets),
            };
            (name.to_owned(), Value::String(text))
        });
        kept.collect()
    }
}

fn is_public(name: &str) -> bool {
    matches!(Name::of(name), Name::Public(_))
}

/// Whether there is something in `text` that looks like a stream key.
pub(super) fn has_key(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_hexdigit()).any(|digits| digits.len() >= DIGITS_OF_A_KEY)
}

fn printable<'a>(name: &'static str, text: &'a str) -> Result<&'a str, NoCall> {
    if text.chars().any(char::is_control) { Err(NoCall::ControlCharacters(name)) } else { Ok(text) }
}

/// `text` as it may be kept and logged: without `secrets`, nor anything else that looks like a stream key.
pub(crate) fn shown(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| secret.len() >= SHORTEST_KEY) {
        text = text.replace(secret, A_KEY);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(next) = rest.chars().next() {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        let taken = if digits >= DIGITS_OF_A_KEY {
            shown.push_str(A_KEY);
            digits
        } else if digits > 0 {
            shown.push_str(&rest[..digits]);
            digits
        } else {
            shown.push(if next.is_control() { char::REPLACEMENT_CHARACTER } else { next });
            next.len_utf8()
        };
        rest = &rest[taken..];
    }
    match shown.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn the_first_field_of_a_name_counts_and_the_body_comes_before_the_query() {
        let fields = Fields::of_form(b"a=1&a=2", "a=3&b=4");
        assert_eq!((fields.first("a"), fields.first("b"), fields.first("c")), (Some("1"), Some("4"), None));
        let fields = Fields::of_json(br#"{"a": "x", "b": 7, "c": null, "d": {}, "e": true}"#).unwrap();
        let found = ["a", "b", "c", "d", "e"].map(|name| fields.first(name));
        assert_eq!(found, [Some("x"), Some("7"), None, None, Some("true")]);
        for wrong in [&b"{"[..], b"{}x", b"{\"a\": \"\xff\"}", br#"{"a": "\ud800"}"#] {
            assert_eq!(Fields::of_json(wrong).unwrap_err(), NoCall::NotJson);
        }
    }

    #[test]
    fn what_is_kept_of_fields_has_no_key_wherever_it_stands() {
        let form = format!(
            "name={KEY}&tcurl=rtmp://h/live?token={KEY}&path=/rec/{KEY}-1.flv&app=live/{KEY}&password=hunter22&note=hunter22&x={KEY}"
        );
        let fields = Fields::of_form(form.as_bytes(), "");
        let all = [
            ("name", Shown::Name),
            ("tcurl", Shown::Address),
            ("path", Shown::Plain),
            ("app", Shown::Plain),
            ("password", Shown::Hidden),
            ("note", Shown::Plain),
            ("absent", Shown::Plain),
        ];
        let expected = json!({
            "name": "‹key›", "tcurl": "rtmp://h/live", "path": "/rec/‹key›-1.flv", "app": "live/‹key›",
            "password": "‹hidden›", "note": "‹key›",
        });
        assert_eq!(Value::Object(fields.redacted(&all)), expected);
        let playback_id = "3b241101-e2bb-4255-8caf-4136c566a962";
        let fields = Fields::of_form(format!("name={playback_id}&note=%00é").as_bytes(), "");
        assert_eq!(Value::Object(fields.redacted(&all)), json!({"name": playback_id, "note": "\u{fffd}é"}));
    }

    #[test]
    fn what_is_shown_is_cut() {
        assert_eq!(shown(&"é".repeat(301), &[]).chars().count(), 301);
        assert_eq!(shown("0123456789abcdefg", &[]), "0123456789abcdefg");
        assert!(has_key(&format!("/rec/{KEY}-1.flv")) && !has_key(&format!("/rec/{}-1.flv", &KEY[1..])));
    }
}
