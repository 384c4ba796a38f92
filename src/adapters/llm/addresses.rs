//! Which network addresses an upstream may have.
//!
//! Operators write upstream addresses, and a name may resolve to anything. A key sent to the machine's own network
//! would hand out cloud credentials or reach services that trust their neighbours, so the addresses a connection is
//! made to are judged, not the text they came from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use url::{Host, Url};

/// What is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// `https` on the public internet.
    Public,
    /// Also plain `http`, and private and loopback addresses.
    Anywhere,
}

/// Why an address was refused. Names neither host nor path: the path may hold a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Refused {
    #[error("upstream address is not a valid url")]
    NotAUrl,
    #[error("upstream address must be https")]
    Scheme,
    #[error("upstream address is private, loopback or reserved; public addresses are accepted")]
    Private,
    #[error("upstream address is link-local or a metadata service, which is never accepted")]
    Metadata,
}

/// Reads an address and judges all of it that needs no resolver.
pub(super) fn parse(text: &str, reach: Reach) -> Result<Url, Refused> {
    let url = Url::parse(text).map_err(|_| Refused::NotAUrl)?;
    match (url.scheme(), reach) {
        ("https", _) | ("http", Reach::Anywhere) => {}
        _ => return Err(Refused::Scheme),
    }
    // The client never asks its resolver about a literal address.
    match url.host() {
        Some(Host::Ipv4(v4)) => judge(IpAddr::V4(v4), reach)?,
        Some(Host::Ipv6(v6)) => judge(IpAddr::V6(v6), reach)?,
        Some(Host::Domain(_)) => {}
        None => return Err(Refused::NotAUrl),
    }
    Ok(url)
}

/// Whether a connection may be made to `address`.
pub(super) fn judge(address: IpAddr, reach: Reach) -> Result<(), Refused> {
    let address = embedded_v4(address).map_or(address, IpAddr::V4);
    if is_metadata(address) {
        return Err(Refused::Metadata);
    }
    if reach == Reach::Public && !is_public(address) {
        return Err(Refused::Private);
    }
    Ok(())
}

/// Resolves with the system's resolver and hands out only admitted addresses, so that a name cannot change its
/// meaning between the check and the connection.
pub(super) struct Resolver(pub(super) Reach);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let mut refused = None;
            let mut admitted = Vec::new();
            for address in found {
                match judge(address.ip(), reach) {
                    Ok(()) => admitted.push(address),
                    Err(why) => refused = Some(why),
                }
            }
            match (admitted.is_empty(), refused) {
                (true, Some(why)) => Err(why.into()),
                _ => Ok(Box::new(admitted.into_iter()) as Addrs),
            }
        })
    }
}

/// The IPv4 address a translating IPv6 address leads to.
fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match [a, b, c, d, e, f] {
        // IPv4-mapped and the deprecated IPv4-compatible form (RFC 4291 §2.5.5). `::` and `::1` are neither.
        [0, 0, 0, 0, 0, 0xffff] => v4(g, h),
        [0, 0, 0, 0, 0, 0] if g != 0 => v4(g, h),
        // NAT64 (RFC 6052, RFC 8215).
        [0x64, 0xff9b, 0, 0, 0, 0] | [0x64, 0xff9b, 1, _, _, _] => v4(g, h),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

/// Link-local, and the addresses clouds give their metadata services outside that range.
fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_link_local() || matches!(v4.octets(), [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192])
        }
        IpAddr::V6(v6) => {
            (v6.segments()[0] & 0xffc0) == 0xfe80 || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

/// Globally reachable unicast, by the special-purpose registries (RFC 6890 and its updates).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(a == 0
                || v4.is_private()
                || v4.is_loopback()
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || v4.is_documentation()
                || (a == 192 && b == 88 && c == 99)
                || (a == 198 && (b == 18 || b == 19))
                || a >= 224)
        }
        // 2000::/3 is all that is given out; Teredo and documentation lie inside it.
        IpAddr::V6(v6) => {
            let [a, b, ..] = v6.segments();
            (a & 0xe000) == 0x2000 && !(a == 0x2001 && (b < 0x200 || b == 0xdb8)) && !(a == 0x3fff && b < 0x1000)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn verdict(address: &str, reach: Reach) -> Result<(), Refused> {
        judge(address.parse().unwrap(), reach)
    }

    #[test]
    fn public_addresses_are_admitted() {
        for address in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808"] {
            assert_eq!(verdict(address, Reach::Public), Ok(()), "{address}");
        }
    }

    #[test]
    fn private_and_reserved_addresses_need_permission() {
        for address in [
            "0.0.0.0",
            "10.0.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "::",
            "::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert_eq!(verdict(address, Reach::Public), Err(Refused::Private), "{address}");
            assert_eq!(verdict(address, Reach::Anywhere), Ok(()), "{address}");
        }
    }

    #[test]
    fn metadata_addresses_are_never_admitted() {
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::",
        ] {
            for reach in [Reach::Public, Reach::Anywhere] {
                assert_eq!(verdict(address, reach), Err(Refused::Metadata), "{address}");
            }
        }
    }

    #[test]
    fn the_scheme_and_every_spelling_of_a_literal_address_are_judged() {
        for (url, refused) in [
            ("http://api.example.com/v1", Refused::Scheme),
            ("ftp://api.example.com", Refused::Scheme),
            ("sandbox://local", Refused::Scheme),
            ("nonsense", Refused::NotAUrl),
            ("https://2130706433/", Refused::Private),
            ("https://0x7f.1/", Refused::Private),
            ("https://[::1]/", Refused::Private),
            ("https://169.254.169.254/latest", Refused::Metadata),
        ] {
            assert_eq!(parse(url, Reach::Public), Err(refused), "{url}");
        }
        assert!(parse("https://api.example.com/v1", Reach::Public).is_ok());
        assert!(parse("http://127.0.0.1:9/v1", Reach::Anywhere).is_ok());
        assert_eq!(parse("http://169.254.169.254/", Reach::Anywhere), Err(Refused::Metadata));
    }

    #[tokio::test]
    async fn a_name_that_leads_home_does_not_resolve() {
        let home = || "localhost".parse::<Name>().unwrap();
        let refused = Resolver(Reach::Public).resolve(home()).await.err().unwrap();
        assert_eq!(refused.downcast_ref(), Some(&Refused::Private));
        let found: Vec<SocketAddr> = Resolver(Reach::Anywhere).resolve(home()).await.unwrap().collect();
        assert!(found.iter().all(|address| address.ip().is_loopback()) && !found.is_empty());
    }
}
