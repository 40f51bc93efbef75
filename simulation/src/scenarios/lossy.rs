//! Messages between nodes get lost, more and more of them.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "lossy",
    nodes: 3,
    faults: &["300 4000 lossy 1 2 2", "1500 4000 lossy 2 3 5", "3000 4000 lossy 1 3 10"],
    happened: |tally| tally.bytes_lost > 0,
};
