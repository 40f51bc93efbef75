//! The ledger as quota reaches it: the source of grants, and the journal of what this node owes it.
//!
//! No other file of quota knows the cluster.

use std::future::Future;
use std::sync::Arc;

use ractor::{ActorRef, Message};
use raft::command::QuotaBatch;
use raft::doors::Clock;
use raft::journal::Journal;
use raft::{Applied, Cluster, Command, NodeId, ProposeError, Timestamp, View};

use crate::Deps;
use crate::mailbox::{Seen, follow_views};

/// This node's access to the ledger. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Ledger {
    cluster: Cluster,
    clock: Arc<dyn Clock>,
}

impl Ledger {
    pub(super) fn new(deps: &Deps) -> Ledger {
        Ledger { cluster: deps.cluster.clone(), clock: deps.doors.clock.clone() }
    }

    /// The newest state that this node has applied.
    pub(super) fn view(&self) -> Arc<View> {
        self.cluster.view()
    }

    /// Sends `message` to `actor` whenever there is a newer View, until the actor or the cluster ends.
    pub(super) fn follow<M: Message>(
        &self,
        actor: ActorRef<M>,
        message: fn(Seen) -> M,
    ) -> impl Future<Output = ()> + use<M> {
        follow_views(self.cluster.clone(), actor, message)
    }

    /// The later of the state clock and this node's wall clock.
    pub(super) fn now(&self) -> Timestamp {
        self.now_in(&self.view())
    }

    /// The later of the state clock in `view` and this node's wall clock: the state clock stands still while nothing is written.
    /// It decides when an attempt is worthwhile and what callers see. Only the ledger decides that a window is over.
    pub(super) fn now_in(&self, view: &View) -> Timestamp {
        view.time.max(self.clock.wall())
    }

    pub(super) fn node(&self) -> NodeId {
        self.cluster.node()
    }

    /// Whether another node has not answered for some seconds.
    pub(super) fn is_silent(&self, node: NodeId) -> bool {
        self.cluster.is_silent(node)
    }

    /// How often this node's disk was started, from 1. Each batch carries it.
    pub(super) fn incarnation(&self) -> u64 {
        self.cluster.incarnation()
    }

    /// Sends a batch, and waits until this node has applied it. The ledger counts each (incarnation, sequence) once.
    pub(super) async fn send(&self, batch: QuotaBatch) -> Result<Applied, ProposeError> {
        self.cluster.propose(Command::Quota(batch)).await
    }

    /// What this node notes of its calls before the ledger has them.
    pub(super) fn journal(&self) -> &Journal {
        self.cluster.journal()
    }
}
