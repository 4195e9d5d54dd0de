//! Headers that belong to one connection and are never passed on (RFC 9110, 7.6.1).

use actix_web::http::header::{self, HeaderName};

/// Whether `name` is about the connection it came on, or frames the body: each side writes its own.
#[must_use]
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONNECTION
            | header::CONTENT_LENGTH
            | header::EXPECT
            | header::HOST
            | header::PROXY_AUTHENTICATE
            | header::PROXY_AUTHORIZATION
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE
    ) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Whether the comma-separated `list` has `token`, in any case.
#[must_use]
pub fn has_token(list: &[u8], token: &str) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_whole_item_of_a_list() {
        for (token, expected) in [("close", true), ("x-hop", true), ("x-ho", false), ("hop", false)] {
            assert_eq!(has_token(b"Close , X-Hop", token), expected, "{token}");
        }
    }
}
