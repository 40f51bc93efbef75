//! Between the consensus library's types and ours. One function each way and type.

use std::collections::BTreeMap;
use std::io;

use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf};
use openraft::impls::leader_id_adv::LeaderId;
use openraft::{BasicNode, EntryPayload};

use super::TypeConfig;
use crate::cluster;
use crate::ids::NodeId;
use crate::storage::records;

pub(super) type LogId = LogIdOf<TypeConfig>;
pub(super) type Vote = VoteOf<TypeConfig>;
pub(super) type Entry = EntryOf<TypeConfig>;
pub(super) type StoredMembership = StoredMembershipOf<TypeConfig>;
pub(super) type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
type Membership = openraft::Membership<u64, BasicNode>;

pub(super) fn log_id(ours: records::LogId) -> LogId {
    LogId { leader_id: LeaderId { term: ours.term, node_id: ours.node }, index: ours.index }
}

pub(super) fn our_log_id(theirs: &LogId) -> records::LogId {
    records::LogId { term: theirs.leader_id.term, node: theirs.leader_id.node_id, index: theirs.index }
}

pub(super) fn vote(ours: records::Vote) -> Vote {
    Vote { leader_id: LeaderId { term: ours.term, node_id: ours.node }, committed: ours.committed }
}

pub(super) fn our_vote(theirs: &Vote) -> records::Vote {
    records::Vote { term: theirs.leader_id.term, node: theirs.leader_id.node_id, committed: theirs.committed }
}

/// Errors: a membership that is none (a voter without an address).
pub(super) fn entry(ours: records::Entry) -> io::Result<Entry> {
    let payload = match ours.payload {
        records::Payload::Blank => EntryPayload::Blank,
        records::Payload::Normal(sealed) => EntryPayload::Normal(sealed),
        records::Payload::Membership(members) => EntryPayload::Membership(membership(members)?),
    };
    Ok(Entry { log_id: log_id(ours.id), payload })
}

pub(super) fn our_entry(theirs: &Entry) -> records::Entry {
    let payload = match &theirs.payload {
        EntryPayload::Blank => records::Payload::Blank,
        EntryPayload::Normal(sealed) => records::Payload::Normal(sealed.clone()),
        EntryPayload::Membership(members) => records::Payload::Membership(our_membership(members)),
    };
    records::Entry { id: our_log_id(&theirs.log_id), payload }
}

fn membership(ours: records::Membership) -> io::Result<Membership> {
    let nodes: BTreeMap<u64, BasicNode> =
        ours.nodes.into_iter().map(|(node, address)| (node, BasicNode::new(address))).collect();
    Membership::new(ours.voters, nodes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn our_membership(theirs: &Membership) -> records::Membership {
    records::Membership {
        voters: theirs.get_joint_config().clone(),
        nodes: theirs.nodes().map(|(node, basic)| (*node, basic.addr.clone())).collect(),
    }
}

/// Who is in the cluster: while the voters change, those of before and of after vote.
pub(super) fn members(theirs: &StoredMembership) -> cluster::Membership {
    cluster::Membership {
        addresses: theirs.nodes().map(|(node, basic)| (NodeId(*node), basic.addr.clone())).collect(),
        voters: theirs.voter_ids().map(NodeId).collect(),
    }
}

/// Errors: as [`entry`].
pub(super) fn snapshot_meta(ours: records::SnapshotMeta) -> io::Result<SnapshotMeta> {
    let last_membership = StoredMembership::new(ours.membership_id.map(log_id), membership(ours.membership)?);
    Ok(SnapshotMeta { last_log_id: ours.last.map(log_id), last_membership })
}

pub(super) fn our_snapshot_meta(last: Option<&LogId>, membership: &StoredMembership) -> records::SnapshotMeta {
    records::SnapshotMeta {
        last: last.map(our_log_id),
        membership_id: membership.log_id().as_ref().map(our_log_id),
        membership: our_membership(membership.membership()),
    }
}
