//! The oldest actor of a node dies, again and again: whoever is started again is the youngest, so each one's turn comes. Then some of the
//! others' while one of them is cut off.

use super::Scenario;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "actor-dies",
    nodes: 3,
    faults: &[
        "300 100 actor-dies 1 0",
        "900 100 actor-dies 1 0",
        "1500 100 actor-dies 1 0",
        "2100 100 actor-dies 1 0",
        "2700 100 actor-dies 1 0",
        "3300 100 actor-dies 1 0",
        "3900 100 actor-dies 1 0",
        "4200 1500 isolate 2",
        "4500 100 actor-dies 2 2",
        "4800 100 actor-dies 3 2",
    ],
    happened: |tally| tally.actors_killed == 9 && tally.starts == 3,
};
