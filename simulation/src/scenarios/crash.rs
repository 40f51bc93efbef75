//! Each node in turn dies as in a power cut.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "crash",
    nodes: 3,
    faults: &["500 1500 crash 1", "3500 1500 crash 2", "6500 1500 crash 3"],
    happened: |tally| tally.starts == 6 && tally.terms > 1,
};
