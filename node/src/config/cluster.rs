//! `[cluster]`: what must be equal on every node.

use std::collections::BTreeMap;
use std::time::Duration;

use raft::NodeId;

use super::section::{Reader, Section, check_address};
use super::{Node, Peers};

/// What every node of a cluster must be told alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// `name`: nodes of another cluster are refused; default `tollgate`.
    pub name: String,
    /// `[cluster.members]`: every node's number, and where the others reach it. Default: this node alone.
    /// Read only when a node starts for the first time.
    pub members: BTreeMap<NodeId, String>,
    /// `serving_lease`: a node that has not heard from a leader for so long admits nobody; default 5 s.
    pub serving_lease: Duration,
    /// `snapshot_every`: a snapshot is made after so many log entries; default 5000, at least 5.
    pub snapshot_every: u64,
}

impl Cluster {
    pub(super) fn read(reader: &Reader<'_>, node: &Node, peers: &Peers) -> Cluster {
        let section = reader.section("cluster");
        let members = if section.has("members") {
            read_members(section, node.id)
        } else {
            BTreeMap::from([(node.id, peers.listen.clone())])
        };
        if members.len() > 1 && peers.files.is_none() {
            reader.section("peers").mistake(
                "certificate",
                "is missing: several nodes only talk over mutual TLS (give peers.ca, peers.certificate and peers.key)",
            );
        }
        Cluster {
            name: section.text("name").unwrap_or_else(|| "tollgate".to_owned()),
            members,
            serving_lease: section.duration("serving_lease", Duration::from_secs(5)),
            snapshot_every: section.integer("snapshot_every", raft::cluster::SNAPSHOT_EVERY, 5..=1_000_000),
        }
    }
}

fn read_members(section: Section<'_>, this: NodeId) -> BTreeMap<NodeId, String> {
    let mut members = BTreeMap::new();
    for (number, address) in section.map("members", "1=host:port,2=host:port") {
        let Some(id) = number.parse().ok().filter(|id| *id > 0) else {
            section.mistake("members", format!("\"{number}\" is not a node's number: write 1, 2, 3, …"));
            continue;
        };
        if let Err(message) = check_address(&address) {
            section.mistake("members", format!("node {id}: {message}"));
        }
        members.insert(NodeId(id), address);
    }
    if !members.contains_key(&this) {
        section.mistake(
            "members",
            format!("does not list this node, whose node.id is {this}: add `{this} = \"host:port\"`"),
        );
    }
    members
}
