//! Where a request comes from that a proxy has passed on.
//!
//! Anybody can write `X-Forwarded-For`. So it is read from its end, where the proxy that we know has written, and no
//! further than to the first address that is none of our proxies: whatever stands before that, the client has said.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{AsHeaderName, FORWARDED, HeaderMap};

use crate::egress::Cidrs;
use crate::http::rate_limit::Peer;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The proxies whose word is taken for where a request comes from.
#[derive(Debug, Clone, Default)]
pub struct Proxies(pub Cidrs);

impl Proxies {
    /// The client of a request that came over a connection from `peer`.
    pub(super) fn client(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        if !self.trusts(peer.0) {
            return peer;
        }
        let forwarded_for = hops(headers, X_FORWARDED_FOR).map(|hops| self.last_stranger(peer, hops.map(address)));
        let forwarded = hops(headers, FORWARDED).map(|hops| self.last_stranger(peer, hops.map(node)));
        match (forwarded_for, forwarded) {
            (None, None) => peer,
            (Some(client), None) | (None, Some(client)) => client,
            // A proxy writes one of them and passes the other on as the client wrote it, and which is not known.
            (Some(client), Some(same)) if client.0 == same.0 => client,
            (Some(_), Some(_)) => peer,
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The first that is no proxy of ours, of addresses from the nearest on. Where one is not said or no address, it is
    /// the proxy that was told so.
    fn last_stranger(&self, peer: Peer, mut nearest_first: impl Iterator<Item = Option<IpAddr>>) -> Peer {
        let mut client = peer.0;
        while self.trusts(client)
            && let Some(Some(before)) = nearest_first.next()
        {
            client = before;
        }
        Peer(client)
    }
}

/// What a list in a header holds, the last first; `None` where there is no such header.
fn hops(headers: &HeaderMap, name: impl AsHeaderName) -> Option<impl Iterator<Item = &str>> {
    let mut values = headers.get_all(name).iter().rev().peekable();
    values.peek()?;
    Some(values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(',')))
}

/// An address with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>();
    let address = address.or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// The address of `for=` in an element of `Forwarded` (RFC 7239, section 4).
fn node(element: &str) -> Option<IpAddr> {
    let pair = element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value.trim())
    })?;
    address(pair.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn client(peer: &str, headers: &[(&'static str, &'static str)]) -> String {
        let proxies = Proxies("10.0.0.0/8,fd00::/8".parse().unwrap());
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        proxies.client(Peer(peer.parse().unwrap()), &headers).0.to_string()
    }

    fn for_(value: &'static str) -> String {
        client(PROXY, &[("x-forwarded-for", value)])
    }

    #[test]
    fn nobody_is_believed_who_is_no_proxy_of_ours() {
        for headers in [
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-for", "10.0.0.2"),
            ("forwarded", "for=192.0.2.7"),
        ] {
            assert_eq!(client("198.51.100.9", &[headers]), "198.51.100.9", "{headers:?}");
        }
        let nobody = Proxies::default();
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-forwarded-for"),
            HeaderValue::from_static("1.2.3.4"),
        )]);
        let peer = Peer(PROXY.parse().unwrap());
        assert_eq!(nobody.client(peer, &headers).0, peer.0);
    }

    #[test]
    fn the_client_is_the_last_one_that_is_no_proxy_whatever_it_has_written_itself() {
        assert_eq!(for_("192.0.2.7"), "192.0.2.7");
        assert_eq!(for_("1.1.1.1, 8.8.8.8, 192.0.2.7"), "192.0.2.7");
        assert_eq!(for_("1.1.1.1, 192.0.2.7, 10.0.0.3,fd00::3"), "192.0.2.7");
        assert_eq!(for_("10.0.0.9, 192.0.2.7"), "192.0.2.7");
        assert_eq!(for_("nonsense, 192.0.2.7:4711"), "192.0.2.7");
        assert_eq!(for_("[2001:db8::7]:4711"), "2001:db8::7");
        assert_eq!(for_("::ffff:192.0.2.7"), "192.0.2.7");
        let lines = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "192.0.2.7, 10.0.0.3"),
        ];
        assert_eq!(client(PROXY, &lines), "192.0.2.7");
    }

    #[test]
    fn what_says_no_address_is_the_proxys_that_passed_it_on() {
        assert_eq!(client(PROXY, &[]), PROXY);
        assert_eq!(for_(""), PROXY);
        assert_eq!(for_("192.0.2.7, unknown"), PROXY);
        assert_eq!(for_("192.0.2.7, unknown, 10.0.0.3"), "10.0.0.3");
        assert_eq!(for_("10.0.0.4, 10.0.0.3"), "10.0.0.4");
    }

    #[test]
    fn the_standards_header_is_read_alike() {
        let forwarded = |value| client(PROXY, &[("forwarded", value)]);
        assert_eq!(
            forwarded("for=1.1.1.1, For=192.0.2.7;proto=http;by=10.0.0.1"),
            "192.0.2.7"
        );
        assert_eq!(
            forwarded("for=192.0.2.7, proto=https;for=\"[fd00::3]:80\""),
            "192.0.2.7"
        );
        assert_eq!(forwarded("for=\"[2001:db8::7]:4711\""), "2001:db8::7");
        assert_eq!(forwarded("for=\"1.1.1.1, for=192.0.2.7"), "192.0.2.7");
        assert_eq!(forwarded("for=192.0.2.7, for=_hidden"), PROXY);
        assert_eq!(forwarded("for=192.0.2.7, by=10.0.0.1"), PROXY);
    }

    #[test]
    fn of_two_headers_that_differ_neither_is_believed() {
        let both =
            |forwarded_for, forwarded| client(PROXY, &[("x-forwarded-for", forwarded_for), ("forwarded", forwarded)]);
        assert_eq!(both("192.0.2.7", "for=192.0.2.7"), "192.0.2.7");
        assert_eq!(both("192.0.2.7", "for=1.1.1.1"), PROXY);
    }
}
