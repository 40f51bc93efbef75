//! Hand-made traps: a class of faults each, and the proof that it happened. A partition that cut nothing fails the run.

mod actor_dies;
mod clock_drift;
mod clock_jump;
mod crash;
mod crash_all;
mod crash_at_vote;
mod crash_installing;
mod crash_loop;
mod disk_error;
mod disk_full;
mod disk_lost;
mod disk_rot;
mod disk_stall;
mod disk_unreadable;
mod engine_cut_off;
mod engine_dies;
mod engine_hangs;
mod engine_refuses;
mod engine_stops;
mod flap;
mod hold;
mod isolate;
mod left_behind;
mod lossy;
mod one_way;
mod poison;
mod ring;
mod rolling_restart;
mod slow;
mod taken_out;

use std::time::Duration;

use crate::plan::{LEASE, NoFault, Plan, Planned, UNLIMITED};
use crate::world::Tally;

/// A trap.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    nodes: usize,
    /// As plans print them.
    faults: &'static [&'static str],
    /// Whether the faults took place.
    pub(crate) happened: fn(&Tally) -> bool,
}

/// All of them.
pub(crate) const SCENARIOS: [&Scenario; 30] = [
    &isolate::SCENARIO,
    &one_way::SCENARIO,
    &ring::SCENARIO,
    &flap::SCENARIO,
    &hold::SCENARIO,
    &slow::SCENARIO,
    &lossy::SCENARIO,
    &crash::SCENARIO,
    &crash_loop::SCENARIO,
    &crash_at_vote::SCENARIO,
    &crash_installing::SCENARIO,
    &crash_all::SCENARIO,
    &rolling_restart::SCENARIO,
    &disk_stall::SCENARIO,
    &disk_full::SCENARIO,
    &disk_error::SCENARIO,
    &disk_unreadable::SCENARIO,
    &disk_rot::SCENARIO,
    &disk_lost::SCENARIO,
    &taken_out::SCENARIO,
    &left_behind::SCENARIO,
    &actor_dies::SCENARIO,
    &clock_jump::SCENARIO,
    &clock_drift::SCENARIO,
    &engine_dies::SCENARIO,
    &engine_refuses::SCENARIO,
    &engine_hangs::SCENARIO,
    &engine_cut_off::SCENARIO,
    &engine_stops::SCENARIO,
    &poison::SCENARIO,
];

/// The scenario of that name.
pub(crate) fn find(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.into_iter().find(|scenario| scenario.name == name)
}

impl Scenario {
    /// Its plan with the chance of `seed`: two engines, three users with plenty of tokens.
    /// Errors: a line that is no fault.
    pub(crate) fn plan(&self, seed: u64) -> Result<Plan, NoFault> {
        let faults = self.faults.iter().map(|line| line.parse()).collect::<Result<Vec<Planned>, NoFault>>()?;
        let ends = faults.iter().map(|planned| planned.at + planned.lasts).max().unwrap_or_default();
        Ok(Plan {
            seed,
            nodes: self.nodes,
            engines: 2,
            users: 3,
            limit: UNLIMITED,
            window_seconds: 3600,
            is_skewed: false,
            shuns_restarted: false,
            snapshot_every: 40,
            serving_lease: LEASE,
            has_many_limits: true,
            is_hard: false,
            breaks_early: false,
            chaos: ends + Duration::from_secs(1),
            faults,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_a_plan_and_has_a_name_of_its_own() {
        for (at, scenario) in SCENARIOS.iter().enumerate() {
            scenario.plan(1).unwrap();
            assert!(SCENARIOS[..at].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
        }
    }
}
