//! The address that a connection counts for: an IPv4 address, or an IPv6 /64, which is what one customer of a network is given at least.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use http::HeaderMap;

/// An IPv4 address, or the first 64 bits of an IPv6 address. An IPv4 address inside an IPv6 one counts as itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Address(IpAddr);

impl Address {
    pub(super) fn of(ip: IpAddr) -> Address {
        match ip.to_canonical() {
            IpAddr::V6(ip) => Address(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into()),
            IpAddr::V4(ip) => Address(ip.into()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0, if self.0.is_ipv6() { "/64" } else { "" })
    }
}

/// `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `ip` is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.first, ip.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => {
                leading(u128::from(first.to_bits() ^ ip.to_bits()) << 96) >= self.prefix
            }
            (IpAddr::V6(first), IpAddr::V6(ip)) => leading(first.to_bits() ^ ip.to_bits()) >= self.prefix,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn leading(difference: u128) -> u8 {
    u8::try_from(difference.leading_zeros()).unwrap_or(u8::MAX)
}

/// It is neither an address nor a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is not a network: write an address or a prefix, such as \"10.0.0.7\" or \"10.0.0.0/8\"")]
pub struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Network, NotANetwork> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let first: IpAddr = address.trim().parse().map_err(|_| NotANetwork)?;
        let longest = if first.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), str::parse).map_err(|_| NotANetwork)?;
        if prefix > longest { Err(NotANetwork) } else { Ok(Network { first, prefix }) }
    }
}

/// The caller that a trusted proxy names: the last entry of `x-forwarded-for` that is no trusted proxy itself. Entries before it are
/// the caller's own to write. `None` if there is none that can be read.
pub(super) fn forwarded_for(headers: &HeaderMap, trusted: &[Network]) -> Option<IpAddr> {
    let values: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    let entries = values.iter().rev().flat_map(|value| value.rsplit(','));
    for entry in entries {
        let ip: IpAddr = entry.trim().trim_matches(['[', ']']).parse().ok()?;
        if !trusted.iter().any(|network| network.contains(ip)) {
            return Some(ip);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_counts_as_its_64() {
        let table = [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ];
        for (ip, counted) in table {
            assert_eq!(Address::of(ip.parse().unwrap()).to_string(), counted, "{ip}");
        }
    }

    #[test]
    fn networks() {
        let table = [
            ("10.0.0.0/8", "10.9.9.9", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.6", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ];
        for (network, ip, inside) in table {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(ip.parse().unwrap()), inside, "{network:?} {ip}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "host", "10.0.0.0/", "2001:db8::/129"] {
            assert_eq!(wrong.parse::<Network>(), Err(NotANetwork), "{wrong}");
        }
    }

    #[test]
    fn a_caller_cannot_choose_what_a_trusted_proxy_says_of_it() {
        let trusted: Vec<Network> = vec!["10.0.0.0/8".parse().unwrap()];
        let table = [
            (&["192.0.2.1"][..], Some("192.0.2.1")),
            (&["198.51.100.9, 192.0.2.1"], Some("192.0.2.1")),
            (&["198.51.100.9", "192.0.2.1, 10.0.0.3"], Some("192.0.2.1")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            (&["10.0.0.3"], None),
            (&["192.0.2.1, unknown"], None),
            (&[], None),
        ];
        for (values, expected) in table {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-forwarded-for", value.parse().unwrap());
            }
            let found = forwarded_for(&headers, &trusted).map(|ip| ip.to_string());
            assert_eq!(found.as_deref(), expected, "{values:?}");
        }
    }
}
