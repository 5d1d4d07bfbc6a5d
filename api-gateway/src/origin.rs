//! The origin of a call.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The origin of a call, as far as this gateway knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The caller's address; `None` behind a trusted proxy that does not send it.
    pub address: Option<IpAddr>,
    /// True if the call came over TLS.
    pub is_secure: bool,
}

impl Origin {
    /// Returns the other end of a connection.
    pub fn peer(peer: SocketAddr, is_secure: bool) -> Self {
        Self {
            // A dual-stack listener sees IPv4 callers under mapped addresses; policies and people write them plainly.
            address: Some(peer.ip().to_canonical()),
            is_secure,
        }
    }

    /// Returns the client behind a trusted reverse proxy. This is the last address of `X-Forwarded-For` that is no
    /// trusted proxy itself. `X-Forwarded-Proto` decides about TLS. Headers of other peers are ignored. The address is
    /// unknown if a trusted proxy sends none, or none that can be read. With the proxy's own address, strangers would
    /// pass for the proxy.
    pub fn behind(self, trusted: &[IpNet], headers: &HeaderMap) -> Self {
        let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
        if !self.address.as_ref().is_some_and(is_trusted) {
            return self;
        }
        let mut origin = Self {
            is_secure: self.is_secure || is_https(headers),
            address: None,
        };
        for address in forwarded_for(headers).into_iter().rev() {
            origin.address = parsed(address);
            // The author of an unreadable address is no proxy: entries further left are the word of a stranger.
            if !origin.address.as_ref().is_some_and(is_trusted) {
                break;
            }
        }
        origin
    }
}

fn forwarded_for(headers: &HeaderMap) -> Vec<&str> {
    headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect()
}

/// Parses an address as proxies write it: plain, in brackets, and with a port behind it.
fn parsed(text: &str) -> Option<IpAddr> {
    let plain = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let address = plain
        .parse()
        .or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

fn is_https(headers: &HeaderMap) -> bool {
    // Of several values, the last is that of the proxy that this gateway trusts.
    let last = headers.get_all("x-forwarded-proto").iter().next_back();
    last.and_then(|value| value.to_str().ok()?.rsplit(',').next())
        .is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"))
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, forwarded_for: &[&str], proto: Option<&str>) -> (String, bool) {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for value in forwarded_for {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        if let Some(proto) = proto {
            headers.append("x-forwarded-proto", proto.parse().unwrap());
        }
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        let origin = Origin::peer(peer, false).behind(&trusted, &headers);
        (origin.to_string(), origin.is_secure)
    }

    #[test]
    fn only_a_trusted_proxy_says_who_stands_behind_it() {
        for (peer, forwarded_for, wanted) in [
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.0.0.1", &[][..], "unknown"),
            ("10.0.0.1", &[""][..], "unknown"),
            ("10.0.0.1", &["unknown"][..], "unknown"),
            ("10.0.0.1", &["198.51.100.1:4711"][..], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::1]:443"][..], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"][..], "2001:db8::1"),
            (
                "10.0.0.1",
                &["198.51.100.1, 10.0.0.2:80"][..],
                "198.51.100.1",
            ),
            ("10.0.0.1", &["10.0.0.2"][..], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.1"][..], "198.51.100.1"),
            // The caller's own entry in the header is on the left and is not believed.
            ("10.0.0.1", &["127.0.0.1, 198.51.100.1"][..], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1, 10.0.0.2"][..], "198.51.100.1"),
            (
                "10.0.0.1",
                &["198.51.100.1", "10.0.0.2"][..],
                "198.51.100.1",
            ),
            ("10.0.0.1", &["198.51.100.1, nonsense"][..], "unknown"),
            ("::ffff:10.0.0.1", &["2001:db8::1"][..], "2001:db8::1"),
        ] {
            assert_eq!(
                seen(peer, forwarded_for, None).0,
                wanted,
                "{peer} {forwarded_for:?}"
            );
        }
    }

    #[test]
    fn only_a_trusted_proxy_says_that_it_spoke_tls() {
        assert!(seen("10.0.0.1", &[], Some("https")).1);
        assert!(seen("10.0.0.1", &[], Some("http, HTTPS")).1);
        assert!(!seen("10.0.0.1", &[], Some("https, http")).1);
        assert!(!seen("203.0.113.9", &[], Some("https")).1);
    }
}
