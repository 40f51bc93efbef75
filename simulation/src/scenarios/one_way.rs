//! A node is heard and does not hear, then hears and is not heard.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "one-way",
    nodes: 3,
    faults: &["500 3000 one-way 1 2", "500 3000 one-way 1 3", "5000 3000 one-way 2 1", "5000 3000 one-way 3 1"],
    happened: |tally| tally.bytes_lost > 0,
};
