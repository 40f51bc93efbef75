//! A connection comes and goes.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "flap",
    nodes: 3,
    faults: &["500 6000 flap 1 2", "500 6000 flap 2 3"],
    happened: |tally| tally.bytes_lost > 0,
};
