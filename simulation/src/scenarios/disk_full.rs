//! Each node's disk in turn is full.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-full",
    nodes: 3,
    faults: &["500 1500 disk-full 1", "4500 1500 disk-full 2", "8500 1500 disk-full 3"],
    happened: |tally| tally.failed_disks == 3 && tally.starts > 3,
};
