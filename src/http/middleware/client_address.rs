//! Where a request came from, as far as proxies in front of us are believed (contract `observability.md` §7.6).

use std::net::IpAddr;

use poem::Request;
use poem::http::HeaderMap;

/// The client's address, attached to every request that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// The address that the outermost of `hops` trusted proxies saw; without proxies, the other end of the socket.
    pub fn of(req: &Request, hops: u8) -> Option<Self> {
        let socket = req.remote_addr().as_socket_addr().map(std::net::SocketAddr::ip);
        forwarded(req.headers(), hops).or(socket).map(Self)
    }
}

/// Every proxy appends what it saw, so only the last `hops` entries are anybody's word but the client's. A header too
/// short for that is not believed at all.
fn forwarded(headers: &HeaderMap, hops: u8) -> Option<IpAddr> {
    let nth_from_the_right = usize::from(hops).checked_sub(1)?;
    let lines = headers.get_all("x-forwarded-for");
    let seen: Vec<_> = lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).collect();
    seen.iter().rev().nth(nth_from_the_right)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lines: &[&str], hops: u8) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        forwarded(&headers, hops).map(|address| address.to_string())
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(found(&["1.1.1.1, 2.2.2.2"], 0), None);
        assert_eq!(found(&["1.1.1.1, 2.2.2.2"], 1).as_deref(), Some("2.2.2.2"));
        assert_eq!(found(&["6.6.6.6", "1.1.1.1, 2.2.2.2"], 2).as_deref(), Some("1.1.1.1"));
        assert_eq!(found(&["2.2.2.2"], 2), None);
        assert_eq!(found(&["evil, 2001:db8::1"], 1).as_deref(), Some("2001:db8::1"));
        assert_eq!(found(&["not an address"], 1), None);
        assert_eq!(found(&[], 1), None);
    }
}
