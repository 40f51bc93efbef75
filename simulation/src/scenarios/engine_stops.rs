//! An engine stops for so long that it is noticed.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "engine-stops",
    nodes: 3,
    faults: &["300 45000 engine-hang 1"],
    happened: |tally| tally.broken > 0 || tally.slow_calls > 0,
};
