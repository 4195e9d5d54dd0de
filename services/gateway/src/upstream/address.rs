//! Where an upstream listens.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::str::FromStr;

use actix_web::http::Uri;
use chassis::env::Value;

/// An upstream's address. It reads `http://host:port`, without a path; the port may be left out and is then 80.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// `host:port`, with an IPv6 address in brackets.
    text: String,
    host: String,
    port: u16,
}

/// The text is not `http://host:port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address such as http://127.0.0.1:8081, without a path")]
pub struct NotAnAddress;

/// Where the instances of an upstream listen: at least one address. Each may be a name for several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(Vec<Address>);

impl Value for Addresses {
    const EXPECTS: &'static str = "addresses such as http://127.0.0.1:8081, without a path, one for each instance or a name for several, with \
         commas between them";

    fn parse(text: &str) -> Option<Self> {
        let addresses: Vec<_> = text.split(',').map(|address| address.trim().parse()).collect::<Result<_, _>>().ok()?;
        Some(Self(addresses))
    }
}

impl Addresses {
    /// The name that requests are sent to, whichever instance they reach: all of them are the same server.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.first().map(Address::as_str).unwrap_or_default()
    }
}

impl Deref for Addresses {
    type Target = [Address];

    fn deref(&self) -> &[Address] {
        &self.0
    }
}

impl Address {
    /// `host:port`, as the `Host` header has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A name, or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address that the host is, if it is no name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let uri: Uri = text.parse().or(Err(NotAnAddress))?;
        let authority = uri.authority().ok_or(NotAnAddress)?;
        let has_path = uri.path_and_query().is_some_and(|path| path.as_str() != "/");
        if uri.scheme_str() != Some("http") || has_path || authority.as_str().contains('@') {
            return Err(NotAnAddress);
        }
        let host = authority.host();
        // A port that is no number passes as part of an authority, but has no value.
        let port = if authority.as_str() == host { 80 } else { authority.port_u16().ok_or(NotAnAddress)? };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self { text: format!("{host}:{port}"), host: bare.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, host, port, shown) in [
            ("http://127.0.0.1:8088", "127.0.0.1", 8088, "127.0.0.1:8088"),
            ("http://stream:8080/", "stream", 8080, "stream:8080"),
            ("http://[::1]:9000", "::1", 9000, "[::1]:9000"),
            ("http://hls.internal", "hls.internal", 80, "hls.internal:80"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.host(), address.port(), address.as_str()), (host, port, shown));
        }
    }

    #[test]
    fn several_addresses_have_commas_between_them() {
        let addresses = Addresses::parse("http://10.0.0.1:8082, http://stream:8082").unwrap();
        assert_eq!(addresses.iter().map(Address::as_str).collect::<Vec<_>>(), ["10.0.0.1:8082", "stream:8082"]);
        assert_eq!(addresses.iter().map(|address| address.ip().is_some()).collect::<Vec<_>>(), [true, false]);
        assert_eq!(addresses.host(), "10.0.0.1:8082");
        for text in ["", ",", "http://a,", "http://a,b"] {
            assert_eq!(Addresses::parse(text), None, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "stream:8080",
            "https://stream",
            "http://a/b",
            "http://a?b",
            "http://u:p@a",
            "http://a:99999",
            "http://",
        ] {
            assert_eq!(text.parse::<Address>(), Err(NotAnAddress), "{text}");
        }
    }
}
