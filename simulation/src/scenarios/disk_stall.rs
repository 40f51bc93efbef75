//! Each node's disk in turn does nothing for a while.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-stall",
    nodes: 3,
    faults: &["500 2500 disk-stall 1", "3500 2500 disk-stall 2", "6500 2500 disk-stall 3"],
    happened: |tally| tally.stalled_disks == 3,
};
