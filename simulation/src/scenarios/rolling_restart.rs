//! Nodes are stopped and started one after the other, as for an upgrade.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "rolling-restart",
    nodes: 3,
    faults: &["500 6000 rolling-restart"],
    happened: |tally| tally.starts == 6,
};
