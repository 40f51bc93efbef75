//! Engines break off their answers, in every way there is.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "engine-dies",
    nodes: 3,
    faults: &[
        "300 3000 engine 1 die-mid-stream;after=3;rate=0.5",
        "300 3000 engine 2 engine-error-mid-stream;after=3;rate=0.5",
        "4000 3000 engine 1 stall-mid-stream;after=3;rate=0.3",
    ],
    happened: |tally| tally.broken > 0,
};
