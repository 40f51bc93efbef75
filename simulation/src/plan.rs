//! What will happen in a run, drawn whole from the seed before anything starts, so that it can be printed, changed and run again.
//!
//! Written as one fault a line: `when for-how-long what`, times in milliseconds.

mod fault;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::chance::Chance;

pub(crate) use fault::Fault;

/// A run.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Gateway nodes: 3 or 5.
    pub(crate) nodes: usize,
    /// vLLM replicas.
    pub(crate) engines: usize,
    /// Users, each with keys, and with up to four calls at a time.
    pub(crate) users: usize,
    /// Tokens of each user's limit, and its window in seconds.
    pub(crate) limit: u64,
    pub(crate) window_seconds: u64,
    /// A node makes a snapshot after so many log entries.
    pub(crate) snapshot_every: u64,
    /// A node that has not heard from a leader for so long admits nobody.
    pub(crate) serving_lease: Duration,
    /// One user calls much more than the others, and ever so small calls go on when a limit is nearly used up.
    pub(crate) is_skewed: bool,
    /// Nobody calls a node that was restarted, as long as there are others.
    pub(crate) shuns_restarted: bool,
    /// Beside the limit of tokens of each user there are limits of other units and scopes, of calls in progress, and a budget.
    pub(crate) has_many_limits: bool,
    /// No answer may pass the limit of tokens.
    pub(crate) is_hard: bool,
    /// Things break from the beginning, before there is a cluster.
    pub(crate) breaks_early: bool,
    /// How long things break, at least: until the last fault is over.
    pub(crate) chaos: Duration,
    pub(crate) faults: Vec<Planned>,
}

/// A fault and when.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Planned {
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) fault: Fault,
}

/// What is usual, and what lets a node that is cut off be without a lease for most of the time.
pub(crate) const LEASE: Duration = Duration::from_secs(5);
const SHORT_LEASE: Duration = Duration::from_millis(1_500);

/// So few log entries between two snapshots that whoever is away for a moment needs one.
const SNAPSHOT_OFTEN: u64 = 20;

/// A limit that no run can use up.
pub(crate) const UNLIMITED: u64 = 10_000_000;
/// Seconds; longer than any run.
pub(crate) const WHOLE_RUN: u64 = 3600;

/// At what a plan is aimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Aim {
    /// Whatever can break, does.
    #[default]
    Everything,
    /// Limits that run out, on five nodes.
    Ledger,
}

impl Plan {
    /// The plan of `seed`: everything may break.
    pub(crate) fn draw(seed: u64) -> Plan {
        let mut chance = Chance::of(seed, "plan");
        let nodes = if chance.percent(30) { 5 } else { 3 };
        let engines = chance.between(2, 3) as usize;
        let chaos = Duration::from_millis(chance.between(6_000, 14_000));
        let mut plan = Plan {
            seed,
            nodes,
            engines,
            users: chance.between(2, 5) as usize,
            limit: *chance.pick(&[400, 3_000, 20_000, UNLIMITED]),
            window_seconds: *chance.pick(&[2, 10, 3600, 3600]),
            snapshot_every: *chance.pick(&[SNAPSHOT_OFTEN, 100, 5000]),
            serving_lease: LEASE,
            is_skewed: false,
            shuns_restarted: false,
            has_many_limits: false,
            is_hard: false,
            breaks_early: false,
            chaos,
            faults: Vec::new(),
        };
        for _ in 0..chance.between(3, 12) {
            let at = Duration::from_millis(chance.between(0, chaos.as_millis() as u64));
            // What is over before anybody has noticed leaves other traces than what lasts.
            let longest = if chance.percent(40) { 800 } else { 6_000 };
            let lasts = Duration::from_millis(chance.between(50, longest));
            let fault = Fault::draw(&mut chance, nodes, engines);
            plan.faults.push(Planned { at, lasts, fault });
        }
        plan.faults.sort_by_key(|planned| planned.at);
        plan.breaks_early = chance.percent(10);
        plan.has_many_limits = chance.percent(30);
        plan.is_hard = chance.percent(30);
        plan.serving_lease = if chance.percent(60) { SHORT_LEASE } else { LEASE };
        // Only where snapshots are made often does anybody get one.
        if plan.snapshot_every == SNAPSHOT_OFTEN && chance.percent(50) {
            let at = Duration::from_millis(chance.between(0, 3_000));
            let lasts = Duration::from_millis(chance.between(4_000, 10_000));
            let fault = Fault::CrashInstalling(chance.between(1, nodes as u64) as usize, chance.between(0, 4));
            plan.faults.push(Planned { at, lasts, fault });
            plan.faults.sort_by_key(|planned| planned.at);
        }
        plan.shuns_restarted = chance.percent(20);
        plan.draw_for_picker();
        plan
    }

    /// In a few runs nothing breaks but what the endpoint picker has to tell apart: an engine hangs, for so long that it has to be
    /// noticed, or a user makes calls at which engines fail. They are drawn apart, so that all other plans stay what they are.
    fn draw_for_picker(&mut self) {
        let mut chance = Chance::of(self.seed, "picker plan");
        let at = Duration::from_millis(300);
        let (fault, lasts) = match chance.between(1, 100) {
            1..=3 => {
                let lasts = Duration::from_millis(chance.between(44_000, 48_000));
                (Fault::EngineHang(chance.between(1, self.engines as u64) as usize), lasts)
            }
            4..=8 => (Fault::Poison(chance.between(1, self.users as u64) as usize), self.chaos),
            _ => return,
        };
        self.faults = vec![Planned { at, lasts, fault }];
        self.chaos = at + lasts;
        self.breaks_early = false;
    }

    /// The plan of `seed` aimed at the ledger: five nodes, demand that is not even, windows of a second, limits from one call's worth to
    /// more than anybody uses. In one of five nothing breaks, and then all of a limit can be used.
    pub(crate) fn draw_for_ledger(seed: u64) -> Plan {
        let mut chance = Chance::of(seed, "ledger plan");
        let mut plan = Plan::draw(seed);
        plan.nodes = 5;
        plan.engines = 2;
        plan.users = chance.between(2, 4) as usize;
        plan.is_skewed = true;
        plan.limit = *chance.pick(&[100, 400, 3_000, 20_000, UNLIMITED]);
        plan.window_seconds = *chance.pick(&[1, 1, 2, 5, 3600, 3600]);
        plan.chaos = Duration::from_millis(chance.between(4_000, 9_000));
        plan.has_many_limits = chance.percent(40);
        plan.is_hard = chance.percent(50);
        plan.faults.clear();
        if chance.percent(80) {
            for _ in 0..chance.between(4, 12) {
                let at = Duration::from_millis(chance.between(0, plan.chaos.as_millis() as u64));
                let lasts = Duration::from_millis(chance.between(50, 4_000));
                let fault = Fault::draw(&mut chance, plan.nodes, plan.engines);
                plan.faults.push(Planned { at, lasts, fault });
            }
        }
        plan.faults.sort_by_key(|planned| planned.at);
        plan
    }

    /// Errors: a fault of a node or an engine that the plan does not have.
    pub(crate) fn check(&self) -> Result<(), NoFault> {
        let is_there = |planned: &&Planned| {
            let is_node = |number: &usize| (1..=self.nodes).contains(number);
            let is_engine = |number: &usize| (1..=self.engines).contains(number);
            let (nodes, engines) = planned.fault.concerns();
            nodes.iter().all(is_node) && engines.iter().all(is_engine)
        };
        match self.faults.iter().find(|planned| !is_there(planned)) {
            None => Ok(()),
            Some(planned) => {
                Err(NoFault::Nobody { line: planned.to_string(), nodes: self.nodes, engines: self.engines })
            }
        }
    }

    /// Whether no window of a limit ends before the run does.
    pub(crate) fn is_one_window(&self) -> bool {
        self.window_seconds >= WHOLE_RUN
    }

    /// Whether all that a node ever noted is read by its next incarnation.
    pub(crate) fn journals_are_whole(&self) -> bool {
        !self.faults.iter().any(|planned| planned.fault.may_lose_notes())
    }

    /// Whether engines always say truly what calls took.
    pub(crate) fn usage_is_true(&self) -> bool {
        !self.faults.iter().any(|planned| planned.fault.hides_usage())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {} nodes, {} engines, {} users with {} tokens per {} s each{}, a snapshot every {} entries, a lease of {} ms, {} ms of chaos{}",
            self.seed,
            self.nodes,
            self.engines,
            self.users,
            self.limit,
            self.window_seconds,
            match (self.is_hard, self.has_many_limits) {
                (false, false) => "",
                (false, true) => " and other limits",
                (true, false) => " (hard)",
                (true, true) => " (hard) and other limits",
            },
            self.snapshot_every,
            self.serving_lease.as_millis(),
            self.chaos.as_millis(),
            [
                (self.breaks_early, " from the beginning"),
                (self.is_skewed, ", uneven demand"),
                (self.shuns_restarted, ", restarted nodes are shunned"),
            ]
            .iter()
            .filter_map(|(is_so, text)| is_so.then_some(*text))
            .collect::<String>()
        )?;
        self.faults.iter().try_for_each(|planned| writeln!(f, "  {planned}"))
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.at.as_millis(), self.lasts.as_millis(), self.fault)
    }
}

/// A line that is no fault of a plan.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NoFault {
    #[error("`{0}` is no fault: write `when for-how-long what`, as a plan prints them")]
    Unreadable(String),
    #[error("`{line}` can happen to nobody: there are {nodes} nodes and {engines} engines, numbered from 1")]
    Nobody { line: String, nodes: usize, engines: usize },
}

impl FromStr for Planned {
    type Err = NoFault;

    fn from_str(line: &str) -> Result<Planned, NoFault> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let read = || {
            let millis = |at: usize| Some(Duration::from_millis(words.get(at)?.parse().ok()?));
            Some(Planned { at: millis(0)?, lasts: millis(1)?, fault: Fault::read(words.get(2..)?)? })
        };
        read().ok_or_else(|| NoFault::Unreadable(line.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_as_it_prints() {
        for seed in 0..200 {
            let plan = Plan::draw(seed);
            let read: Vec<Planned> = plan.faults.iter().map(|planned| planned.to_string().parse().unwrap()).collect();
            assert_eq!(read, plan.faults, "seed {seed}");
        }
    }

    #[test]
    fn a_fault_that_can_happen_to_nobody_is_named() {
        let mut plan = Plan::draw(1);
        plan.check().unwrap();
        for line in ["1 2 crash 0", "1 2 isolate 6", "1 2 flap 1 9", "1 2 engine-hang 4", "1 2 cut-engine 1 0"] {
            plan.faults = vec![line.parse().unwrap()];
            let error = plan.check().unwrap_err().to_string();
            assert!(error.contains(&format!("`{line}`")), "{error}");
        }
    }

    #[test]
    fn a_line_that_is_no_fault_is_named() {
        for line in ["", "1 2", "1 2 explode", "1 2 crash", "x 2 crash 1", "1 -2 crash 1", "1 2 engine 1 explode"] {
            let error = line.parse::<Planned>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{line}`")), "{error}");
        }
    }
}
