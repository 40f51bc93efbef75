//! A gateway node: the real one, on its doors.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use node::config::Config;
use node::node::Node;
use raft::doors::{Clock, Doors, SeededChance};
use raft::{NodeId, View};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::clock::SimClock;
use super::disk::SimDisk;
use super::net::SimNet;
use super::{Shared, setup};
use crate::chance::seed_of;
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

/// What of a node outlives its lives, and what the world does to it.
pub(crate) struct NodeSlot {
    pub(crate) disk: Arc<SimDisk>,
    pub(crate) clock: Arc<SimClock>,
    /// How often it was started.
    pub(crate) lives: Cell<u32>,
    /// Until when it stays down; `None`: it is to run.
    pub(crate) down_until: Cell<Option<Duration>>,
    /// Its disk is beyond use: it is not started any more.
    pub(crate) is_lost: Cell<bool>,
    /// Its disk was damaged, whether that has been noticed or not.
    pub(crate) has_rotted: Cell<bool>,
    /// Asks the running node to stop politely.
    pub(crate) stop: RefCell<Rc<Notify>>,
}

impl NodeSlot {
    pub(crate) fn new(number: usize, seed: u64) -> NodeSlot {
        NodeSlot {
            disk: Arc::new(SimDisk::new(&name(number), seed)),
            clock: Arc::default(),
            lives: Cell::new(0),
            down_until: Cell::new(None),
            is_lost: Cell::new(false),
            has_rotted: Cell::new(false),
            stop: RefCell::default(),
        }
    }
}

/// What a node says of itself at one moment.
pub(crate) struct Observation {
    pub(crate) node: usize,
    pub(crate) life: u32,
    pub(crate) leader: Option<usize>,
    pub(crate) term: u64,
    pub(crate) may_serve: bool,
    pub(crate) view: Arc<View>,
}

/// One life of a node.
pub(crate) async fn host(shared: Rc<Shared>, number: usize) -> turmoil::Result {
    let slot = &shared.nodes[number - 1];
    let life = slot.lives.get() + 1;
    slot.lives.set(life);
    let (name, seed) = (name(number), shared.plan.seed);
    let doors = Doors {
        clock: slot.clock.clone(),
        chance: Arc::new(SeededChance::new(seed_of(seed, &format!("{name}, life {life}")))),
        net: Arc::new(SimNet::of(&name, seed_of(seed, &format!("life {life}")))),
    };
    let stop = Rc::new(Notify::new());
    *slot.stop.borrow_mut() = stop.clone();
    trace::event(&name, &format!("starts, life {life}"));
    match Node::start(&config(number, shared.plan.nodes), doors, slot.disk.clone()).await {
        Ok(node) => {
            let looking = tokio::task::spawn_local(look(shared.clone(), number, life, node.context().clone()));
            let outcome = node.run(async move { stop.notified().await }).await;
            looking.abort();
            match outcome {
                Ok(()) => trace::event(&name, "stopped as it was asked to"),
                Err(failed) => trace::event(&name, &failed.to_string()),
            }
        }
        Err(error) => {
            trace::event(&name, &format!("does not start: {error}"));
            let is_of_disk = matches!(&error, node::node::StartError::Cluster(raft::cluster::StartError::Storage(_)));
            if is_of_disk && !slot.disk.is_ill() {
                // A person would replace it.
                slot.is_lost.set(true);
            }
        }
    }
    Ok(())
}

async fn look(shared: Rc<Shared>, number: usize, life: u32, context: node::Context) {
    loop {
        let standing = context.cluster.standing();
        let observation = Observation {
            node: number,
            life,
            leader: standing.leader.map(|leader| leader.0 as usize),
            term: standing.term,
            may_serve: context.cluster.may_serve(),
            view: context.cluster.view(),
        };
        shared.observations.borrow_mut().push_back(observation);
        let error = shared.nodes[number - 1].clock.wall().0.abs_diff(super::wall().0);
        shared.clock_error_millis.set(shared.clock_error_millis.get().max(error));
        sleep(LOOK_EVERY).await;
    }
}

/// The configuration of a node as a file would say it, except that peers speak without TLS and ports are plain HTTP.
fn config(number: usize, nodes: usize) -> Config {
    let mut config = Config::parse(&format!("[node]\nid = {number}\n"), Path::new("/nowhere"), &BTreeMap::new())
        .unwrap_or_else(|mistakes| unreachable!("the configuration is ours: {mistakes:?}"));
    config.cluster.members =
        (1..=nodes).map(|member| (NodeId(member as u64), format!("{}:{PEER_PORT}", name(member)))).collect();
    config.peers.listen = format!("0.0.0.0:{PEER_PORT}");
    config.gateway.listen = format!("0.0.0.0:{GATEWAY_PORT}");
    config.admin.listen = format!("0.0.0.0:{ADMIN_PORT}");
    for limits in [&mut config.gateway.limits, &mut config.admin.limits] {
        limits.date_header = false;
        limits.drain_timeout = DRAIN;
    }
    config.admin.bootstrap_token_file = setup::token_file();
    config
}
