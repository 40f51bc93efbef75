//! A node dies again and again.

use super::Scenario;

pub(super) const SCENARIO: Scenario =
    Scenario { name: "crash-loop", nodes: 3, faults: &["500 6000 crash-loop 1"], happened: |tally| tally.starts > 5 };
