//! A gateway node: the real one, on its doors.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actors::Holding;
use node::config::Config;
use node::node::Node;
use ractor::ActorCell;
use raft::doors::{Clock, Doors, SeededChance};
use raft::{Cluster, NodeId, View};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::clock::SimClock;
use super::disk::SimDisk;
use super::net::SimNet;
use super::{Phase, Shared};
use crate::chance::seed_of;
use crate::plan::Plan;
use crate::properties::Violation;
use crate::trace;

/// Where its ports are, on every node.
pub(crate) const GATEWAY_PORT: u16 = 8080;
pub(crate) const ADMIN_PORT: u16 = 8443;
pub(crate) const PEER_PORT: u16 = 7443;
/// How long a node that is asked to stop lets calls in progress go on. Callers of a node that drains are refused.
const DRAIN: Duration = Duration::from_secs(3);
/// How often a node is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A node's name on the network.
pub(crate) fn name(number: usize) -> String {
    format!("node-{number}")
}

/// Where other nodes reach it.
pub(crate) fn peer_address(number: usize) -> String {
    format!("{}:{PEER_PORT}", name(number))
}

/// What of a node outlives its process, and what the world does to it.
pub(crate) struct NodeSlot {
    pub(crate) disk: Arc<SimDisk>,
    pub(crate) clock: Arc<SimClock>,
    /// Whether there is such a node. Spare ones are there when they take the place of a lost one.
    pub(crate) exists: Cell<bool>,
    /// How often it was started.
    pub(crate) starts: Cell<u32>,
    /// Whether it serves since its last start.
    pub(crate) serves: Cell<bool>,
    /// Until when it stays down; `None`: it is to run.
    pub(crate) down_until: Cell<Option<Duration>>,
    /// Its disk is beyond use: it is not started any more.
    pub(crate) is_lost: Cell<bool>,
    /// Its disk was damaged, whether that has been noticed or not, or it is to be taken out.
    pub(crate) will_be_lost: Cell<bool>,
    /// A person is to take it out although nothing is wrong with it.
    pub(crate) is_unwanted: Cell<bool>,
    /// When the cluster said that it was taken out.
    pub(crate) taken_out: Cell<Option<Duration>>,
    /// Another node has taken its place: which.
    pub(crate) successor: Cell<Option<usize>>,
    /// The root of the actors of the running node.
    pub(crate) actors: RefCell<Option<ActorCell>>,
    /// The running node's part of the cluster.
    pub(crate) cluster: RefCell<Option<Cluster>>,
    /// The highest term in which it said that it was, since any start.
    pub(crate) term: Cell<u64>,
    /// How often its disk had failed when it started.
    pub(crate) failed_before: Cell<u64>,
    /// How often it died just after it had voted.
    pub(crate) crashed_voting: Cell<u32>,
    /// How often it died while it installed a snapshot.
    pub(crate) crashed_installing: Cell<u32>,
    /// How many of its actors were killed.
    pub(crate) actors_killed: Cell<u32>,
    /// Asks the running node to stop politely.
    pub(crate) stop: RefCell<Rc<Notify>>,
}

impl NodeSlot {
    pub(crate) fn new(number: usize, plan: &Plan) -> NodeSlot {
        NodeSlot {
            exists: Cell::new(number <= plan.nodes),
            disk: Arc::new(SimDisk::new(&name(number), plan.seed)),
            clock: Arc::default(),
            starts: Cell::new(0),
            serves: Cell::new(false),
            down_until: Cell::new(None),
            is_lost: Cell::new(false),
            will_be_lost: Cell::new(false),
            is_unwanted: Cell::new(false),
            taken_out: Cell::new(None),
            successor: Cell::new(None),
            actors: RefCell::default(),
            cluster: RefCell::default(),
            term: Cell::new(0),
            failed_before: Cell::new(0),
            crashed_voting: Cell::new(0),
            crashed_installing: Cell::new(0),
            actors_killed: Cell::new(0),
            stop: RefCell::default(),
        }
    }

    /// It said that it was in this term. One whose disk has failed, or does nothing, may say what it could not write, to nobody but us.
    pub(crate) fn note_term(&self, term: u64) {
        let (_, failed, _) = self.disk.harm();
        if failed == self.failed_before.get() && !self.disk.is_ill() {
            self.term.set(self.term.get().max(term));
        }
    }

    /// Whether somebody is to put another node in its place, or has done so.
    pub(crate) fn will_be_replaced(&self) -> bool {
        self.is_lost.get() || self.is_unwanted.get()
    }

    /// Kills one of the running node's actors, with those below it, wherever they are in their work. Returns whether there was one.
    pub(crate) fn kill_actor(&self, which: usize) -> bool {
        let Some(root) = self.actors.borrow().clone() else { return false };
        let actors = below(&root);
        let Some(actor) = actors.get(which % actors.len().max(1)) else { return false };
        // Those below first, in order: otherwise they would end in the order of a hash map.
        below(actor).iter().for_each(ActorCell::kill);
        actor.kill();
        self.actors_killed.set(self.actors_killed.get() + 1);
        true
    }
}

/// All actors below one, oldest first.
fn below(root: &ActorCell) -> Vec<ActorCell> {
    let mut actors = Vec::new();
    let mut unseen = vec![root.clone()];
    while let Some(actor) = unseen.pop() {
        unseen.extend(actor.get_children());
        actors.extend(actor.get_children());
    }
    actors.sort_by_key(|actor| actor.get_id().pid());
    actors
}

/// What a node says of itself at one moment.
pub(crate) struct Observation {
    pub(crate) node: usize,
    pub(crate) start: u32,
    /// How often it was started, as it says itself.
    pub(crate) incarnation: u64,
    pub(crate) leader: Option<usize>,
    pub(crate) term: u64,
    pub(crate) may_serve: bool,
    /// Who is in the cluster, as it knows.
    pub(crate) members: Vec<usize>,
    pub(crate) view: Arc<View>,
    /// What its local allowance holds.
    pub(crate) holdings: Vec<Holding>,
    pub(crate) size: Size,
}

/// How much there is of what must not grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Size {
    /// Tasks of the runtime.
    pub(crate) tasks: usize,
    /// Open connections, to and from anybody.
    pub(crate) connections: usize,
    /// Calls on their way to replicas.
    pub(crate) calls: u64,
    /// Entries in the log on disk, and snapshots beside it.
    pub(crate) entries: usize,
    pub(crate) snapshots: usize,
}

/// One process of a node, from its start to its end.
pub(crate) async fn host(shared: Rc<Shared>, number: usize) -> turmoil::Result {
    let slot = &shared.nodes[number - 1];
    if !slot.exists.get() {
        return Ok(());
    }
    let start = slot.starts.get() + 1;
    slot.starts.set(start);
    slot.failed_before.set(slot.disk.harm().1);
    slot.serves.set(false);
    let (name, seed) = (name(number), shared.plan.seed);
    let net = Arc::new(SimNet::of(&name, seed_of(seed, &format!("life {start}"))));
    let doors = Doors {
        clock: slot.clock.clone(),
        chance: Arc::new(SeededChance::new(seed_of(seed, &format!("{name}, life {start}")))),
        net: net.clone(),
    };
    let stop = Rc::new(Notify::new());
    *slot.stop.borrow_mut() = stop.clone();
    trace::event(&name, &format!("starts for the {start}. time"));
    match Node::start(&config(number, &shared), doors, slot.disk.clone()).await {
        Ok(node) => {
            *slot.actors.borrow_mut() = Some(node.context().actors.root());
            *slot.cluster.borrow_mut() = Some(node.context().cluster.clone());
            let looking = tokio::task::spawn_local(look(shared.clone(), (number, start), node.context().clone(), net));
            let outcome = node.run(async move { stop.notified().await }).await;
            looking.abort();
            slot.serves.set(false);
            slot.actors.borrow_mut().take();
            slot.cluster.borrow_mut().take();
            match outcome {
                Ok(()) => trace::event(&name, "stopped as it was asked to"),
                Err(failed) => {
                    trace::event(&name, &failed.to_string());
                    if shared.phase.get() >= Phase::Settling {
                        shared.violate(Violation::new("LIVE", format!("all is well, and {name} says: {failed}")));
                    }
                }
            }
        }
        Err(error) => {
            trace::event(&name, &format!("does not start: {error}"));
            let is_of_disk = matches!(&error, node::node::StartError::Cluster(raft::cluster::StartError::Storage(_)));
            if is_of_disk && !slot.disk.is_ill() {
                if !slot.will_be_lost.get() {
                    let text = format!("{name} does not start on a disk on which nothing has rotted: {error}");
                    shared.violate(Violation::new("LIVE", text));
                }
                slot.is_lost.set(true);
            }
        }
    }
    Ok(())
}

async fn look(shared: Rc<Shared>, (number, start): (usize, u32), context: node::Context, net: Arc<SimNet>) {
    let slot = &shared.nodes[number - 1];
    loop {
        let standing = context.cluster.standing();
        let replicas = context.actors.pools.snapshot().into_iter().flat_map(|pool| pool.replicas);
        let (entries, snapshots) = slot.disk.size();
        let observation = Observation {
            node: number,
            start,
            incarnation: context.cluster.incarnation(),
            leader: standing.leader.map(|leader| leader.0 as usize),
            term: standing.term,
            may_serve: context.cluster.may_serve(),
            members: standing.members.keys().map(|member| member.0 as usize).collect(),
            view: context.cluster.view(),
            holdings: context.actors.quota.holdings(),
            size: Size {
                tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
                connections: net.open_connections(),
                calls: replicas.map(|replica| replica.in_flight).sum(),
                entries,
                snapshots,
            },
        };
        slot.serves.set(observation.may_serve);
        shared.observations.borrow_mut().push_back(observation);
        let error = slot.clock.wall().0.abs_diff(super::wall().0);
        shared.clock_error_millis.set(shared.clock_error_millis.get().max(error));
        sleep(LOOK_EVERY).await;
    }
}

/// The configuration of a node as a file would say it, except that peers speak without TLS and ports are plain HTTP.
fn config(number: usize, shared: &Shared) -> Config {
    let plan = &shared.plan;
    let mut config = Config::parse(&format!("[node]\nid = {number}\n"), Path::new("/nowhere"), &BTreeMap::new())
        .unwrap_or_else(|mistakes| unreachable!("the configuration is ours: {mistakes:?}"));
    config.cluster.members = (1..=plan.nodes).map(|member| (NodeId(member as u64), peer_address(member))).collect();
    if number > plan.nodes {
        config.cluster.members.clear();
        config.cluster.join = true;
    }
    config.cluster.snapshot_every = plan.snapshot_every;
    config.cluster.serving_lease = plan.serving_lease;
    config.peers.listen = format!("0.0.0.0:{PEER_PORT}");
    config.gateway.listen = format!("0.0.0.0:{GATEWAY_PORT}");
    config.admin.listen = format!("0.0.0.0:{ADMIN_PORT}");
    for limits in [&mut config.gateway.limits, &mut config.admin.limits] {
        limits.date_header = false;
        limits.drain_timeout = DRAIN;
        // All callers have one address here, and keys that are revoked are tried on purpose.
        limits.auth_failures_burst = 1_000_000;
    }
    config.admin.bootstrap_token_file = shared.token_file.path();
    config
}
