//! What two nodes say to each other arrives late, and all at once.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hold",
    nodes: 3,
    faults: &["500 4000 hold 1 2", "500 4000 hold 2 3", "500 4000 hold 1 3"],
    happened: |tally| tally.in_flight > 0,
};
