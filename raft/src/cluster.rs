//! The handle others use: propose, read, watch, who leads.

mod ask;
mod lease;
mod membership;
mod state_clock;
mod wall_clocks;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::codec;
use crate::command::{Command, Reply};
use crate::consensus::{self, LogStore, Machine, Member};
use crate::doors::{Chance, Doors};
use crate::ids::{NodeId, RequestId};
use crate::journal::Journal;
use crate::peers::message::{Request, Response};
use crate::peers::{self, Acquaintances, PeerTls, Peers};
use crate::state::View;
use crate::storage::{self, Disk, Writer};

use ask::{Ask, Done};
use lease::Lease;
pub use membership::{MemberError, Membership};
pub(crate) use state_clock::StateClock;
pub(crate) use wall_clocks::WallClocks;

/// How long a proposal is tried.
const DEADLINE: Duration = Duration::from_secs(10);
/// The largest command.
const COMMAND_MAX: usize = 1 << 20;
/// Proposals and barriers of this node under way at once. A node has one quota batch in flight and a few admin
/// requests; beyond this bound somebody is flooding the admin API and is told so at once.
const PROPOSALS_MAX: usize = 256;
/// How long a stopping leader waits for another to take over.
const HANDOVER: Duration = Duration::from_secs(2);
/// How long a node waits for others to say whether the cluster exists. Those that are not up yet do not matter.
const FOUNDED_WITHIN: Duration = Duration::from_millis(300);
/// How long a new credential may take to be known on every node that is up, before it is handed out all the same.
const SPREAD_WITHIN: Duration = Duration::from_millis(250);
/// How long one question of a fence may take.
const FENCE_ATTEMPT: Duration = Duration::from_secs(1);

/// After how many log entries a snapshot is made, unless somebody says otherwise.
pub const SNAPSHOT_EVERY: u64 = 5000;

/// How to run this node's part of the cluster.
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// Distinguishes clusters: peers of another name are refused.
    pub cluster: String,
    /// Where this node listens for its peers: `host:port`.
    pub peer_listen: String,
    /// Every member of a new cluster, this node included: where its peers reach it (`host:port`). Only read when the
    /// disk is empty. A node that is not in it founds nothing and waits until it is added.
    pub members: BTreeMap<NodeId, String>,
    /// TLS between peers. `None` only on loopback with a single node or in a simulation.
    pub tls: Option<PeerTls>,
    /// A node that has not heard from a leader for so long stops admitting. Default 5 s. All members must agree on it.
    pub serving_lease: Duration,
    /// A snapshot is made after so many log entries, and a fifth as many are kept behind it for followers that are a little late.
    /// At least 5; default [`SNAPSHOT_EVERY`].
    pub snapshot_every: u64,
}

/// A proposal that took effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Its log index.
    pub index: u64,
    /// What it was answered: [`Reply::Refused`] included.
    pub reply: Reply,
}

/// Why a proposal has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It may or may not have taken effect. There is no `Failed`: a proposal that timed out may still commit.
    #[error("no answer from the leader within {0:?}: the change may or may not have been made")]
    Unknown(Duration),
    /// This node is stopping.
    #[error("the node is shutting down")]
    Stopping,
    /// The proposal is larger than the log takes.
    #[error("the change is {bytes} bytes large, at most {max} are accepted")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Nothing was sent: try again when others are done.
    #[error("{0} changes are under way at this node already: try again")]
    Busy(usize),
    /// Nothing was sent: this node is none of the cluster's any more.
    #[error("this node was taken out of the cluster: ask another")]
    Retired,
}

/// Where this node stands in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Standing {
    /// Who leads, if anybody is known to.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: u64,
    /// The last log index known to be on a quorum.
    pub committed: u64,
    /// The last log index applied here.
    pub applied: u64,
    /// The members and their peer addresses.
    pub members: BTreeMap<NodeId, String>,
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The disk.
    #[error("storage: {0}")]
    Storage(std::io::Error),
    /// The peer listener.
    #[error("cannot listen for peers on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// Consensus refused to start.
    #[error("consensus: {0}")]
    Consensus(String),
}

/// This node's handle on the cluster. Cloning is cheap. When the last clone is dropped the node stops as abruptly as
/// if its process had died; [`Cluster::shutdown`] is the polite way.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    incarnation: u64,
    started: Instant,
    founders: BTreeMap<NodeId, String>,
    member: Arc<Member>,
    peers: Arc<Peers>,
    lease: Lease,
    proposals: Semaphore,
    doors: Doors,
    writer: Writer,
    journal: Journal,
    stopping: AtomicBool,
    /// Another node said that this one was taken out.
    is_told_retired: AtomicBool,
    /// Answers peers.
    serving: AbortHandle,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Cluster {
    /// Opens the disk, joins or founds the cluster, and serves peers.
    /// Errors: the disk cannot be read or is another node's, the peer address is taken.
    pub async fn start(settings: Settings, disk: Arc<dyn Disk>, doors: Doors) -> Result<Cluster, StartError> {
        let Settings { node, cluster, peer_listen, members, tls, serving_lease, snapshot_every } = settings;
        let opened = storage::open(&disk, &cluster, node.0, number(&*doors.chance)).await;
        let opened = opened.map_err(StartError::Storage)?;
        let listener = doors.net.listen(&peer_listen).await;
        let listener = listener.map_err(|source| StartError::Listen { address: peer_listen, source })?;
        let incarnation = opened.incarnation;
        let journal = Journal::start(Arc::clone(&disk), incarnation).await;
        let (journal, journaling) = journal.map_err(StartError::Storage)?;
        let (writer, writing) = Writer::start(Arc::clone(&disk));
        let log = LogStore::new(&opened, Arc::clone(&disk), writer.clone());
        let acquaintances = Acquaintances::new(opened.disk, opened.peer_disks, writer.clone());
        let (machine, published) = Machine::new(opened.snapshot, disk).map_err(StartError::Storage)?;
        let peers = Arc::new(Peers::new(node, cluster.clone(), tls, doors.clone(), acquaintances));
        let started =
            consensus::start(node, &cluster, snapshot_every, (log, machine), Arc::clone(&peers), &*doors.chance);
        let raft = started.await.map_err(StartError::Consensus)?;
        let member = Arc::new(Member::new(raft, writer.clone(), published, Arc::clone(&doors.clock)));
        let serving = tokio::spawn(peers::serve(listener, Arc::clone(&peers), member.clone()));
        found(&member, &peers, node, &members).await.map_err(StartError::Consensus)?;
        let inner = Arc::new(Inner {
            node,
            incarnation,
            started: Instant::now(),
            founders: members,
            member,
            peers,
            lease: Lease::new(serving_lease),
            proposals: Semaphore::new(PROPOSALS_MAX),
            doors,
            writer,
            journal,
            stopping: AtomicBool::new(false),
            is_told_retired: AtomicBool::new(false),
            serving: serving.abort_handle(),
            tasks: Mutex::new(vec![writing, journaling, serving.abort_handle()]),
        });
        let renewing = tokio::spawn(lease::keep(Arc::downgrade(&inner))).abort_handle();
        let comparing = tokio::spawn(wall_clocks::compare(Arc::downgrade(&inner))).abort_handle();
        inner.tasks().extend([renewing, comparing]);
        Ok(Cluster { inner })
    }

    /// Proposes a change, wherever the leader is, and waits until this node has applied it. Retries under one
    /// request id until `DEADLINE` (10 s), so it takes effect at most once.
    ///
    /// A node that was taken out may only tell the ledger what it spent. It is answered at once: it may never apply that.
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        let inner = &*self.inner;
        if inner.is_retired() && !matches!(command, Command::Quota(_)) {
            return Err(ProposeError::Retired);
        }
        let _permit = inner.proposals.try_acquire().map_err(|_| ProposeError::Busy(PROPOSALS_MAX))?;
        let command = codec::to_payload(&command);
        if command.len() > COMMAND_MAX {
            return Err(ProposeError::TooLarge { bytes: command.len(), max: COMMAND_MAX });
        }
        let ask = Ask::Propose(RequestId(number(&*inner.doors.chance)), command.into());
        let deadline = Instant::now() + DEADLINE;
        let Done::Proposed(index, reply) = inner.ask_leader(ask, DEADLINE).await? else {
            return Err(ProposeError::Unknown(DEADLINE));
        };
        if !inner.is_retired() {
            inner.applied_by(index, deadline, DEADLINE).await?;
        }
        Ok(Applied { index, reply })
    }

    /// The newest view this node has.
    pub fn view(&self) -> Arc<View> {
        self.inner.member.published().view.borrow().clone()
    }

    /// Sees every newer view (intermediate ones may be skipped).
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.inner.member.published().view.clone()
    }

    /// Waits until this node's view contains everything that was acknowledged anywhere before the call (ReadIndex).
    pub async fn read_barrier(&self) -> Result<Arc<View>, ProposeError> {
        if self.inner.is_retired() {
            return Err(ProposeError::Retired);
        }
        let _permit = self.inner.proposals.try_acquire().map_err(|_| ProposeError::Busy(PROPOSALS_MAX))?;
        self.inner.barrier(DEADLINE).await?;
        Ok(self.view())
    }

    /// Waits until every member has applied `index`, or has not heard from a leader for so long that it admits nobody.
    /// `index` must have been acknowledged before the call.
    pub async fn fence(&self, index: u64) {
        let inner = &*self.inner;
        let lease_over = Instant::now() + inner.lease.length();
        let members = self.standing().members;
        join_all(members.into_iter().map(|(node, address)| inner.fence_one(node, address, index, lease_over))).await;
    }

    /// Waits until every member has applied `index`, but no longer than a moment: a courtesy to whoever uses on one node what
    /// another node has just handed out. Nothing is promised of members that are down or cut off.
    pub async fn spread(&self, index: u64) {
        // Not being heard of everywhere in time is no event: the caller goes on either way.
        let _ = tokio::time::timeout(SPREAD_WITHIN, self.fence(index)).await;
    }

    /// Whether this node has heard from a leader within the serving lease and was not taken out, and so may admit calls. Cheap.
    pub fn may_serve(&self) -> bool {
        let inner = &*self.inner;
        !inner.is_stopping() && inner.lease.holds(Instant::now()) && !inner.is_retired()
    }

    /// Whether another member has not answered this node for some seconds. Of a node that has just started nobody has heard.
    pub fn is_silent(&self, node: NodeId) -> bool {
        let walls = self.inner.member.walls();
        node != self.inner.node && walls.is_silent(node, self.inner.started, Instant::now())
    }

    /// Whether this node was taken out of the cluster, as far as it knows.
    pub fn is_retired(&self) -> bool {
        self.inner.is_retired()
    }

    /// Where this node stands.
    pub fn standing(&self) -> Standing {
        let mut standing = consensus::standing(self.inner.member.raft());
        standing.applied = *self.inner.member.published().applied.borrow();
        standing
    }

    /// How often this disk was started, from 1: the incarnation of quota batches.
    pub fn incarnation(&self) -> u64 {
        self.inner.incarnation
    }

    /// What this node notes of its calls.
    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.inner.node
    }

    /// Returns when this node can no longer take part (its disk failed, its log is damaged), with the reason. The process
    /// should end then: what it holds in memory is no longer what it promised.
    pub async fn failed(&self) -> String {
        consensus::stopped(self.inner.member.raft()).await
    }

    /// Hands leadership over if this node has it, stops, and syncs the disk.
    pub async fn shutdown(&self) {
        let inner = &*self.inner;
        if inner.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        consensus::hand_over(inner.member.raft(), inner.node, HANDOVER).await;
        // A peer's message to a core that has stopped would be an error worth nobody's attention.
        inner.serving.abort();
        if let Err(error) = inner.member.raft().shutdown().await {
            tracing::warn!(%error, "the consensus core did not stop cleanly");
        }
        if let Err(error) = inner.writer.commit(Vec::new()).await {
            tracing::warn!(%error, "the disk was not synced at shutdown");
        }
        inner.stop();
    }
}

impl Inner {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Read from the newest view, so that nobody who waited for the entry finds the old answer.
    fn is_retired(&self) -> bool {
        let is_in_view = self.member.published().view.borrow().retired.contains(&self.node);
        is_in_view || self.is_told_retired.load(Ordering::Acquire)
    }

    fn leader(&self) -> Option<NodeId> {
        consensus::leader(self.member.raft())
    }

    /// Where `node` listens: as the cluster agreed, or as this node was told at first.
    fn address(&self, node: NodeId) -> Option<String> {
        consensus::address(self.member.raft(), node).or_else(|| self.founders.get(&node).cloned())
    }

    /// Waits until `index` is applied here, until `deadline`, which is `within` after the caller began.
    async fn applied_by(&self, index: u64, deadline: Instant, within: Duration) -> Result<(), ProposeError> {
        match timeout_at(deadline, self.member.wait_applied(index)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ProposeError::Stopping),
            Err(_) => Err(ProposeError::Unknown(within)),
        }
    }

    /// Waits until `node` has applied `index`, or until `lease_over`, when it stopped admitting if it has not.
    async fn fence_one(&self, node: NodeId, address: String, index: u64, lease_over: Instant) {
        let applied = async {
            if node == self.node {
                return drop(self.member.wait_applied(index).await);
            }
            loop {
                let asked = self.peers.call(node, &address, Request::WaitApplied(index), FENCE_ATTEMPT).await;
                if matches!(asked, Ok(Response::Applied)) {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout_at(lease_over, applied).await.is_err() {
            tracing::warn!(%node, index, "did not confirm a change: waited until its serving lease was over");
        }
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Vec<AbortHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.tasks().drain(..).for_each(|task| task.abort());
        self.peers.close();
    }
}

/// Founds the cluster if this node is one of its first members and nobody did so yet.
async fn found(member: &Member, peers: &Peers, node: NodeId, members: &BTreeMap<NodeId, String>) -> Result<(), String> {
    let joins_later = !members.contains_key(&node);
    if joins_later || consensus::founded(member.raft()).await? || part_of_a_cluster(peers, node, members).await {
        return Ok(());
    }
    if consensus::found(member.raft(), members).await? {
        tracing::info!(members = members.len(), "founded a new cluster");
    }
    Ok(())
}

/// Whether a listed member says that the cluster exists: then this node waits for its leader, instead of writing
/// a founding entry that may list other members than the cluster has by now.
async fn part_of_a_cluster(peers: &Peers, node: NodeId, members: &BTreeMap<NodeId, String>) -> bool {
    let others = members.iter().filter(|(member, _)| **member != node);
    let answers = others.map(|(member, address)| peers.call(*member, address, Request::Founded, FOUNDED_WITHIN));
    join_all(answers).await.contains(&Ok(Response::Founded(true)))
}

/// A random number that names something.
fn number(chance: &dyn Chance) -> u128 {
    let mut bytes = [0; 16];
    chance.fill(&mut bytes);
    u128::from_le_bytes(bytes)
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}
