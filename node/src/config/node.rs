//! `[node]`: which node this is.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use raft::NodeId;

use super::section::Reader;

/// Numbers a node may have.
pub(super) const NODE_IDS: RangeInclusive<u64> = 1..=i64::MAX.unsigned_abs();

/// This node.
#[derive(Clone, Debug)]
pub struct Node {
    /// `id`, at least 1; default 1. A node whose disk was lost comes back under a new number.
    pub id: NodeId,
    /// `data_dir`: where everything it must remember is; default `data` beside the file.
    pub data_dir: PathBuf,
    /// `drain_timeout`: how long calls in progress may go on after a stop signal; default 30 s.
    pub drain_timeout: Duration,
    /// `core_dumps`: whether a crash may write the process's memory, with credentials and prompts in it, to a disk; default false.
    pub core_dumps: bool,
}

impl Node {
    pub(super) fn read(reader: &Reader<'_>) -> Node {
        let section = reader.section("node");
        Node {
            id: NodeId(section.integer("id", 1, NODE_IDS)),
            data_dir: section.path("data_dir").unwrap_or_else(|| section.base("data")),
            drain_timeout: section.duration("drain_timeout", Duration::from_secs(30)),
            core_dumps: section.flag("core_dumps", false),
        }
    }
}
