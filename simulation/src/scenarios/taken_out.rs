//! A node is taken out although nothing is wrong with it, another takes its place, and it runs on for a while.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "taken-out",
    nodes: 3,
    faults: &["500 100 taken-out 1"],
    happened: |tally| tally.replaced_nodes == 1 && tally.starts == 4,
};
