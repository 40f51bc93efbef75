//! Messages take most of a second.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "slow",
    nodes: 3,
    faults: &["500 6000 slow 1 2 800", "500 6000 slow 1 3 800", "500 6000 slow 2 3 800"],
    happened: |tally| tally.in_flight > 0,
};
