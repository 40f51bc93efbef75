//! A user goes on making calls to which every engine answers 500.

use super::Scenario;

pub(super) const SCENARIO: Scenario =
    Scenario { name: "poison", nodes: 3, faults: &["300 6000 poison 1"], happened: |tally| tally.refused > 20 };
