//! Each node in turn starts from a disk that often fails to read: what it cannot read is not taken for absent.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-unreadable",
    nodes: 3,
    faults: &["500 2500 disk-unreadable 1", "4500 2500 disk-unreadable 2", "8500 2500 disk-unreadable 3"],
    happened: |tally| tally.failed_disks >= 2 && tally.starts > 6,
};
