//! GROWTH: nothing grows without bound. When nobody calls any more, a node has no more tasks, connections and log than a fixed
//! bound.

use super::Violation;
use crate::world::{Observation, Shared, Size};

/// Tasks of a node at rest: its ports, actors, consensus, and some for each peer and replica.
const TASKS: usize = 40;
const TASKS_PER_NEIGHBOUR: usize = 10;
/// Connections at rest: to and from each peer, and idle ones to each replica.
const CONNECTIONS_PER_NEIGHBOUR: usize = 12;
/// Snapshots on disk: the newest, and the one before while it is replaced.
const SNAPSHOTS: usize = 2;
/// Entries beyond those that the snapshot policy keeps: a snapshot takes its time.
const ENTRIES_LATE: u64 = 100;

pub(super) fn check_at_rest(shared: &Shared, seen: &Observation) -> Result<(), Violation> {
    let Size { tasks, connections, calls, entries, snapshots } = seen.size;
    let neighbours = shared.nodes.len() + shared.plan.engines;
    let entries_max = (shared.plan.snapshot_every + shared.plan.snapshot_every / 5 + ENTRIES_LATE) as usize;
    let bounds = [
        ("tasks", tasks, TASKS + TASKS_PER_NEIGHBOUR * neighbours),
        ("connections", connections, CONNECTIONS_PER_NEIGHBOUR * neighbours),
        ("calls to replicas", calls as usize, 0),
        ("log entries", entries, entries_max),
        ("snapshots", snapshots, SNAPSHOTS),
    ];
    match bounds.into_iter().find(|(_, has, max)| has > max) {
        None => Ok(()),
        Some((what, has, max)) => {
            let text = format!("nobody calls, and node {} has {has} {what}, {max} at most are expected", seen.node);
            Err(Violation::new("GROWTH", text))
        }
    }
}
