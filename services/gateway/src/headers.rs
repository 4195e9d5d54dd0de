//! Which headers of a client reach a service.

use actix_web::http::header::{self, HeaderMap, HeaderName};

use crate::table::{ROUTES, Route};
use crate::upstream::hop_by_hop::{has_token, is_hop_by_hop};

/// Whether a header says who asks, through whom, or as part of what. Only we say that.
fn is_ours(name: &str) -> bool {
    match name.as_bytes() {
        [b'x', b'-', ..] => {
            matches!(name, "x-real-ip" | "x-request-id")
                || ["x-forwarded-", "x-user-", "x-amphi-"].iter().any(|prefix| name.starts_with(prefix))
        }
        [b'p', ..] => name.starts_with("proxy-"),
        [b'f' | b't' | b'b', ..] => matches!(name, "forwarded" | "traceparent" | "tracestate" | "baggage"),
        _ => false,
    }
}

/// Whether a header is one that some routes let through: it is reserved for those. Their names all begin with `x-`.
fn is_reserved(name: &str) -> bool {
    name.starts_with("x-") && ROUTES.iter().any(|route| route.headers.contains(&name))
}

/// The headers that pass from the client of one request to the service behind `route`.
pub struct Inbound<'a> {
    headers: &'a HeaderMap,
    route: &'static Route,
    /// `Connection` names headers, which then belong to the client's connection alone.
    names_headers: bool,
}

impl<'a> Inbound<'a> {
    #[must_use]
    pub fn new(headers: &'a HeaderMap, route: &'static Route) -> Self {
        let is_plain = |item: &[u8]| {
            let item = item.trim_ascii();
            ["close", "keep-alive", "upgrade"].iter().any(|plain| item.eq_ignore_ascii_case(plain.as_bytes()))
        };
        let names_headers = headers
            .get_all(header::CONNECTION)
            .any(|value| !value.as_bytes().split(|byte| *byte == b',').all(is_plain));
        Self { headers, route, names_headers }
    }

    /// Names and values. Cookies and `Authorization` are among them: every service verifies tokens itself.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.headers.iter().filter(|(name, _)| self.passes(name)).map(|(name, value)| (name.as_str(), value.as_bytes()))
    }

    fn passes(&self, name: &HeaderName) -> bool {
        let text = name.as_str();
        let is_reserved = is_reserved(text) && !self.route.headers.contains(&text);
        let stays_behind = is_hop_by_hop(name) || (self.names_headers && self.is_named_by_connection(text));
        !(is_ours(text) || is_reserved || stays_behind)
    }

    fn is_named_by_connection(&self, name: &str) -> bool {
        self.headers.get_all(header::CONNECTION).any(|value| has_token(value.as_bytes(), name))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;
    use crate::router::Router;

    fn passed(path: &str, sent: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let route = Router::new(ROUTES).unwrap().find(path).unwrap().route;
        let mut passed: Vec<_> = Inbound::new(&headers, route).iter().map(|(name, _)| name.to_owned()).collect();
        passed.sort_unstable();
        passed
    }

    #[test]
    fn identity_and_forwarding_headers_of_clients_are_stripped() {
        let sent = [
            ("x-user-id", "1"),
            ("x-amphi-role", "Admin"),
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("x-request-id", "1"),
            ("traceparent", "00-1"),
            ("tracestate", "a=b"),
            ("baggage", "a=b"),
            ("proxy-authorization", "Basic x"),
            ("x-webhook-secret", "x"),
            ("x-webhook-signature", "sha256=x"),
            ("x-media-server", "srs"),
            ("x-media-server-started", "1"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("authorization", "Bearer x"),
            ("cookie", "auth_token=x"),
            ("range", "bytes=0-"),
        ];
        assert_eq!(passed("/streams", &sent), ["authorization", "cookie", "range"]);
    }

    #[test]
    fn what_is_reserved_begins_as_it_is_looked_for() {
        for name in ROUTES.iter().flat_map(|route| route.headers) {
            assert!(is_reserved(name), "{name}");
        }
    }

    #[test]
    fn secrets_of_media_servers_pass_to_the_webhook_alone() {
        let sent = [
            ("x-webhook-secret", "x"),
            ("x-webhook-signature", "sha256=x"),
            ("x-media-server", "srs"),
            ("x-media-server-started", "1"),
            ("x-user-id", "1"),
        ];
        assert_eq!(
            passed("/webhook/stream-event", &sent),
            ["x-media-server", "x-media-server-started", "x-webhook-secret", "x-webhook-signature"]
        );
    }

    #[test]
    fn what_connection_names_stays_behind() {
        let sent = [("connection", "keep-alive, X-Hop"), ("x-hop", "1"), ("x-kept", "1")];
        assert_eq!(passed("/streams", &sent), ["x-kept"]);
    }
}
