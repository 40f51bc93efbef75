//! LOG: an applied entry is the same on every node, for ever.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::Violation;
use crate::world::{Observation, Shared};

/// The hash of each applied entry's record, and up to where each node was looked at since each start.
#[derive(Default)]
pub(super) struct Entries {
    hashes: BTreeMap<u64, (u64, usize)>,
    seen: BTreeMap<(usize, u32), u64>,
    /// By node and start: an entry on its disk that others applied differently, and in how many looks at a disk that works it was there. What
    /// a node applies may be on its way to the disk, where what it replaces still is.
    doubts: BTreeMap<(usize, u32), (u64, u32)>,
    /// Up to where each node was looked at, since any start, and how often its log began later than that.
    upto: BTreeMap<usize, u64>,
    jumps: u64,
}

/// So many looks: longer than a disk that works takes to write what waits for it.
const DOUBTED: u32 = 10;

impl Entries {
    pub(super) fn check(&mut self, shared: &Shared, seen: &Observation) -> Result<(), Violation> {
        let upto = seen.view.applied;
        let start = (seen.node, seen.start);
        let from = self.seen.insert(start, upto).map_or(0, |before| before + 1);
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
            let (mut first, node) = *self.hashes.entry(index).or_insert((hash, seen.node));
            if first != hash
                && let Some(now) = on_disk(shared, node, index)
            {
                first = now;
                self.hashes.insert(index, (now, node));
            }
            if first != hash {
                let looks = match self.doubts.get(&start) {
                    Some((doubted, looks)) if *doubted == index => looks + u32::from(!disk.is_ill()),
                    _ => 0,
                };
                if looks >= DOUBTED {
                    let text = format!("nodes {node} and {} applied different entries at index {index}", seen.node);
                    return Err(Violation::new("LOG", text));
                }
                self.doubts.insert(start, (index, looks));
                self.seen.insert(start, index - 1);
                return Ok(());
            }
        }
        Ok(())
    }

    /// How often a node went past entries that it never had.
    pub(super) fn jumps(&self) -> u64 {
        self.jumps
    }
}

/// The hash of the record that a node has of an entry now.
fn on_disk(shared: &Shared, node: usize, index: u64) -> Option<u64> {
    let entries = shared.nodes[node - 1].disk.log_from(index);
    let (_, record) = entries.into_iter().next().filter(|(first, _)| *first == index)?;
    Some(xxh3_64(&record))
}
