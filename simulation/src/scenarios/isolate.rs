//! Each node in turn hears nobody: the leader among them, whoever it is.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "isolate",
    nodes: 3,
    faults: &["500 3000 isolate 1", "4500 3000 isolate 2", "8500 3000 isolate 3"],
    happened: |tally| tally.bytes_lost > 0 && tally.terms > 1,
};
