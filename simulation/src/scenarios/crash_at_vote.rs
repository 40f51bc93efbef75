//! Nodes die just after they have voted, before and after they could tell.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "crash-at-vote",
    nodes: 3,
    faults: &[
        "400 4000 crash-at-vote 1 1",
        "400 4000 crash-at-vote 2 3",
        "400 4000 crash-at-vote 3 8",
        "500 1000 crash 1",
        "2500 1000 crash 2",
    ],
    happened: |tally| tally.crashed_voting >= 2,
};
