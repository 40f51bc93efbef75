//! All nodes die at once, twice.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "crash-all",
    nodes: 3,
    faults: &["1000 1000 crash-all", "4000 200 crash-all"],
    happened: |tally| tally.starts == 9 && tally.writes_lost > 0,
};
