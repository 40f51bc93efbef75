//! A world: gateway nodes, engines and clients on one simulated network, under one plan.
//!
//! Everything here is what stands behind the product's doors, or around the product. The nodes are [`node::Node`] as the command
//! line starts it; nothing of them is left out or replaced.

mod call;
mod clock;
mod disk;
mod engine;
mod faults;
mod gateway;
mod http;
mod leavers;
mod net;
mod operator;
mod setup;
mod user;
mod wires;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;
use turmoil::Sim;

pub(crate) use call::{Call, Ended};
pub(crate) use clock::wall;
pub(crate) use engine::EngineSlot;
pub(crate) use gateway::{NodeSlot, Observation, Size};
pub(crate) use operator::{AdminCall, AdminOp, AdminOutcome, FIRST_VALUE, GROUPS};
pub(crate) use setup::{PRICE, group_name, username};

use crate::chance::Chance;
use crate::plan::Plan;
use crate::properties::{Properties, Violation};
use crate::trace;
use faults::Faults;
use setup::TokenFile;

/// A call that takes longer has waited for something.
const SLOW: Duration = Duration::from_secs(2);
/// One step of the world. Messages arrive between steps.
const TICK: Duration = Duration::from_millis(1);
/// A message travels between these, unless a fault says otherwise.
const LATENCY: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(3));
/// When nothing breaks, the cluster must be ready and everything set up within this.
const SET_UP_WITHIN: Duration = Duration::from_secs(60);
/// After the last fault: users go on calling for so long, and must be served.
const CALM: Duration = Duration::from_secs(12);
/// Then nobody calls any more, and within this all that was held must be settled and every node must know the same.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// What the parts of a world share. One thread.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) phase: Cell<Phase>,
    /// Those of the plan, then the spare ones.
    pub(crate) nodes: Vec<NodeSlot>,
    pub(crate) token_file: TokenFile,
    /// The nodes that callers know: what a load balancer has behind it.
    pub(crate) front: RefCell<Vec<usize>>,
    pub(crate) engines: Vec<EngineSlot>,
    /// The users whose calls are poison now.
    pub(crate) poisoning: RefCell<BTreeSet<usize>>,
    /// What nodes said of themselves and nobody has looked at yet.
    pub(crate) observations: RefCell<VecDeque<Observation>>,
    /// Every inference call, in the order in which they began.
    pub(crate) calls: RefCell<Vec<Call>>,
    /// By an answer's id, which is the engine's name of the call it belongs to: the call that was answered with it.
    pub(crate) answers: RefCell<BTreeMap<String, String>>,
    /// Every admin call, in the order in which they began.
    pub(crate) admin: RefCell<Vec<AdminCall>>,
    /// What the operator made: a key for each user.
    pub(crate) keys: RefCell<Vec<Key>>,
    /// The most that any node's wall clock was wrong.
    pub(crate) clock_error_millis: Cell<u64>,
    /// When each phase began.
    phases: RefCell<Vec<(Phase, Duration)>>,
    violation: RefCell<Option<Violation>>,
}

/// A user's API key.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) user: usize,
    pub(crate) id: String,
    pub(crate) secret: String,
    /// When its revocation began, and when it returned.
    pub(crate) revoking: Option<Duration>,
    pub(crate) revoked: Option<Duration>,
}

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    /// Nodes start, the operator makes what users need.
    SettingUp,
    /// Things break.
    Chaos,
    /// Nothing breaks any more, users still call.
    Calm,
    /// Nobody calls any more.
    Settling,
}

impl Shared {
    /// Waits for `pause`. Whether anybody may still call then.
    pub(crate) async fn goes_on_after(&self, pause: Duration) -> bool {
        sleep(pause).await;
        self.phase.get() < Phase::Settling
    }

    /// When a phase began, if it did.
    pub(crate) fn began(&self, wanted: Phase) -> Option<Duration> {
        self.phases.borrow().iter().find(|(phase, _)| *phase == wanted).map(|(_, began)| *began)
    }

    /// The node that has taken the place of this one, or this one.
    pub(crate) fn now_in_place_of(&self, mut node: usize) -> usize {
        while let Some(successor) = self.nodes[node - 1].successor.get() {
            node = successor;
        }
        node
    }

    /// The nodes that are part of the cluster, or are to be: running or down.
    pub(crate) fn cluster_nodes(&self) -> Vec<usize> {
        let runs = |node: &usize| {
            let slot = &self.nodes[*node - 1];
            slot.exists.get() && !slot.is_lost.get()
        };
        (1..=self.nodes.len()).filter(runs).collect()
    }

    /// One of the nodes that callers know.
    pub(crate) fn some_node(&self, chance: &mut Chance) -> usize {
        *chance.pick(&self.front.borrow())
    }

    /// Those of them that have never been restarted.
    pub(crate) fn steady_nodes(&self) -> Vec<usize> {
        self.front.borrow().iter().copied().filter(|node| self.nodes[*node - 1].starts.get() == 1).collect()
    }

    /// One of them that nobody knows to be lost.
    pub(crate) fn some_living_node(&self, chance: &mut Chance) -> usize {
        let front = self.front.borrow();
        let living: Vec<usize> = front.iter().copied().filter(|node| !self.nodes[*node - 1].is_lost.get()).collect();
        *chance.pick(&living)
    }

    /// Reports that a property does not hold. The first report counts.
    pub(crate) fn violate(&self, violation: Violation) {
        trace::event("property", &format!("{violation}"));
        self.violation.borrow_mut().get_or_insert(violation);
    }
}

/// What came of a run.
pub(crate) struct RunResult {
    pub(crate) violation: Option<Violation>,
    /// Simulated time.
    pub(crate) elapsed: Duration,
    /// Hash of everything that happened, and how many events that were.
    pub(crate) digest: (u64, u64),
    /// What happened, in numbers: to show that a run was about something.
    pub(crate) tally: Tally,
}

/// Counts of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) answered: usize,
    pub(crate) limited: usize,
    pub(crate) unserved: usize,
    pub(crate) hung_up: usize,
    pub(crate) admin_done: usize,
    pub(crate) admin_unknown: usize,
    pub(crate) starts: u32,
    pub(crate) writes_lost: u64,
    pub(crate) disk_errors: u64,
    pub(crate) disk_stalls: u64,
    /// Disks on which an operation failed, and on which one stalled.
    pub(crate) failed_disks: usize,
    pub(crate) stalled_disks: usize,
    pub(crate) terms: u64,
    /// Limits of which all could be used, and was.
    pub(crate) used_up: usize,
    /// Calls that broke off, or had no answer.
    pub(crate) broken: usize,
    /// Calls refused with a status of 5xx.
    pub(crate) refused: usize,
    /// Answered calls that took over two seconds.
    pub(crate) slow_calls: usize,
    /// Nodes that do not start any more, and those of them whose place another node has taken.
    pub(crate) lost_nodes: usize,
    pub(crate) replaced_nodes: usize,
    pub(crate) actors_killed: u32,
    /// Nodes that died just after they had voted.
    pub(crate) crashed_voting: u32,
    /// Nodes that died while they installed a snapshot.
    pub(crate) crashed_installing: u32,
    /// How often a node went past log entries that it never had: with a snapshot of another one.
    pub(crate) jumps: u64,
    /// Written by one node and never read by the other.
    pub(crate) bytes_lost: u64,
    /// Messages that were on their way when a fault that delays them ended.
    pub(crate) in_flight: usize,
    /// The most that a wall clock was wrong.
    pub(crate) clock_error_millis: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "calls: {} answered, {} limited, {} unserved, {} hung up; admin: {} answered, {} unknown; {} starts, {} terms; {} limits used up; disks: {} writes lost, {} errors, {} stalls",
            self.answered,
            self.limited,
            self.unserved,
            self.hung_up,
            self.admin_done,
            self.admin_unknown,
            self.starts,
            self.terms,
            self.used_up,
            self.writes_lost,
            self.disk_errors,
            self.disk_stalls
        )
    }
}

/// Runs a plan from beginning to end.
pub(crate) fn run(plan: &Plan) -> RunResult {
    trace::remember_panics();
    align_task_ids();
    let mut sim = turmoil::Builder::new()
        .rng_seed(crate::chance::seed_of(plan.seed, "network"))
        .epoch(std::time::UNIX_EPOCH + Duration::from_secs(1_795_000_000))
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(3600))
        .min_message_latency(LATENCY.0)
        .max_message_latency(LATENCY.1)
        .tcp_capacity(65_536)
        .enable_random_order()
        .build();
    let shared = Rc::new(Shared {
        plan: plan.clone(),
        phase: Cell::new(Phase::SettingUp),
        nodes: (1..=plan.nodes + faults::spare_nodes(plan)).map(|number| NodeSlot::new(number, plan)).collect(),
        token_file: TokenFile::write(),
        front: RefCell::new((1..=plan.nodes).collect()),
        engines: (0..plan.engines).map(|_| EngineSlot::new()).collect(),
        poisoning: RefCell::default(),
        observations: RefCell::default(),
        calls: RefCell::default(),
        answers: RefCell::default(),
        admin: RefCell::default(),
        keys: RefCell::default(),
        clock_error_millis: Cell::new(0),
        phases: RefCell::default(),
        violation: RefCell::default(),
    });
    populate(&mut sim, &shared);
    let mut world = World { sim, shared, faults: Faults::new(plan), properties: Properties::default() };
    world.live();
    world.result()
}

/// The order in which a runtime drops its tasks depends on their numbers, which count up for the whole process. Every run begins
/// where a new process would.
fn align_task_ids() {
    const SHARDS: u64 = 64;
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers always builds");
    runtime.block_on(async {
        loop {
            let task = tokio::spawn(async {});
            let id: u64 = task.id().to_string().parse().unwrap_or(SHARDS - 1);
            if id % SHARDS == SHARDS - 1 {
                return;
            }
        }
    });
}

/// The names of all hosts.
fn hosts(shared: &Shared) -> impl Iterator<Item = String> {
    let nodes = (1..=shared.nodes.len()).map(gateway::name);
    let engines = (1..=shared.plan.engines).map(engine::name);
    nodes.chain(engines).chain(["operator".to_owned()]).chain((1..=shared.plan.users).map(user::name))
}

fn populate(sim: &mut Sim<'_>, shared: &Rc<Shared>) {
    for number in 1..=shared.nodes.len() {
        let shared = shared.clone();
        sim.host(gateway::name(number), move || gateway::host(shared.clone(), number));
    }
    for number in 1..=shared.plan.engines {
        let shared = shared.clone();
        sim.host(engine::name(number), move || engine::host(shared.clone(), number));
    }
    let operating = shared.clone();
    sim.host("operator", move || operator::host(operating.clone()));
    for number in 1..=shared.plan.users {
        let shared = shared.clone();
        sim.host(user::name(number), move || user::host(shared.clone(), number));
    }
}

struct World<'a> {
    sim: Sim<'a>,
    shared: Rc<Shared>,
    faults: Faults,
    properties: Properties,
}

impl World<'_> {
    fn live(&mut self) {
        if !self.shared.plan.breaks_early {
            self.set_up();
        }
        let began = self.sim.elapsed();
        while self.goes_on() && !self.faults.are_over(self.sim.elapsed() - began) {
            let now = self.sim.elapsed() - began;
            self.faults.strike(&mut self.sim, &self.shared, now);
            self.step();
            if self.is_set_up() {
                self.set_up();
            }
        }
        self.faults.heal(&mut self.sim, &self.shared);
        self.set_up();
        self.enter(Phase::Calm);
        let calm_ends = self.sim.elapsed() + CALM;
        while self.goes_on() && self.sim.elapsed() < calm_ends {
            self.step();
        }
        self.enter(Phase::Settling);
        let settled_by = self.sim.elapsed() + SETTLED_WITHIN;
        while self.goes_on() {
            match self.properties.unsettled(&self.shared) {
                None => break,
                Some(violation) if self.sim.elapsed() >= settled_by => self.shared.violate(violation),
                Some(_) => self.step(),
            }
        }
        if self.goes_on() {
            self.properties.at_end(&self.shared);
        }
    }

    /// Until users can call; nothing if they can already.
    fn set_up(&mut self) {
        if self.shared.phase.get() != Phase::SettingUp {
            return;
        }
        let deadline = self.sim.elapsed() + SET_UP_WITHIN;
        while self.goes_on() && !self.is_set_up() {
            if self.sim.elapsed() >= deadline {
                let text = format!("users cannot call yet, although nothing was broken for {SET_UP_WITHIN:?}");
                self.shared.violate(Violation::new("LIVE", text));
            }
            self.step();
        }
        self.enter(Phase::Chaos);
    }

    fn is_set_up(&self) -> bool {
        self.shared.keys.borrow().len() >= self.shared.plan.users
    }

    fn goes_on(&self) -> bool {
        self.shared.violation.borrow().is_none()
    }

    fn enter(&self, phase: Phase) {
        trace::event("world", &format!("{phase:?}"));
        self.shared.phases.borrow_mut().push((phase, self.sim.elapsed()));
        self.shared.phase.set(phase);
    }

    fn step(&mut self) {
        trace::time_is(self.sim.elapsed());
        // A panic of a task ends its host's runtime, and with it this step.
        let stepped = std::panic::catch_unwind(AssertUnwindSafe(|| self.sim.step()));
        if let Ok(Err(error)) = stepped {
            self.shared.violate(Violation::new("PANIC", format!("a host failed: {error}")));
        }
        if let Some(panic) = trace::first_panic() {
            self.shared.violate(Violation::new("PANIC", panic));
            return;
        }
        self.faults.revive(&mut self.sim, &self.shared);
        let seen: Vec<Observation> = self.shared.observations.borrow_mut().drain(..).collect();
        for observation in seen {
            self.properties.observe(&self.shared, observation);
        }
    }

    fn result(self) -> RunResult {
        let tally = self.tally();
        RunResult {
            violation: self.shared.violation.borrow_mut().take(),
            elapsed: self.sim.elapsed(),
            digest: trace::digest(),
            tally,
        }
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally {
            terms: self.properties.terms(),
            used_up: self.properties.used_up(&self.shared),
            jumps: self.properties.jumps(),
            bytes_lost: net::bytes_lost(),
            in_flight: self.faults.in_flight(),
            clock_error_millis: self.shared.clock_error_millis.get(),
            ..Tally::default()
        };
        for call in self.shared.calls.borrow().iter() {
            match &call.ended {
                Some((_, Ended::Broken(_))) => tally.broken += 1,
                Some((_, Ended::Refused(500..))) => tally.refused += 1,
                Some((at, Ended::Answered { .. })) if *at - call.began > SLOW => tally.slow_calls += 1,
                Some(_) | None => {}
            }
            match &call.ended {
                Some((_, Ended::Answered { .. })) => tally.answered += 1,
                Some((_, Ended::Refused(429))) => tally.limited += 1,
                Some((_, Ended::HungUp)) => tally.hung_up += 1,
                Some((_, Ended::Refused(_) | Ended::Broken(_))) | None => tally.unserved += 1,
            }
        }
        for call in self.shared.admin.borrow().iter() {
            match call.ended {
                Some((_, AdminOutcome::Answered(_, _))) => tally.admin_done += 1,
                Some((_, AdminOutcome::Unknown)) | None => tally.admin_unknown += 1,
            }
        }
        for slot in &self.shared.nodes {
            let (lost, failed, stalled) = slot.disk.harm();
            tally.starts += slot.starts.get();
            tally.lost_nodes += usize::from(slot.is_lost.get());
            tally.replaced_nodes += usize::from(slot.successor.get().is_some());
            tally.actors_killed += slot.actors_killed.get();
            tally.crashed_voting += slot.crashed_voting.get();
            tally.crashed_installing += slot.crashed_installing.get();
            tally.writes_lost += lost;
            tally.disk_errors += failed;
            tally.disk_stalls += stalled;
            tally.failed_disks += usize::from(failed > 0);
            tally.stalled_disks += usize::from(stalled > 0);
        }
        tally
    }
}
