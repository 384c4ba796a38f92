//! Where upstreams may live (contract `admin.md` AD-D12): an operator's document must not make the server call
//! itself, its neighbours or the metadata service of its cloud.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// What the settings admit besides public `https` and `wss` addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// `ALLOW_INSECURE_UPSTREAMS`: `http` and `ws`, and private or loopback hosts.
    pub allow_insecure: bool,
}

/// What is wrong with an upstream address; nothing when it may be called. `schemes` is the secure scheme and its
/// insecure twin.
pub fn check_address(url: &Url, schemes: (&str, &str), policy: AddressPolicy) -> Option<&'static str> {
    if url.scheme() != schemes.0 && url.scheme() != schemes.1 {
        return Some(if schemes.0 == "wss" { "must use wss" } else { "must use https" });
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("must not contain user information");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Some("must not contain a query or a fragment");
    }
    let Some(host) = url.host() else { return Some("must name a host") };
    let reach = reach_of(&host);
    let insecure = url.scheme() == schemes.1;
    match reach {
        Reach::Forbidden => Some("must not be a link-local, metadata, multicast or unspecified address"),
        Reach::Private if !policy.allow_insecure => {
            Some("must not be a private or loopback host unless ALLOW_INSECURE_UPSTREAMS is set")
        }
        Reach::Private => None,
        Reach::LocalName | Reach::Public if !insecure => None,
        Reach::LocalName if policy.allow_insecure => None,
        Reach::LocalName | Reach::Public => Some(
            "must be encrypted (https or wss): http and ws are for private hosts with ALLOW_INSECURE_UPSTREAMS only",
        ),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Public,
    /// A name that no public DNS answers for.
    LocalName,
    Private,
    Forbidden,
}

fn reach_of(host: &Host<&str>) -> Reach {
    match host {
        Host::Ipv4(address) => reach_of_v4(*address),
        Host::Ipv6(address) => reach_of_v6(*address),
        Host::Domain(name) => reach_of_name(name.trim_end_matches('.')),
    }
}

fn reach_of_name(name: &str) -> Reach {
    if matches!(name, "metadata" | "metadata.google.internal" | "instance-data") || name.is_empty() {
        return Reach::Forbidden;
    }
    let Some((_, top)) = name.rsplit_once('.') else {
        return if name == "localhost" { Reach::Private } else { Reach::LocalName };
    };
    match top {
        "localhost" => Reach::Private,
        // RFC 6761, RFC 6762, RFC 8375 and the ICANN private-use name.
        "test" | "example" | "invalid" | "local" | "internal" => Reach::LocalName,
        _ if name.ends_with(".home.arpa") => Reach::LocalName,
        _ => Reach::Public,
    }
}

fn reach_of_v4(address: Ipv4Addr) -> Reach {
    let [a, b, ..] = address.octets();
    // 100.100.100.200 is the metadata service of Alibaba Cloud.
    if a == 0 || a >= 224 || address.is_link_local() || address == Ipv4Addr::new(100, 100, 100, 200) {
        return Reach::Forbidden;
    }
    // 100.64.0.0/10 is carrier-grade NAT (RFC 6598), 198.18.0.0/15 is for benchmarks (RFC 2544).
    let shared = a == 100 && (64..128).contains(&b);
    let benchmark = a == 198 && (b == 18 || b == 19);
    if address.is_loopback() || address.is_private() || shared || benchmark { Reach::Private } else { Reach::Public }
}

fn reach_of_v6(address: Ipv6Addr) -> Reach {
    if let Some(inner) = embedded_v4(address) {
        return reach_of_v4(inner);
    }
    // fd00:ec2::254 is the metadata service of Amazon.
    let metadata = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let first = address.segments()[0];
    if address.is_unspecified() || address.is_multicast() || first & 0xffc0 == 0xfe80 || address == metadata {
        return Reach::Forbidden;
    }
    // fc00::/7 is unique-local (RFC 4193), fec0::/10 is the withdrawn site-local range.
    if address.is_loopback() || first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0 {
        return Reach::Private;
    }
    Reach::Public
}

/// The IPv4 address inside a mapped (`::ffff:0:0/96`), translated (`64:ff9b::/96`) or 6to4 (`2002::/16`) address.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Some(mapped);
    }
    if (s0, s1, s2, s3, s4, s5) == (0x64, 0xff9b, 0, 0, 0, 0) {
        return Some(v4(s6, s7));
    }
    (s0 == 0x2002).then(|| v4(s1, s2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(address: &str, allow_insecure: bool) -> Option<&'static str> {
        let schemes = if address.starts_with("ws") { ("wss", "ws") } else { ("https", "http") };
        check_address(&Url::parse(address).unwrap(), schemes, AddressPolicy { allow_insecure })
    }

    #[test]
    fn public_encrypted_addresses_are_accepted() {
        for good in [
            "https://openrouter.ai/api/v1",
            "https://8.8.8.8:8443/x",
            "wss://tts.example.com/v1",
            "https://[2606:4700::1]/",
            "https://llm.example.test/v1",
        ] {
            assert_eq!(verdict(good, false), None, "{good}");
        }
    }

    #[test]
    fn private_hosts_and_plain_text_need_the_setting() {
        for address in [
            "http://127.0.0.1:9/v1",
            "https://localhost/v1",
            "https://10.1.2.3/",
            "http://192.168.0.1/",
            "http://[::1]:4000/",
            "http://[::ffff:10.0.0.1]/",
            "http://[fd12::1]/",
            "http://2130706433/",
            "http://llm:8000/v1",
            "ws://tts.example.test/v1",
        ] {
            assert!(verdict(address, false).is_some(), "{address}");
            assert_eq!(verdict(address, true), None, "{address}");
        }
    }

    #[test]
    fn some_addresses_are_never_called() {
        for address in [
            "http://169.254.169.254/latest",
            "https://metadata.google.internal/",
            "https://metadata.google.internal./",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::1]/",
            "http://100.100.100.200/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://224.0.0.1/",
            "http://openrouter.ai/api/v1",
            "ftp://openrouter.ai/",
            "file:///etc/passwd",
            "https://user:pass@openrouter.ai/",
            "https://openrouter.ai/?x=1",
            "https://openrouter.ai/#x",
        ] {
            assert!(verdict(address, true).is_some(), "{address}");
        }
    }
}
