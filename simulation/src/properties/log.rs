//! LOG: an applied entry is the same on every node, for ever.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::Violation;
use crate::world::{Observation, Shared};

/// The hash of each applied entry's record, and up to where each life of a node was looked at.
#[derive(Default)]
pub(super) struct Entries {
    hashes: BTreeMap<u64, (u64, usize)>,
    seen: BTreeMap<(usize, u32), u64>,
    /// Up to where each node was looked at, in any life, and how often its log began later than that.
    upto: BTreeMap<usize, u64>,
    jumps: u64,
}

impl Entries {
    pub(super) fn check(&mut self, shared: &Shared, seen: &Observation) -> Result<(), Violation> {
        let upto = seen.view.applied;
        let from = self.seen.insert((seen.node, seen.life), upto).map_or(0, |before| before + 1);
        // Index 0 is also what a node says that has applied nothing. What founds a cluster is there, and every founder writes its own.
        if upto == 0 || from > upto {
            return Ok(());
        }
        let before = self.upto.insert(seen.node, upto).unwrap_or_default();
        let disk = &shared.nodes[seen.node - 1].disk;
        // What a snapshot stands for need not be what is in the log: entries that it has overruled are removed after it is written.
        let entries = disk.log_from(from.max(disk.in_snapshot()));
        self.jumps += u64::from(disk.log_begins().unwrap_or(upto + 1) > before + 1 && upto > before);
        // A node that was started again is looked at from its snapshot on.
        for (index, record) in entries {
            if index > upto {
                break;
            }
            let hash = xxh3_64(&record);
            let (first, node) = *self.hashes.entry(index).or_insert((hash, seen.node));
            if first != hash {
                let text = format!("nodes {node} and {} applied different entries at index {index}", seen.node);
                return Err(Violation::new("LOG", text));
            }
        }
        Ok(())
    }

    /// How often a node went past entries that it never had.
    pub(super) fn jumps(&self) -> u64 {
        self.jumps
    }
}
