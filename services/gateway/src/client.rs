//! Who is at the other end: behind a load balancer not the one who opened the connection.

use std::net::IpAddr;

use actix_web::dev::RequestHead;
use actix_web::http::header::HeaderMap;
use chassis::env::Value;
use ipnet::IpNet;

/// The client of a request, as services are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// `None` only where a test made the request.
    pub address: Option<IpAddr>,
    /// How it reached us, or the proxy before us: `http` or `https`.
    pub scheme: &'static str,
}

/// The proxies whose word on their clients is believed: networks such as `10.0.0.0/8`, or single addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxies(Vec<IpNet>);

impl Value for Proxies {
    const EXPECTS: &'static str = "networks or addresses such as 10.0.0.0/8, separated by commas";

    fn parse(text: &str) -> Option<Self> {
        let network = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        text.split(',').map(str::trim).map(network).collect::<Option<_>>().map(Self)
    }
}

impl Proxies {
    fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client of a request whose peer reached us by `scheme`.
    ///
    /// `X-Forwarded-For` is read from its end, where the proxy next to us wrote, for as long as proxies that we trust wrote
    /// it: what stands before that anybody may have written.
    #[must_use]
    pub fn client_of(&self, head: &RequestHead, scheme: &'static str) -> Client {
        let Some(peer) = head.peer_addr.map(|peer| peer.ip().to_canonical()) else {
            return Client { address: None, scheme };
        };
        if !self.contain(peer) {
            return Client { address: Some(peer), scheme };
        }
        let mut address = peer;
        for told in list(&head.headers, "x-forwarded-for").iter().rev().map_while(|told| parse(told)) {
            address = told;
            if !self.contain(told) {
                break;
            }
        }
        let scheme = match list(&head.headers, "x-forwarded-proto").last() {
            Some(&"https") => "https",
            Some(&"http") => "http",
            _ => scheme,
        };
        Client { address: Some(address), scheme }
    }
}

/// The items of all headers called `name`, in order. What is not text stands for nothing.
fn list<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).flat_map(|line| line.to_str().unwrap_or_default().split(',')).map(str::trim).collect()
}

/// An address as proxies write it: some with a port, IPv6 then in brackets.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.split(']').next()).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| bare.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &'static str)]) -> (String, &'static str) {
        let proxies = Proxies::parse("10.0.0.0/8, 192.168.0.7,fd00::/8").unwrap();
        let mut request = TestRequest::default().peer_addr(format!("{peer}:1234").parse().unwrap());
        for header in headers {
            request = request.append_header(*header);
        }
        let client = proxies.client_of(request.to_http_request().head(), "http");
        (client.address.unwrap().to_string(), client.scheme)
    }

    #[test]
    fn whoever_is_no_trusted_proxy_speaks_for_itself_alone() {
        let headers = [("x-forwarded-for", "9.9.9.9"), ("x-forwarded-proto", "https")];
        assert_eq!(client("203.0.113.5", &headers), ("203.0.113.5".to_owned(), "http"));
        assert_eq!(client("192.168.0.8", &headers), ("192.168.0.8".to_owned(), "http"));
    }

    #[test]
    fn a_trusted_proxy_is_believed_as_far_as_trusted_proxies_wrote() {
        for (told, expected) in [
            ("203.0.113.5", "203.0.113.5"),
            ("9.9.9.9, 203.0.113.5", "203.0.113.5"),
            ("9.9.9.9, 203.0.113.5, 10.1.1.1", "203.0.113.5"),
            ("10.2.2.2,10.1.1.1", "10.2.2.2"),
            ("203.0.113.5:4711", "203.0.113.5"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
            ("::ffff:203.0.113.5", "203.0.113.5"),
            ("9.9.9.9, unknown", "10.0.0.1"),
            ("9.9.9.9, unknown, 10.1.1.1", "10.1.1.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[("x-forwarded-for", told)]).0, expected, "{told}");
        }
    }

    #[test]
    fn several_headers_are_one_list() {
        let headers = [("x-forwarded-for", "9.9.9.9"), ("x-forwarded-for", "203.0.113.5")];
        assert_eq!(client("10.0.0.1", &headers).0, "203.0.113.5");
        let headers = [("x-forwarded-proto", "http, https")];
        assert_eq!(client("192.168.0.7", &headers), ("192.168.0.7".to_owned(), "https"));
    }
}
