//! A bit of the log turns over: the node must refuse to start, and the others go on.

use super::Scenario;

pub(super) const SCENARIO: Scenario =
    Scenario { name: "disk-rot", nodes: 3, faults: &["2000 500 disk-rot 2"], happened: |tally| tally.lost_nodes == 1 };
