//! A node's disk is gone, and another node takes its place while its neighbour dies, too.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-lost",
    nodes: 3,
    faults: &["500 100 disk-lost 2", "2500 700 crash 1"],
    happened: |tally| tally.lost_nodes == 1 && tally.replaced_nodes == 1,
};
