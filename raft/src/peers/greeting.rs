//! The first words on a connection. `tests/frozen.rs` holds their bytes: this is what two versions of the program
//! use to find out that they cannot talk, so it changes only by adding versions.

use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError, Record};

/// The version of everything after the greeting. Peers of another version are refused.
pub const PROTOCOL: u16 = 1;

/// What the dialling side says first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u16,
    /// The cluster's name.
    pub cluster: String,
    /// Who dials.
    pub from: u64,
    /// The number of its disk.
    pub disk: u128,
    /// Whom it wants.
    pub to: u64,
    /// What the connection is for.
    pub lane: Lane,
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Lane {
    /// Requests and their answers.
    Calls,
    /// One snapshot, so that it does not hold up the calls.
    Snapshot,
}

/// What the other side answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Welcome {
    /// Go on.
    Accepted {
        /// The number of the answering node's disk.
        disk: u128,
    },
    /// No, and why; the connection closes.
    Refused(String),
}

impl Record for Hello {
    const TYPE: u16 = 20;
    const VERSION: u16 = 1;
}

impl Record for Welcome {
    const TYPE: u16 = 21;
    const VERSION: u16 = 1;
}

impl Hello {
    /// Its record.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The record that `bytes` are.
    pub fn from_bytes(bytes: &[u8]) -> Result<Hello, DecodeError> {
        codec::decode(bytes)
    }

    /// Why `node` of `cluster` does not take this connection, if so.
    pub fn refusal(&self, cluster: &str, node: u64) -> Option<String> {
        if self.protocol != PROTOCOL {
            let theirs = self.protocol;
            return Some(format!("peer protocol {theirs} is not spoken here, {PROTOCOL} is"));
        }
        if self.cluster != cluster {
            return Some(format!("this is cluster `{cluster}`, not `{}`", self.cluster));
        }
        if self.to != node {
            return Some(format!("this is node {node}, not {}", self.to));
        }
        if self.from == node {
            return Some(format!("node {node} is the name of this node, not of the one that calls"));
        }
        None
    }
}

impl Welcome {
    /// Its record.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The record that `bytes` are.
    pub fn from_bytes(bytes: &[u8]) -> Result<Welcome, DecodeError> {
        codec::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_peer_of_this_cluster_that_means_this_node_is_welcome() {
        let hello = |protocol, cluster: &str, from, to| Hello {
            protocol,
            cluster: cluster.into(),
            from,
            disk: 7,
            to,
            lane: Lane::Calls,
        };
        let table = [
            (hello(PROTOCOL, "a", 2, 1), ""),
            (hello(9, "a", 2, 1), "peer protocol 9 is not spoken here, 1 is"),
            (hello(PROTOCOL, "b", 2, 1), "this is cluster `a`, not `b`"),
            (hello(PROTOCOL, "a", 2, 3), "this is node 1, not 3"),
            (hello(PROTOCOL, "a", 1, 1), "node 1 is the name of this node, not of the one that calls"),
        ];
        for (hello, refusal) in table {
            assert_eq!(hello.refusal("a", 1).unwrap_or_default(), refusal, "{hello:?}");
        }
    }
}
