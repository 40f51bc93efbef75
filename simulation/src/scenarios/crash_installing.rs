//! A node that was away for long gets a snapshot, and its machine loses its power before it can say that it has it.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "crash-installing",
    nodes: 3,
    faults: &["500 12000 crash-installing 2 1"],
    happened: |tally| tally.crashed_installing >= 1,
};
