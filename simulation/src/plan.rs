//! What will happen in a run, drawn whole from the seed before anything starts, so that it can be printed, changed and run again.
//!
//! Written as one fault a line: `when for-how-long what`, times in milliseconds.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::chance::Chance;

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
    /// Beside the limit of tokens of each user there are limits of other units and scopes.
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

/// What goes wrong. Nodes and engines are numbered from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A node hears no other node, and none hears it.
    Isolate(usize),
    /// Nothing gets from the one node to the other.
    OneWay(usize, usize),
    /// Each node reaches only its two neighbours in a ring: there is a majority everywhere, and no two see the same one.
    Ring,
    /// The connection between two nodes comes and goes.
    Flap(usize, usize),
    /// What two nodes send each other is kept until the fault ends.
    Hold(usize, usize),
    /// Messages between two nodes take up to so many milliseconds.
    Slow(usize, usize, u64),
    /// Of the messages between two nodes, so many in a hundred take all others with them that are on their way: lost.
    Lossy(usize, usize, u64),
    /// A node does not reach an engine.
    CutEngine(usize, usize),
    /// A node dies as in a power cut, and comes back at the end.
    Crash(usize),
    /// Its process dies again and again, and its machine does not.
    CrashLoop(usize),
    /// It dies so many milliseconds after it has written whom it votes for, once.
    CrashAtVote(usize, u64),
    /// It dies, comes back after half of the time, and dies once more, so many milliseconds after it has begun to install a snapshot.
    CrashInstalling(usize, u64),
    /// All nodes die at once, as in a power cut.
    CrashAll,
    /// Nodes are stopped and started one after the other, politely.
    RollingRestart,
    /// A node's disk does nothing.
    DiskStall(usize),
    /// A node's disk is full.
    DiskFull(usize),
    /// A node's disk often fails to read and to sync.
    DiskError(usize),
    /// A node dies, comes back at once, and its disk often fails to read.
    DiskUnreadable(usize),
    /// A bit of a node's log turns over. Noticed when it is read, mostly at the next start, so the node crashes, too.
    DiskRot(usize),
    /// A node's disk is gone for good: a person takes the node out and puts another in its place.
    DiskLost(usize),
    /// A node is taken out although nothing is wrong with it, and another takes its place. It runs on for a while.
    TakenOut(usize),
    /// One of a node's actors dies, with those below it, wherever they are in their work: this one, counted round and round from the oldest.
    ActorDies(usize, usize),
    /// A node's wall clock is set ahead by so many milliseconds, or back.
    ClockJump(usize, i64),
    /// A node's wall clock runs faster by so many parts per million.
    ClockDrift(usize, i64),
    /// An engine does what `sim_vllm` calls that.
    Engine(usize, &'static str),
    /// An engine's process stops without dying.
    EngineHang(usize),
}

/// What is usual, and what lets a node that is cut off be without a lease for most of the time.
pub(crate) const LEASE: Duration = Duration::from_secs(5);
const SHORT_LEASE: Duration = Duration::from_millis(1_500);

/// So few log entries between two snapshots that whoever is away for a moment needs one.
const SNAPSHOT_OFTEN: u64 = 20;

/// A limit that no run can use up.
pub(crate) const UNLIMITED: u64 = 10_000_000;

/// How engines fail, in `sim_vllm`'s words.
const ENGINE_FAULTS: [&str; 17] = [
    "refuse;rate=0.5;on=all",
    "status=500;rate=0.5",
    "status=503;rate=0.5",
    "status=429;rate=0.5",
    "delay;for=3s;rate=0.5",
    "hang-before-headers;rate=0.3",
    "stall-mid-stream;after=3;rate=0.3",
    "die-mid-stream;after=3;rate=0.5",
    "engine-error-mid-stream;after=3;rate=0.5",
    "missing-usage;rate=0.5",
    "oscillating-health;period=2s;on=all",
    "usage=wrong;rate=0.5",
    "usage=negative;rate=0.3",
    "usage=huge;rate=0.3",
    "garbage;rate=0.3",
    "garbage-json;after=3;rate=0.3",
    "slow-start;for=2s",
];

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

    /// Whether all that a node ever noted is read by its next life.
    pub(crate) fn journals_are_whole(&self) -> bool {
        !self.faults.iter().any(|planned| planned.fault.may_lose_notes())
    }

    /// Whether engines always say truly what calls took.
    pub(crate) fn usage_is_true(&self) -> bool {
        !self.faults.iter().any(|planned| planned.fault.hides_usage())
    }
}

impl Fault {
    /// Whether it keeps an engine from saying truly how many tokens a call took.
    pub(crate) fn hides_usage(&self) -> bool {
        let hides = |what: &str| ["missing-usage", "usage=", "garbage"].iter().any(|name| what.starts_with(name));
        matches!(self, Fault::Engine(_, what) if hides(what))
    }

    /// Whether a node may forget what it had noted without syncing it, or is gone for good.
    fn may_lose_notes(&self) -> bool {
        matches!(
            self,
            Fault::Crash(_)
                | Fault::CrashAtVote(..)
                | Fault::CrashInstalling(..)
                | Fault::CrashAll
                | Fault::DiskUnreadable(_)
                | Fault::DiskRot(_)
                | Fault::DiskLost(_)
                | Fault::TakenOut(_)
        )
    }

    /// The same with other nodes.
    pub(crate) fn moved(self, to: impl Fn(usize) -> usize) -> Fault {
        match self {
            Fault::Isolate(node) => Fault::Isolate(to(node)),
            Fault::OneWay(a, b) => Fault::OneWay(to(a), to(b)),
            Fault::Flap(a, b) => Fault::Flap(to(a), to(b)),
            Fault::Hold(a, b) => Fault::Hold(to(a), to(b)),
            Fault::Slow(a, b, millis) => Fault::Slow(to(a), to(b), millis),
            Fault::Lossy(a, b, percent) => Fault::Lossy(to(a), to(b), percent),
            Fault::CutEngine(node, engine) => Fault::CutEngine(to(node), engine),
            Fault::Crash(node) => Fault::Crash(to(node)),
            Fault::CrashLoop(node) => Fault::CrashLoop(to(node)),
            Fault::CrashAtVote(node, millis) => Fault::CrashAtVote(to(node), millis),
            Fault::CrashInstalling(node, millis) => Fault::CrashInstalling(to(node), millis),
            Fault::DiskStall(node) => Fault::DiskStall(to(node)),
            Fault::DiskFull(node) => Fault::DiskFull(to(node)),
            Fault::DiskError(node) => Fault::DiskError(to(node)),
            Fault::DiskUnreadable(node) => Fault::DiskUnreadable(to(node)),
            Fault::DiskRot(node) => Fault::DiskRot(to(node)),
            Fault::DiskLost(node) => Fault::DiskLost(to(node)),
            Fault::TakenOut(node) => Fault::TakenOut(to(node)),
            Fault::ActorDies(node, which) => Fault::ActorDies(to(node), which),
            Fault::ClockJump(node, millis) => Fault::ClockJump(to(node), millis),
            Fault::ClockDrift(node, parts) => Fault::ClockDrift(to(node), parts),
            Fault::Ring | Fault::CrashAll | Fault::RollingRestart | Fault::Engine(..) | Fault::EngineHang(_) => self,
        }
    }

    /// The numbers of the nodes and of the engines that it names.
    fn concerns(&self) -> (Vec<usize>, Vec<usize>) {
        let nodes = RefCell::new(Vec::new());
        let engines = match self {
            Fault::Engine(engine, _) | Fault::EngineHang(engine) | Fault::CutEngine(_, engine) => vec![*engine],
            _ => Vec::new(),
        };
        self.clone().moved(|node| {
            nodes.borrow_mut().push(node);
            node
        });
        (nodes.into_inner(), engines)
    }

    /// Whether it is about engines, or the way to them.
    pub(crate) fn concerns_engines(&self) -> bool {
        matches!(self, Fault::Engine(..) | Fault::EngineHang(_) | Fault::CutEngine(..))
    }

    fn draw(chance: &mut Chance, nodes: usize, engines: usize) -> Fault {
        let node = chance.between(1, nodes as u64) as usize;
        let other = 1 + (node - 1 + chance.between(1, nodes as u64 - 1) as usize) % nodes;
        let engine = chance.between(1, engines as u64) as usize;
        match chance.between(1, 120) {
            1..=9 => Fault::Isolate(node),
            10..=16 => Fault::OneWay(node, other),
            17..=19 => Fault::Ring,
            20..=24 => Fault::Flap(node, other),
            25..=28 => Fault::Hold(node, other),
            29..=34 => Fault::Slow(node, other, chance.between(20, 800)),
            35..=38 => Fault::CutEngine(node, engine),
            39..=53 => Fault::Crash(node),
            54..=57 => Fault::CrashLoop(node),
            58..=61 => Fault::CrashAll,
            62..=64 => Fault::RollingRestart,
            65..=70 => Fault::DiskStall(node),
            71..=73 => Fault::DiskFull(node),
            74..=75 => Fault::DiskError(node),
            76..=77 => Fault::DiskUnreadable(node),
            78 => Fault::DiskRot(node),
            79..=84 => Fault::ClockJump(node, chance.between(0, 14_400_000) as i64 - 7_200_000),
            85..=87 => Fault::ClockDrift(node, chance.between(0, 200_000) as i64 - 100_000),
            88..=97 => Fault::Engine(engine, chance.pick::<&str>(&ENGINE_FAULTS)),
            98..=100 => Fault::EngineHang(engine),
            101..=104 => Fault::Lossy(node, other, chance.between(1, 10)),
            105..=106 => Fault::DiskLost(node),
            107..=108 => Fault::TakenOut(node),
            109..=113 => Fault::CrashAtVote(node, chance.between(0, 8)),
            _ => Fault::ActorDies(node, chance.between(0, 99) as usize),
        }
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
            if self.breaks_early { " from the beginning" } else { "" }
        )?;
        self.faults.iter().try_for_each(|planned| writeln!(f, "  {planned}"))
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.at.as_millis(), self.lasts.as_millis(), self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Isolate(node) => write!(f, "isolate {node}"),
            Fault::OneWay(from, to) => write!(f, "one-way {from} {to}"),
            Fault::Ring => f.write_str("ring"),
            Fault::Flap(a, b) => write!(f, "flap {a} {b}"),
            Fault::Hold(a, b) => write!(f, "hold {a} {b}"),
            Fault::Slow(a, b, millis) => write!(f, "slow {a} {b} {millis}"),
            Fault::Lossy(a, b, percent) => write!(f, "lossy {a} {b} {percent}"),
            Fault::CutEngine(node, engine) => write!(f, "cut-engine {node} {engine}"),
            Fault::Crash(node) => write!(f, "crash {node}"),
            Fault::CrashLoop(node) => write!(f, "crash-loop {node}"),
            Fault::CrashAtVote(node, millis) => write!(f, "crash-at-vote {node} {millis}"),
            Fault::CrashInstalling(node, millis) => write!(f, "crash-installing {node} {millis}"),
            Fault::CrashAll => f.write_str("crash-all"),
            Fault::RollingRestart => f.write_str("rolling-restart"),
            Fault::DiskStall(node) => write!(f, "disk-stall {node}"),
            Fault::DiskFull(node) => write!(f, "disk-full {node}"),
            Fault::DiskError(node) => write!(f, "disk-error {node}"),
            Fault::DiskUnreadable(node) => write!(f, "disk-unreadable {node}"),
            Fault::DiskRot(node) => write!(f, "disk-rot {node}"),
            Fault::DiskLost(node) => write!(f, "disk-lost {node}"),
            Fault::TakenOut(node) => write!(f, "taken-out {node}"),
            Fault::ActorDies(node, which) => write!(f, "actor-dies {node} {which}"),
            Fault::ClockJump(node, millis) => write!(f, "clock-jump {node} {millis}"),
            Fault::ClockDrift(node, parts) => write!(f, "clock-drift {node} {parts}"),
            Fault::Engine(engine, what) => write!(f, "engine {engine} {what}"),
            Fault::EngineHang(engine) => write!(f, "engine-hang {engine}"),
        }
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
        let no_fault = || NoFault::Unreadable(line.to_owned());
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<i64>().ok()).ok_or_else(no_fault);
        let index = |at: usize| number(at).and_then(|number| usize::try_from(number).map_err(|_| no_fault()));
        let count = |at: usize| number(at).and_then(|number| u64::try_from(number).map_err(|_| no_fault()));
        let millis = |at: usize| count(at).map(Duration::from_millis);
        let fault = match words.get(2).copied().unwrap_or_default() {
            "isolate" => Fault::Isolate(index(3)?),
            "one-way" => Fault::OneWay(index(3)?, index(4)?),
            "ring" => Fault::Ring,
            "flap" => Fault::Flap(index(3)?, index(4)?),
            "hold" => Fault::Hold(index(3)?, index(4)?),
            "slow" => Fault::Slow(index(3)?, index(4)?, count(5)?),
            "lossy" => Fault::Lossy(index(3)?, index(4)?, count(5)?),
            "cut-engine" => Fault::CutEngine(index(3)?, index(4)?),
            "crash" => Fault::Crash(index(3)?),
            "crash-loop" => Fault::CrashLoop(index(3)?),
            "crash-at-vote" => Fault::CrashAtVote(index(3)?, count(4)?),
            "crash-installing" => Fault::CrashInstalling(index(3)?, count(4)?),
            "crash-all" => Fault::CrashAll,
            "rolling-restart" => Fault::RollingRestart,
            "disk-stall" => Fault::DiskStall(index(3)?),
            "disk-full" => Fault::DiskFull(index(3)?),
            "disk-error" => Fault::DiskError(index(3)?),
            "disk-unreadable" => Fault::DiskUnreadable(index(3)?),
            "disk-rot" => Fault::DiskRot(index(3)?),
            "disk-lost" => Fault::DiskLost(index(3)?),
            "taken-out" => Fault::TakenOut(index(3)?),
            "actor-dies" => Fault::ActorDies(index(3)?, index(4)?),
            "clock-jump" => Fault::ClockJump(index(3)?, number(4)?),
            "clock-drift" => Fault::ClockDrift(index(3)?, number(4)?),
            "engine" => {
                let what = words.get(4).copied().unwrap_or_default();
                let known = ENGINE_FAULTS.iter().find(|known| **known == what).ok_or_else(no_fault)?;
                Fault::Engine(index(3)?, known)
            }
            "engine-hang" => Fault::EngineHang(index(3)?),
            _ => return Err(no_fault()),
        };
        Ok(Planned { at: millis(0)?, lasts: millis(1)?, fault })
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
    fn engines_know_every_way_to_fail() {
        for what in ENGINE_FAULTS {
            what.parse::<sim_vllm::Fault>().unwrap();
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
