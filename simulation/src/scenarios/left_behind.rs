//! A node is away for so long that the others have forgotten the entries that it misses: it gets a snapshot.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "left-behind",
    nodes: 3,
    faults: &["300 9000 crash 2", "12000 6000 isolate 3"],
    happened: |tally| tally.jumps >= 2,
};
