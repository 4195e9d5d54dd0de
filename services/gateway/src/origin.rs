//! Which web pages may use the gateway, and what their browsers are told of it (CORS).

use actix_web::dev::RequestHead;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use chassis::env::Value;

use crate::client::Client;

/// How long a browser may remember what a preflight said, in seconds.
const REMEMBER: &str = "600";
/// Headers of answers that pages may read, beside those that every page may.
const EXPOSED: &str = "content-disposition, content-range, location, retry-after, x-ratelimit-limit, \
                       x-ratelimit-remaining, x-ratelimit-reset, x-request-id";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Origins that a setting lists: `https://app.example.org`, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed(Vec<String>);

impl Value for Listed {
    const EXPECTS: &'static str = "origins such as https://app.example.org, without a path, separated by commas";

    fn parse(text: &str) -> Option<Self> {
        text.split(',').map(|origin| normal(origin.trim())).collect::<Option<_>>().map(Self)
    }
}

/// An origin as browsers write it: in lower case, without a default port. `None` for what is not one.
fn normal(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let is_authority = !authority.is_empty() && !authority.contains(['/', '?', '#', '@', '*', ' ']);
    is_authority.then(|| format!("{scheme}://{}", authority.strip_suffix(default_port).unwrap_or(authority)))
}

/// The origins of pages that may use the gateway with the cookies of their visitors.
#[derive(Debug, Clone)]
pub struct Origins {
    /// Our own.
    public: Option<String>,
    listed: Listed,
}

/// Where the page is from that made a browser send a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nothing says that it was a page at all.
    None,
    /// Our own page.
    Own,
    /// A page that is on the list, as it was told.
    Listed(HeaderValue),
    /// Any other: it gets no answer to read, and changes nothing in the name of its visitors.
    Foreign,
}

impl Origins {
    /// `public_url`: where pages of our own are from.
    #[must_use]
    pub fn new(public_url: &str, listed: Listed) -> Self {
        Self { public: normal(public_url), listed }
    }

    /// Where the page is from that sent a request. Nothing but the whole origin is compared, so one that looks alike is foreign.
    #[must_use]
    pub fn judge(&self, head: &RequestHead, client: &Client) -> Origin {
        let mut origins = head.headers.get_all(header::ORIGIN);
        let Some(told) = origins.next() else {
            // Older browsers send no `Origin` with some requests, but say where they come from.
            return match head.headers.get(&SEC_FETCH_SITE).map(HeaderValue::as_bytes) {
                Some(b"cross-site" | b"same-site") => Origin::Foreign,
                _ => Origin::None,
            };
        };
        // `null`, bytes that are no text, and two origins are nobody's.
        let Some(origin) = told.to_str().ok().filter(|_| origins.next().is_none()) else {
            return Origin::Foreign;
        };
        if self.public.as_deref() == Some(origin) || is_host(origin, head, client.scheme) {
            Origin::Own
        } else if self.listed.0.iter().any(|listed| listed == origin) {
            Origin::Listed(told.clone())
        } else {
            Origin::Foreign
        }
    }
}

/// Whether the page came from where the request goes: then it is ours, whatever address we are reached at.
fn is_host(origin: &str, head: &RequestHead, scheme: &str) -> bool {
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| head.uri.authority().map(|authority| authority.as_str()));
    let of_scheme = origin.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
    matches!((of_scheme, host), (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host))
}

/// Whether a browser asks what it may do before it does it.
#[must_use]
pub fn is_preflight(head: &RequestHead) -> bool {
    head.method == actix_web::http::Method::OPTIONS
        && head.headers.contains_key(header::ORIGIN)
        && head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Adds to an answer what lets the page that asked read it. `is_open`: pages of everybody may, but without cookies. What a
/// service says of this is replaced.
pub fn allow(origin: &Origin, is_open: bool, answer: &mut HeaderMap) {
    const OURS: [HeaderName; 3] = [
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
    ];
    for name in OURS {
        answer.remove(name);
    }
    let told = match origin {
        Origin::Listed(told) => {
            answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            answer.append(header::VARY, HeaderValue::from_static("Origin"));
            told.clone()
        }
        Origin::Foreign if is_open => HeaderValue::from_static("*"),
        _ => return,
    };
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, told);
    answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
}

/// Adds to the answer of a preflight what the page may send.
pub fn answer_preflight(methods: &'static str, request: &RequestHead, answer: &mut HeaderMap) {
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    if let Some(headers) = request.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
    }
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(REMEMBER));
    for name in [header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS] {
        answer.append(header::VARY, name.into());
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    const CLIENT: Client = Client { address: None, scheme: "https" };

    fn judge(headers: &[(&'static str, &'static str)]) -> Origin {
        let origins = Origins::new("https://Amphi.example:443", Listed::parse("https://app.example.org").unwrap());
        let mut request = TestRequest::default();
        for header in headers {
            request = request.append_header(*header);
        }
        origins.judge(request.to_http_request().head(), &CLIENT)
    }

    #[test]
    fn only_the_whole_origin_counts() {
        for (origin, expected) in [
            ("https://amphi.example", Origin::Own),
            ("https://app.example.org", Origin::Listed(HeaderValue::from_static("https://app.example.org"))),
            ("http://amphi.example", Origin::Foreign),
            ("https://app.example.org.evil.example", Origin::Foreign),
            ("https://evil-app.example.org", Origin::Foreign),
            ("https://app.example.org:8443", Origin::Foreign),
            ("https://app.example.org/", Origin::Foreign),
            ("https://app.example.org, https://evil.example", Origin::Foreign),
            ("https://аpp.example.org", Origin::Foreign),
            ("null", Origin::Foreign),
            ("", Origin::Foreign),
        ] {
            assert_eq!(judge(&[("origin", origin)]), expected, "{origin}");
        }
        assert_eq!(
            judge(&[("origin", "https://app.example.org"), ("origin", "https://evil.example")]),
            Origin::Foreign
        );
    }

    #[test]
    fn a_page_from_where_the_request_goes_is_our_own() {
        assert_eq!(judge(&[("origin", "https://10.0.0.7:8443"), ("host", "10.0.0.7:8443")]), Origin::Own);
        assert_eq!(judge(&[("origin", "http://10.0.0.7:8443"), ("host", "10.0.0.7:8443")]), Origin::Foreign);
        assert_eq!(judge(&[("origin", "https://10.0.0.7"), ("host", "10.0.0.7:8443")]), Origin::Foreign);
    }

    #[test]
    fn without_an_origin_the_browser_may_still_say_that_it_was_another_site() {
        assert_eq!(judge(&[]), Origin::None);
        assert_eq!(judge(&[("sec-fetch-site", "same-origin")]), Origin::None);
        assert_eq!(judge(&[("sec-fetch-site", "cross-site")]), Origin::Foreign);
    }

    #[test]
    fn what_is_no_origin_cannot_be_listed() {
        for wrong in ["", "*", "null", "app.example.org", "https://*.example.org", "https://a.example/path", "ftp://a"]
        {
            assert_eq!(Listed::parse(wrong), None, "{wrong}");
        }
    }
}
