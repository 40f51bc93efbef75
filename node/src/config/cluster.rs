//! `[cluster]`: what must be equal on every node.

use std::collections::BTreeMap;
use std::time::Duration;

use raft::NodeId;

use super::node::NODE_IDS;
use super::section::{Reader, Section, check_address};
use super::{Node, Peers};

/// What every node of a cluster must be told alike, but for `join`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// `name`: nodes of another cluster are refused; default `tollgate`.
    pub name: String,
    /// `[cluster.members]`: every node's number, and where the others reach it. Default: this node alone.
    /// Read only when a node starts for the first time. Empty if `join` is set.
    pub members: BTreeMap<NodeId, String>,
    /// `join`: this node founds nothing; it waits until it is added to a cluster that runs. Default false.
    pub join: bool,
    /// `serving_lease`: a node that has not heard from a leader for so long admits nobody; default 5 s.
    pub serving_lease: Duration,
    /// `snapshot_every`: a snapshot is made after so many log entries; default 5000, at least 5.
    pub snapshot_every: u64,
}

impl Cluster {
    pub(super) fn read(reader: &Reader<'_>, node: &Node, peers: &Peers) -> Cluster {
        let section = reader.section("cluster");
        let join = section.flag("join", false);
        let members = match section.has("members") {
            true if join => {
                section.mistake(
                    "members",
                    "is who founds a cluster, and cluster.join = true says that this node joins one: leave one of them out",
                );
                BTreeMap::new()
            }
            true => read_members(section, node.id),
            false if join => BTreeMap::new(),
            false => BTreeMap::from([(node.id, peers.listen.clone())]),
        };
        if (join || members.len() > 1) && peers.files.is_none() {
            reader.section("peers").mistake(
                "certificate",
                "is missing: several nodes only talk over mutual TLS (give peers.ca, peers.certificate and peers.key)",
            );
        }
        Cluster {
            name: section.text("name").unwrap_or_else(|| "tollgate".to_owned()),
            members,
            join,
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

/// Whether `id` and `address` can be a member's; if not, what is wrong.
pub(crate) fn check_member(id: u64, address: &str) -> Result<(), String> {
    if !NODE_IDS.contains(&id) {
        return Err(format!("id: {id} is not a whole number from {} to {}", NODE_IDS.start(), NODE_IDS.end()));
    }
    check_address(address).map_err(|wrong| format!("address: {wrong}"))?;
    if address.ends_with(":0") {
        return Err(format!(
            "address: \"{address}\" has port 0: write the port that the node listens on for its peers"
        ));
    }
    Ok(())
}
