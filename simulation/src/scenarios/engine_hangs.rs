//! An engine takes calls and does nothing, while its health is fine.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "engine-hangs",
    nodes: 3,
    faults: &["300 4000 engine-hang 1", "300 4000 engine 2 hang-before-headers;rate=0.3"],
    happened: |tally| tally.broken > 0 || tally.slow_calls > 0,
};
