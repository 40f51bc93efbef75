//! No two nodes see the same majority.

use super::Scenario;

pub(super) const SCENARIO: Scenario =
    Scenario { name: "ring", nodes: 5, faults: &["500 5000 ring"], happened: |tally| tally.bytes_lost > 0 };
