//! Wall clocks run a tenth too fast and too slowly.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "clock-drift",
    nodes: 3,
    faults: &["100 8000 clock-drift 1 100000", "100 8000 clock-drift 2 -100000"],
    happened: |tally| tally.clock_error_millis > 300,
};
