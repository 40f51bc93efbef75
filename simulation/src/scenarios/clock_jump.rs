//! Each node's wall clock in turn is two hours ahead, then two hours back, while leaders change.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "clock-jump",
    nodes: 3,
    faults: &[
        "300 9000 clock-jump 1 7200000",
        "1500 300 crash 1",
        "3000 6000 clock-jump 2 -7200000",
        "4500 300 crash 2",
        "6000 3000 clock-jump 3 7200000",
        "7500 300 crash 3",
    ],
    happened: |tally| tally.clock_error_millis > 7_000_000 && tally.terms > 1,
};
