//! Each node's disk in turn fails to sync.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-error",
    nodes: 3,
    faults: &["500 1500 disk-error 1", "4500 1500 disk-error 2", "8500 1500 disk-error 3"],
    happened: |tally| tally.failed_disks == 3 && tally.starts > 3,
};
