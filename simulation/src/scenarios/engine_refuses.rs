//! Engines refuse, answer errors, or are late.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "engine-refuses",
    nodes: 3,
    faults: &[
        "300 3000 engine 1 refuse;rate=0.5;on=all",
        "300 3000 engine 2 status=500;rate=0.5",
        "4000 2000 engine 1 status=503;rate=0.5",
        "4000 2000 engine 2 delay;for=3s;rate=0.5",
    ],
    happened: |tally| tally.refused > 0,
};
