//! Makes the plan's faults happen, and ends them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use turmoil::Sim;

use super::disk::Illness;
use super::wires::Wires;
use super::{Phase, Shared, engine, gateway, hosts};
use crate::plan::{Fault, Plan, Planned};
use crate::trace;

/// A process that ended by itself is started again after this.
const RESTART_PAUSE: Duration = Duration::from_millis(300);
/// A flapping connection changes this often.
const FLAP_EVERY: Duration = Duration::from_millis(250);
/// In a crash loop a node lives and is dead for so long.
const LOOP_EVERY: Duration = Duration::from_millis(900);
const LOOP_DOWN: Duration = Duration::from_millis(100);
/// A rolling restart is given up when it lasts so much longer than it was to.
const ROLL_PATIENCE: Duration = Duration::from_secs(30);

/// The plan, and where it stands.
pub(crate) struct Faults {
    /// Not begun yet, the next one last.
    ahead: Vec<Planned>,
    active: Vec<Active>,
    wires: Wires,
    /// What engines do, and which do nothing.
    failing: BTreeMap<usize, &'static str>,
    hung: BTreeSet<usize>,
    chaos: Duration,
    /// Messages on their way when a fault that delays them ended.
    in_flight: usize,
}

struct Active {
    planned: Planned,
    /// Steps done, of faults that have several.
    steps: u32,
    /// How often the node had done what it is to die at when the fault began, and when it dies since it did so again.
    done: Option<u64>,
    dies_at: Option<Duration>,
}

impl Active {
    /// A rolling restart lasts until the last node serves again.
    fn is_over(&self, shared: &Shared, now: Duration) -> bool {
        let ends = self.planned.at + self.planned.lasts;
        match self.planned.fault {
            Fault::RollingRestart => {
                now >= ends + ROLL_PATIENCE
                    || (self.steps as usize == shared.plan.nodes && may_roll(shared, self.steps))
            }
            _ => now >= ends,
        }
    }

    /// Whether a node dies now that dies `millis` after it has done something, once. So far it did so `done` times.
    fn is_time_to_die(&mut self, done: u64, millis: u64, now: Duration) -> bool {
        if done > *self.done.get_or_insert(done) {
            self.dies_at.get_or_insert(now + Duration::from_millis(millis));
        }
        let dies = self.steps == 0 && self.dies_at.is_some_and(|at| at <= now);
        self.steps += u32::from(dies);
        dies
    }

    /// How many steps a fault that does one `every` should have done at `now`.
    fn due(&self, now: Duration, every: Duration) -> u32 {
        1 + (now.saturating_sub(self.planned.at).as_millis() / every.as_millis()) as u32
    }
}

impl Faults {
    pub(crate) fn new(plan: &Plan) -> Faults {
        let mut ahead = plan.faults.clone();
        ahead.sort_by_key(|planned| std::cmp::Reverse(planned.at));
        Faults {
            ahead,
            active: Vec::new(),
            wires: Wires::default(),
            failing: BTreeMap::new(),
            hung: BTreeSet::new(),
            chaos: plan.chaos,
            in_flight: 0,
        }
    }

    /// Whether everything is over at `now`, counted from the beginning of the chaos.
    pub(crate) fn are_over(&self, now: Duration) -> bool {
        self.ahead.is_empty() && self.active.is_empty() && now >= self.chaos
    }

    /// How many messages were on their way when faults that delay them ended.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Begins and ends what is due.
    pub(crate) fn strike(&mut self, sim: &mut Sim<'_>, shared: &Shared, now: Duration) {
        let mut changed = false;
        while self.ahead.last().is_some_and(|planned| planned.at <= now) {
            let Some(mut planned) = self.ahead.pop() else { break };
            // Who took the place of a lost node has its troubles, too.
            planned.fault = planned.fault.moved(|node| shared.now_in_place_of(node));
            trace::event("fault", &format!("begins: {}", planned.fault));
            begin(sim, shared, &mut self.wires, &planned);
            self.active.push(Active { planned, steps: 0, done: None, dies_at: None });
            changed = true;
        }
        for active in &mut self.active {
            changed |= go_on(sim, shared, &mut self.wires, active, now);
        }
        let (over, active): (Vec<_>, Vec<_>) = self.active.drain(..).partition(|active| active.is_over(shared, now));
        self.active = active;
        for Active { planned, .. } in &over {
            trace::event("fault", &format!("ends: {}", planned.fault));
            if let Fault::Hold(a, b) | Fault::Slow(a, b, _) = planned.fault {
                self.in_flight += on_their_way(sim, a, b);
            }
            end(shared, &planned.fault);
            changed = true;
        }
        if changed {
            self.lay_out(sim, shared);
            self.ail(shared);
        }
    }

    /// Ends everything, at once.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>, shared: &Shared) {
        for active in self.active.drain(..) {
            end(shared, &active.planned.fault);
        }
        self.ahead.clear();
        self.lay_out(sim, shared);
        self.ail(shared);
        shared.nodes.iter().for_each(|slot| slot.clock.repair());
    }

    /// Starts nodes that are to run and do not.
    pub(crate) fn revive(&mut self, sim: &mut Sim<'_>, shared: &Shared) {
        let now = sim.elapsed();
        for (at, slot) in shared.nodes.iter().enumerate() {
            let name = gateway::name(at + 1);
            if !slot.exists.get() || slot.is_lost.get() || sim.is_host_running(name.as_str()) {
                continue;
            }
            match slot.down_until.get() {
                None => slot.down_until.set(Some(now + RESTART_PAUSE)),
                Some(until) if until <= now => {
                    slot.down_until.set(None);
                    sim.bounce(name.as_str());
                }
                Some(_) => {}
            }
        }
    }

    /// Makes disks and engines as ill as the active faults say.
    fn ail(&mut self, shared: &Shared) {
        let is_active = |wanted: Fault| self.active.iter().any(|active| active.planned.fault == wanted);
        for (at, slot) in shared.nodes.iter().enumerate() {
            let node = at + 1;
            slot.disk.set_ill(Illness {
                stalls: is_active(Fault::DiskStall(node)),
                is_full: is_active(Fault::DiskFull(node)),
                fails: is_active(Fault::DiskError(node)),
                is_unreadable: is_active(Fault::DiskUnreadable(node)),
            });
        }
        let (mut failing, mut hung, mut poisoning) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for active in &self.active {
            match active.planned.fault {
                Fault::Engine(engine, what) => drop(failing.insert(engine, what)),
                Fault::EngineHang(engine) => drop(hung.insert(engine)),
                Fault::Poison(user) => drop(poisoning.insert(user)),
                _ => {}
            }
        }
        for (at, engine) in shared.engines.iter().enumerate() {
            let number = at + 1;
            if failing.get(&number) != self.failing.get(&number) {
                engine.set_fault(failing.get(&number).map(|what| {
                    what.parse().unwrap_or_else(|error| unreachable!("`{what}` is a fault of engines: {error}"))
                }));
            }
            if hung.contains(&number) != self.hung.contains(&number) {
                engine.set_hung(hung.contains(&number));
            }
        }
        (self.failing, self.hung) = (failing, hung);
        *shared.poisoning.borrow_mut() = poisoning;
    }

    /// Makes the network what the active faults say.
    fn lay_out(&mut self, sim: &mut Sim<'_>, shared: &Shared) {
        let mut wanted = Wires::default();
        for active in &self.active {
            for (from, to) in cuts(active, shared) {
                wanted.cut(&from, &to);
            }
            match active.planned.fault {
                Fault::Hold(a, b) => wanted.hold(&gateway::name(a), &gateway::name(b)),
                Fault::Slow(a, b, millis) => {
                    wanted.slow(&gateway::name(a), &gateway::name(b), Duration::from_millis(millis));
                }
                Fault::Lossy(a, b, percent) => wanted.lose(&gateway::name(a), &gateway::name(b), percent),
                _ => {}
            }
        }
        self.wires.become_as(sim, wanted);
    }
}

/// Messages on their way between two nodes.
fn on_their_way(sim: &Sim<'_>, a: usize, b: usize) -> usize {
    let wanted = [sim.lookup(gateway::name(a)), sim.lookup(gateway::name(b))];
    let mut found = 0;
    sim.links(|links| {
        let of_both = links.filter(|link| wanted.contains(&link.pair().0) && wanted.contains(&link.pair().1));
        found = of_both.map(Iterator::count).sum();
    });
    found
}

/// What a fault cuts, now: from one host to the other.
fn cuts(active: &Active, shared: &Shared) -> Vec<(String, String)> {
    let nodes = shared.plan.nodes;
    let both = |a: String, b: String| vec![(a.clone(), b.clone()), (b, a)];
    match active.planned.fault {
        Fault::Isolate(node) => (1..=shared.nodes.len())
            .filter(|other| *other != node)
            .flat_map(|other| both(gateway::name(node), gateway::name(other)))
            .collect(),
        Fault::OneWay(from, to) => vec![(gateway::name(from), gateway::name(to))],
        Fault::Ring => {
            let apart = |a: usize, b: usize| (a + 1) % nodes != b % nodes && (b + 1) % nodes != a % nodes;
            let pairs = (1..=nodes).flat_map(|a| (a + 1..=nodes).map(move |b| (a, b)));
            // Three nodes are a ring as they are: one side of it is cut.
            pairs
                .filter(|(a, b)| if nodes == 3 { (*a, *b) == (1, 3) } else { apart(*a, *b) })
                .flat_map(|(a, b)| both(gateway::name(a), gateway::name(b)))
                .collect()
        }
        Fault::Flap(a, b) if active.steps % 2 == 1 => both(gateway::name(a), gateway::name(b)),
        Fault::CutEngine(node, engine) => both(gateway::name(node), engine::name(engine)),
        _ => Vec::new(),
    }
}

fn begin(sim: &mut Sim<'_>, shared: &Shared, wires: &mut Wires, planned: &Planned) {
    let mut cut_power = |node: usize, down: Duration| cut_power(sim, shared, wires, node, down);
    match planned.fault {
        Fault::Crash(node) => cut_power(node, planned.lasts),
        Fault::CrashInstalling(node, _) => cut_power(node, planned.lasts / 2),
        Fault::DiskUnreadable(node) => cut_power(node, LOOP_DOWN),
        Fault::CrashAll => (1..=shared.nodes.len()).for_each(|node| cut_power(node, planned.lasts)),
        Fault::DiskRot(node) => {
            let slot = &shared.nodes[node - 1];
            if may_lose(shared, node) && slot.disk.rot() {
                slot.will_be_lost.set(true);
                cut_power(node, planned.lasts);
            }
        }
        Fault::DiskLost(node) => {
            if may_lose(shared, node) {
                let slot = &shared.nodes[node - 1];
                slot.will_be_lost.set(true);
                slot.is_lost.set(true);
                cut_power(node, planned.lasts);
            }
        }
        Fault::TakenOut(node) => {
            if may_lose(shared, node) {
                shared.nodes[node - 1].will_be_lost.set(true);
                shared.nodes[node - 1].is_unwanted.set(true);
            }
        }
        Fault::ActorDies(node, which) => {
            if !shared.nodes[node - 1].kill_actor(which) {
                trace::event("fault", "there is no such actor now");
            }
        }
        Fault::ClockJump(node, millis) => shared.nodes[node - 1].clock.jump(millis),
        Fault::ClockDrift(node, parts) => shared.nodes[node - 1].clock.drift(parts),
        // The others are what the network, disks, engines and users are like while they last.
        Fault::DiskStall(_)
        | Fault::DiskFull(_)
        | Fault::DiskError(_)
        | Fault::Engine(..)
        | Fault::EngineHang(_)
        | Fault::Poison(_)
        | Fault::Isolate(_)
        | Fault::OneWay(..)
        | Fault::Ring
        | Fault::Flap(..)
        | Fault::Hold(..)
        | Fault::Slow(..)
        | Fault::Lossy(..)
        | Fault::CutEngine(..)
        | Fault::CrashLoop(_)
        | Fault::CrashAtVote(..)
        | Fault::RollingRestart => {}
    }
}

/// The next step of a fault that has several. Whether the network changes.
fn go_on(sim: &mut Sim<'_>, shared: &Shared, wires: &mut Wires, active: &mut Active, now: Duration) -> bool {
    let every = match active.planned.fault {
        Fault::Flap(..) => FLAP_EVERY,
        Fault::CrashLoop(_) => LOOP_EVERY,
        Fault::CrashAtVote(node, millis) => {
            let slot = &shared.nodes[node - 1];
            if active.is_time_to_die(slot.disk.votes(), millis, now) {
                slot.crashed_voting.set(slot.crashed_voting.get() + 1);
                cut_power(sim, shared, wires, node, LOOP_DOWN);
                return true;
            }
            return false;
        }
        Fault::CrashInstalling(node, millis) => {
            let slot = &shared.nodes[node - 1];
            if active.is_time_to_die(slot.disk.installs(), millis, now) {
                slot.crashed_installing.set(slot.crashed_installing.get() + 1);
                cut_power(sim, shared, wires, node, LOOP_DOWN);
                return true;
            }
            return false;
        }
        Fault::RollingRestart => {
            roll(shared, active);
            return false;
        }
        _ => return false,
    };
    if active.steps >= active.due(now, every) {
        return false;
    }
    active.steps += 1;
    if let Fault::CrashLoop(node) = active.planned.fault {
        kill(sim, shared, node, LOOP_DOWN);
    }
    true
}

/// Asks the next node to stop, once the one before has started again and serves.
fn roll(shared: &Shared, active: &mut Active) {
    if (active.steps as usize) < shared.plan.nodes && may_roll(shared, active.steps) {
        let node = &shared.nodes[shared.now_in_place_of(active.steps as usize + 1) - 1];
        node.serves.set(false);
        node.stop.borrow().notify_one();
        active.steps += 1;
    }
}

/// Whether the first `steps` nodes serve.
fn may_roll(shared: &Shared, steps: u32) -> bool {
    (1..=steps as usize).all(|node| shared.nodes[shared.now_in_place_of(node) - 1].serves.get())
}

fn end(shared: &Shared, fault: &Fault) {
    match *fault {
        // Somebody notices, and sets it right: another jump.
        Fault::ClockJump(node, millis) => shared.nodes[node - 1].clock.jump(-millis),
        Fault::ClockDrift(node, _) => shared.nodes[node - 1].clock.drift(0),
        _ => {}
    }
}

/// A cluster survives the loss of a minority, no more, and there are as many spare nodes. While it is founded it survives none: what
/// only one node has is gone with it.
fn may_lose(shared: &Shared, node: usize) -> bool {
    let slot = &shared.nodes[node - 1];
    let others = shared.nodes.iter().filter(|other| other.will_be_lost.get() && !std::ptr::eq(*other, slot));
    shared.phase.get() > Phase::SettingUp && !slot.is_lost.get() && others.count() < spare_nodes(&shared.plan)
}

/// How many nodes wait to take the place of a lost one.
pub(super) fn spare_nodes(plan: &Plan) -> usize {
    (plan.nodes - 1) / 2
}

/// A node's machine loses its power: what was not synced is gone, and nobody hears of it.
fn cut_power(sim: &mut Sim<'_>, shared: &Shared, wires: &mut Wires, node: usize, down: Duration) {
    if shared.nodes[node - 1].exists.get() {
        wires.silence(sim, &gateway::name(node), hosts(shared));
        kill(sim, shared, node, down);
        shared.nodes[node - 1].disk.cut_power();
    }
}

/// A node's process is killed: its machine keeps what was written, and closes its connections.
fn kill(sim: &mut Sim<'_>, shared: &Shared, node: usize, down: Duration) {
    let slot = &shared.nodes[node - 1];
    if !slot.exists.get() {
        return;
    }
    slot.actors.borrow_mut().take();
    if let Some(cluster) = slot.cluster.borrow_mut().take() {
        slot.note_term(cluster.standing().term);
    }
    slot.serves.set(false);
    sim.crash(gateway::name(node).as_str());
    let until = sim.elapsed() + down;
    slot.down_until.set(Some(slot.down_until.get().map_or(until, |other| other.max(until))));
}
