//! Where the client may connect to: what a URL's host resolves to is judged at every connection, so a name that changes is judged again.

use raft::doors::Destination;
use raft::resources::replica_address;

/// Which addresses may be connected to.
#[derive(Clone, Debug, Default)]
pub enum Destinations {
    /// All of them: the URL is the operator's own, as that of a collector of spans.
    #[default]
    Any,
    /// Those where a replica may be.
    Replicas {
        /// Addresses of the node's own machine, loopback included, are allowed.
        allow_loopback: bool,
        /// The node's own ports. On the node's own machine they are never a replica's.
        own_ports: Vec<u16>,
    },
}

impl Destinations {
    /// Errors: why this address may not be connected to, and which setting allows it if one does.
    pub(super) fn check(&self, destination: Destination) -> Result<(), String> {
        let Destinations::Replicas { allow_loopback, own_ports } = self else { return Ok(()) };
        let address = destination.address;
        if let Some(why) = replica_address::forbidden(address.ip()) {
            return Err(format!("{} is {why}, where no replica may be", address.ip()));
        }
        if destination.is_this_machine && own_ports.contains(&address.port()) {
            return Err(format!("{address} is a port of this node itself"));
        }
        if address.ip().is_loopback() && !allow_loopback {
            return Err(format!(
                "{} is a loopback address, where replicas may be only with `upstream.allow_loopback = true`",
                address.ip()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_judged_by_address_and_port() {
        let strict = Destinations::Replicas { allow_loopback: false, own_ports: vec![8080, 8443] };
        let local = Destinations::Replicas { allow_loopback: true, own_ports: vec![8080, 8443] };
        let (mine, other) = (true, false);
        let table = [
            ("10.0.0.7:8000", other, None, None),
            ("10.0.0.7:8080", other, None, None),
            ("127.0.0.1:8000", mine, Some("upstream.allow_loopback"), None),
            ("[::1]:8000", mine, Some("upstream.allow_loopback"), None),
            ("10.0.0.1:8000", mine, None, None),
            ("127.0.0.1:8080", mine, Some("a port of this node"), Some("a port of this node")),
            ("10.0.0.1:8443", mine, Some("a port of this node"), Some("a port of this node")),
            ("169.254.169.254:80", other, Some("link-local"), Some("link-local")),
            ("[fe80::1]:8000", other, Some("link-local"), Some("link-local")),
            ("0.0.0.0:8000", mine, Some("unspecified"), Some("unspecified")),
        ];
        for (address, is_this_machine, strictly, locally) in table {
            let destination = Destination { address: address.parse().unwrap(), is_this_machine };
            for (rule, expected) in [(&strict, strictly), (&local, locally)] {
                let why = rule.check(destination).err();
                match expected {
                    None => assert_eq!(why, None, "{address}"),
                    Some(word) => assert!(why.as_ref().is_some_and(|why| why.contains(word)), "{address}: {why:?}"),
                }
            }
            assert_eq!(Destinations::Any.check(destination), Ok(()), "{address}");
        }
    }
}
