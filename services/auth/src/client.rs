//! Who sends a request, as far as the network knows.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use actix_web::dev::Payload;
use actix_web::http::header::USER_AGENT;
use actix_web::{FromRequest, HttpRequest};

/// As the table has it, in characters.
const LONGEST_USER_AGENT: usize = 255;

/// The program at the other end, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    /// As the gateway tells it in `x-forwarded-for`; without a gateway, the peer.
    pub(crate) address: IpAddr,
    /// What it says of itself, cut to 255 characters.
    pub(crate) user_agent: String,
}

impl Client {
    /// What counts as one place: an IPv4 address, or a /64 of IPv6, which is what one customer has.
    pub(crate) fn network(&self) -> String {
        match self.address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        }
    }
}

impl FromRequest for Client {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let header = |name: &str| request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        // The gateway sets it to exactly one address.
        let told = header("x-forwarded-for").and_then(|address| address.trim().parse::<IpAddr>().ok());
        let peer = request.peer_addr().map(|peer| peer.ip());
        let user_agent = header(USER_AGENT.as_str()).unwrap_or_default();
        ready(Ok(Self {
            address: told.or(peer).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical(),
            user_agent: user_agent.chars().filter(|c| !c.is_control()).take(LONGEST_USER_AGENT).collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn client(forwarded: &str) -> Client {
        let request = TestRequest::default()
            .peer_addr("10.0.0.1:80".parse().unwrap())
            .insert_header(("x-forwarded-for", forwarded))
            .to_http_request();
        Client::from_request(&request, &mut Payload::None).into_inner().unwrap()
    }

    #[test]
    fn what_is_no_single_address_does_not_count() {
        for (told, address) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("192.0.2.1, 192.0.2.2", "10.0.0.1"),
            ("unknown", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(client(told).address.to_string(), address, "{told:?}");
        }
    }

    #[test]
    fn whoever_has_many_addresses_of_ipv6_is_still_at_one_place() {
        assert_eq!(client("2001:db8:1:2:3:4:5:6").network(), client("2001:db8:1:2:ffff::1").network());
        assert_ne!(client("2001:db8:1:2::1").network(), client("2001:db8:1:3::1").network());
        assert_eq!(client("192.0.2.1").network(), "192.0.2.1");
    }
}
