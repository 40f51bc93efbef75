//! Every actor of a node dies in turn, then some of the others' while a leader is cut off.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "actor-dies",
    faults: &[
        "300 100 actor-dies 1 0",
        "900 100 actor-dies 1 1",
        "1500 100 actor-dies 1 2",
        "2100 100 actor-dies 1 3",
        "2700 100 actor-dies 1 4",
        "3300 100 actor-dies 1 5",
        "3900 100 actor-dies 1 6",
        "4200 1500 isolate 2",
        "4500 100 actor-dies 2 2",
        "4800 100 actor-dies 3 2",
    ],
    happened: |tally| tally.actors_killed == 9 && tally.lives == 3,
};
