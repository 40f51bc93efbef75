//! Where a replica can never be: addresses that lead to the machine's own link, to a cloud's metadata service, or to no single host.
//!
//! An administrator of a namespace names the replicas, and the gateway connects to them from inside the platform's network. Without these
//! rules an annotation could make it read a cloud's credentials. A name is judged by what it resolves to, at every connection.
//!
//! Loopback is not judged here: whether replicas may be on the node's own machine is a node's setting.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metadata services outside the link-local range: Alibaba Cloud, Azure, Google Cloud over IPv6.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
const METADATA_V6: [Ipv6Addr; 1] = [Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// Why no replica may be at `address`, as the end of a sentence; `None` if one may. An IPv4 address inside an IPv6 one (mapped,
/// NAT64, 6to4) is judged like itself.
pub fn forbidden(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => forbidden_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) if inner.is_loopback() && address.to_ipv4_mapped().is_none() => {
                Some("a disguised loopback address")
            }
            Some(inner) => forbidden_v4(inner),
            None => forbidden_v6(address),
        },
    }
}

fn forbidden_v4(address: Ipv4Addr) -> Option<&'static str> {
    if address.is_link_local() {
        Some("a link-local address")
    } else if METADATA_V4.contains(&address) {
        Some("the address of a cloud's metadata service")
    } else if address.octets()[0] == 0 {
        Some("an unspecified address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.octets()[0] >= 240 {
        Some("a reserved address")
    } else {
        None
    }
}

fn forbidden_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    if segments[0] & 0xffc0 == 0xfe80 {
        Some("a link-local address")
    // AWS keeps its services for instances in fd00:ec2::/32.
    } else if METADATA_V6.contains(&address) || segments[..2] == [0xfd00, 0x0ec2] {
        Some("the address of a cloud's metadata service")
    } else if address.is_unspecified() {
        Some("an unspecified address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else {
        None
    }
}

/// The IPv4 address that packets to `address` reach in the end: mapped (RFC 4291), compatible (RFC 4291, deprecated),
/// NAT64 (RFC 6052, RFC 8215) or 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let at = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => at(high, low),
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, 0, _] => None,
        [0, 0, 0, 0, 0, 0, high, low] => at(high, low),
        [0x64, 0xff9b, 0 | 1, .., high, low] => at(high, low),
        [0x2002, high, low, ..] => at(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_where_no_replica_may_be() {
        let table = [
            ("10.0.0.7", None),
            ("192.168.1.1", None),
            ("100.64.0.1", None),
            ("203.0.113.9", None),
            ("127.0.0.1", None),
            ("::1", None),
            ("::ffff:127.0.0.1", None),
            ("fd12:3456::1", None),
            ("2001:db8::1", None),
            ("64:ff9b::10.0.0.7", None),
            ("169.254.169.254", Some("link-local")),
            ("169.254.170.2", Some("link-local")),
            ("169.254.0.1", Some("link-local")),
            ("fe80::1", Some("link-local")),
            ("febf::1", Some("link-local")),
            ("100.100.100.200", Some("metadata")),
            ("168.63.129.16", Some("metadata")),
            ("fd00:ec2::254", Some("metadata")),
            ("fd00:ec2::23", Some("metadata")),
            ("fd20:ce::254", Some("metadata")),
            ("0.0.0.0", Some("unspecified")),
            ("0.1.2.3", Some("unspecified")),
            ("::", Some("unspecified")),
            ("224.0.0.1", Some("multicast")),
            ("ff02::1", Some("multicast")),
            ("255.255.255.255", Some("reserved")),
            ("240.0.0.1", Some("reserved")),
            ("::ffff:169.254.169.254", Some("link-local")),
            ("::169.254.169.254", Some("link-local")),
            ("64:ff9b::169.254.169.254", Some("link-local")),
            ("64:ff9b:1::a9fe:a9fe", Some("link-local")),
            ("2002:a9fe:a9fe::1", Some("link-local")),
            ("::ffff:100.100.100.200", Some("metadata")),
            ("::ffff:0.0.0.0", Some("unspecified")),
            ("64:ff9b::127.0.0.1", Some("loopback")),
            ("2002:7f00:1::", Some("loopback")),
        ];
        for (address, expected) in table {
            let why = forbidden(address.parse().unwrap());
            match expected {
                None => assert_eq!(why, None, "{address}"),
                Some(word) => assert!(why.is_some_and(|why| why.contains(word)), "{address}: {why:?}"),
            }
        }
    }
}
