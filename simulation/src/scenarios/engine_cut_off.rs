//! A node does not reach any engine.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "engine-cut-off",
    nodes: 3,
    faults: &["500 4000 cut-engine 1 1", "500 4000 cut-engine 1 2"],
    happened: |tally| tally.refused + tally.broken > 0,
};
