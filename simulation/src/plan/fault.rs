//! What can go wrong in a run, and how that is written.

use std::cell::RefCell;
use std::fmt;

use crate::chance::Chance;

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
    /// A user goes on making calls to which every engine answers 500.
    Poison(usize),
}

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

impl Fault {
    /// Whether it keeps an engine from saying truly how many tokens a call took.
    pub(crate) fn hides_usage(&self) -> bool {
        let hides = |what: &str| ["missing-usage", "usage=", "garbage"].iter().any(|name| what.starts_with(name));
        matches!(self, Fault::Engine(_, what) if hides(what))
    }

    /// Whether a node may forget what it had noted without syncing it, or is gone for good.
    pub(super) fn may_lose_notes(&self) -> bool {
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
            Fault::Ring
            | Fault::CrashAll
            | Fault::RollingRestart
            | Fault::Engine(..)
            | Fault::EngineHang(_)
            | Fault::Poison(_) => self,
        }
    }

    /// The numbers of the nodes and of the engines that it names.
    pub(super) fn concerns(&self) -> (Vec<usize>, Vec<usize>) {
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
        matches!(self, Fault::Engine(..) | Fault::EngineHang(_) | Fault::CutEngine(..) | Fault::Poison(_))
    }

    /// One of them, by chance.
    pub(super) fn draw(chance: &mut Chance, nodes: usize, engines: usize) -> Fault {
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

    /// As it is written; `None` if these words are no fault.
    pub(super) fn read(words: &[&str]) -> Option<Fault> {
        let number = |at: usize| words.get(at)?.parse::<i64>().ok();
        let index = |at: usize| usize::try_from(number(at)?).ok();
        let count = |at: usize| u64::try_from(number(at)?).ok();
        Some(match words.first().copied().unwrap_or_default() {
            "isolate" => Fault::Isolate(index(1)?),
            "one-way" => Fault::OneWay(index(1)?, index(2)?),
            "ring" => Fault::Ring,
            "flap" => Fault::Flap(index(1)?, index(2)?),
            "hold" => Fault::Hold(index(1)?, index(2)?),
            "slow" => Fault::Slow(index(1)?, index(2)?, count(3)?),
            "lossy" => Fault::Lossy(index(1)?, index(2)?, count(3)?),
            "cut-engine" => Fault::CutEngine(index(1)?, index(2)?),
            "crash" => Fault::Crash(index(1)?),
            "crash-loop" => Fault::CrashLoop(index(1)?),
            "crash-at-vote" => Fault::CrashAtVote(index(1)?, count(2)?),
            "crash-installing" => Fault::CrashInstalling(index(1)?, count(2)?),
            "crash-all" => Fault::CrashAll,
            "rolling-restart" => Fault::RollingRestart,
            "disk-stall" => Fault::DiskStall(index(1)?),
            "disk-full" => Fault::DiskFull(index(1)?),
            "disk-error" => Fault::DiskError(index(1)?),
            "disk-unreadable" => Fault::DiskUnreadable(index(1)?),
            "disk-rot" => Fault::DiskRot(index(1)?),
            "disk-lost" => Fault::DiskLost(index(1)?),
            "taken-out" => Fault::TakenOut(index(1)?),
            "actor-dies" => Fault::ActorDies(index(1)?, index(2)?),
            "clock-jump" => Fault::ClockJump(index(1)?, number(2)?),
            "clock-drift" => Fault::ClockDrift(index(1)?, number(2)?),
            "engine" => {
                let what = words.get(2).copied().unwrap_or_default();
                let known = ENGINE_FAULTS.iter().find(|known| **known == what)?;
                Fault::Engine(index(1)?, known)
            }
            "engine-hang" => Fault::EngineHang(index(1)?),
            "poison" => Fault::Poison(index(1)?),
            _ => return None,
        })
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
            Fault::Poison(user) => write!(f, "poison {user}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_know_every_way_to_fail() {
        for what in ENGINE_FAULTS {
            what.parse::<sim_vllm::Fault>().unwrap();
        }
    }
}
