//! How a media server proves to be one of ours. Everything is compared in constant time.

use std::net::IpAddr;

use actix_web::HttpRequest;
use ring::hmac;

use crate::config::Config;
use crate::routes::webhook::header;

/// The header that carries the secret, where the media server or the proxy beside it can set one.
const SECRET_HEADER: &str = "x-webhook-secret";
/// The header that carries the signature of the body: `sha256=<hexadecimal>`.
pub(super) const SIGNATURE_HEADER: &str = "x-webhook-signature";

/// Whether the request shows a secret, in a header, the query or the path, or comes from an address that needs none.
pub(super) fn is_shown(config: &Config, request: &HttpRequest, address: Option<IpAddr>) -> bool {
    let matches = |shown: &str| config.webhook_secrets().any(|secret| secret.matches(shown));
    let in_header = header(request, SECRET_HEADER).is_some_and(matches);
    let in_query = || {
        let mut query = form_urlencoded::parse(request.query_string().as_bytes());
        query.any(|(name, value)| name == "secret" && matches(&value))
    };
    let in_path = || request.match_info().get("secret").is_some_and(matches);
    in_header || in_query() || in_path() || address.is_some_and(|address| config.webhook_addresses.contain(address))
}

/// Whether `signature` is that of `body` with one of the secrets.
pub(super) fn is_signed(config: &Config, signature: &str, body: &[u8]) -> bool {
    let Some(tag) = signature.strip_prefix("sha256=").and_then(decode) else { return false };
    config.webhook_secrets().any(|secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        hmac::verify(&key, body, &tag).is_ok()
    })
}

/// Where the request comes from: as the gateway says, which sets the header to exactly one address; without a gateway, the
/// peer. `None` where somebody has written something else into the header.
pub(super) fn address_of(request: &HttpRequest) -> Option<IpAddr> {
    let address = match request.headers().get("x-forwarded-for") {
        Some(told) => told.to_str().ok()?.trim().parse().ok()?,
        None => request.peer_addr()?.ip(),
    };
    Some(address.to_canonical())
}

/// The bytes that `hexadecimal` stands for.
fn decode(hexadecimal: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = hexadecimal.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    rest.is_empty().then(|| bytes.collect()).flatten()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn hexadecimal_is_decoded() {
        assert_eq!(decode("00fFa5"), Some(vec![0, 255, 0xa5]));
        for wrong in ["0", "0g", "+1", "é"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_address_is_what_the_gateway_says_or_the_peer() {
        let from = |told: Option<&str>| {
            let request = TestRequest::default().peer_addr("10.0.0.1:80".parse().unwrap());
            let request = match told {
                Some(told) => request.insert_header(("x-forwarded-for", told)),
                None => request,
            };
            address_of(&request.to_http_request()).map(|address| address.to_string())
        };
        assert_eq!(from(None).as_deref(), Some("10.0.0.1"));
        assert_eq!(from(Some("::ffff:192.0.2.1")).as_deref(), Some("192.0.2.1"));
        for forged in ["192.0.2.1, 192.0.2.2", "", "unknown"] {
            assert_eq!(from(Some(forged)), None, "{forged:?}");
        }
    }
}
