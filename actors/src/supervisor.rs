//! Supervision: an actor that fails is started again with growing pauses; one that keeps failing ends the node.
//!
//! What matters outlives an actor: local allowances, tables, replicas and batches in flight are shared values that a restarted
//! actor finds as they were.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use raft::doors::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, warn};

use crate::auth::LastUsedActor;
use crate::epp::PoolsActor;
use crate::quota::QuotaActor;
use crate::routing::RoutingActor;
use crate::{Actors, Auth, Deps, Pools, Quota, Routing, StartError};

/// How long draining may take: a leader election and some batches.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Starts every actor, each with its first snapshot published.
pub(crate) async fn start(deps: Deps) -> Result<Actors, StartError> {
    let auth = Auth::new(deps.cluster.clone(), deps.doors.clone());
    let routing = Routing::new(deps.cluster.clone());
    let quota = Quota::new(&deps);
    let pools = Pools::new(&deps);
    let children = vec![
        child("auth", || LastUsedActor, auth.clone()),
        child("routing", || RoutingActor, routing.clone()),
        child("quota", || QuotaActor, quota.refill()),
        child("pools", || PoolsActor, pools.clone()),
    ];
    let (failed, has_failed) = watch::channel(None);
    let plan = Plan { children, failed };
    let (actor, _ended) = Supervisor::spawn(None, Supervisor, plan).await.map_err(start_error)?;
    let supervisor = Handle { actor, failed: has_failed, auth: auth.clone(), quota: quota.clone() };
    Ok(Actors { auth, routing, quota, pools, supervisor })
}

fn start_error(error: SpawnErr) -> StartError {
    match error {
        SpawnErr::StartupFailed(cause) => match cause.downcast::<StartError>() {
            Ok(error) => *error,
            Err(cause) => StartError { actor: "supervisor", reason: cause.to_string() },
        },
        other @ (SpawnErr::ActorAlreadyStarted | SpawnErr::ActorAlreadyRegistered(_)) => {
            StartError { actor: "supervisor", reason: other.to_string() }
        }
    }
}

/// Handle of the supervisor.
#[derive(Clone)]
pub(crate) struct Handle {
    actor: ActorRef<Message>,
    failed: watch::Receiver<Option<String>>,
    auth: Auth,
    quota: Quota,
}

impl Handle {
    /// The supervisor itself.
    pub(crate) fn root(&self) -> ActorCell {
        self.actor.get_cell()
    }

    /// Resolves when supervision gives up, with the reason.
    pub(crate) async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        let reason = failed.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // Stopped in good order: that is not a failure, however long one waits.
            None => std::future::pending().await,
        }
    }

    /// Gives back what the node holds, and stops every actor.
    pub(crate) async fn drain(&self) {
        let given_back = async { tokio::join!(self.quota.drain(), self.auth.last_used().report()) };
        if tokio::time::timeout(DRAIN_MAX, given_back).await.is_err() {
            warn!(waited = ?DRAIN_MAX, "the ledger could not be told everything: what this node holds comes free when its windows end");
        }
        if let Err(error) = self.actor.stop_and_wait(None, Some(DRAIN_MAX)).await {
            warn!(%error, "the actors did not stop in time");
        }
    }
}

// === Restarts: how often is too often ===

/// Restarts of one child that come too quickly one after the other.
#[derive(Default)]
pub(crate) struct Restarts {
    count: u32,
    last: Option<Instant>,
}

/// The first pause; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// After the last of these (13 s in all) the parent gives up.
const RESTARTS_MAX: u32 = 8;
/// A child that has worked for so long starts with a clean record.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

impl Restarts {
    /// How long to wait before the next restart; `None`: give up.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Duration> {
        if self.last.is_some_and(|last| now - last > FORGIVEN_AFTER) {
            self.count = 0;
        }
        self.last = Some(now);
        self.count += 1;
        (self.count <= RESTARTS_MAX).then(|| PAUSE_MIN * 2_u32.pow(self.count - 1))
    }
}

/// A failure that a restart cannot mend: the node must exit.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Fatal(pub(crate) String);

// === The actor ===

struct Supervisor;

struct Plan {
    children: Vec<Child>,
    failed: watch::Sender<Option<String>>,
}

/// Something to keep running.
struct Child {
    name: &'static str,
    spawn: Spawn,
}

type Spawn = Arc<dyn Fn(ActorCell) -> BoxFuture<'static, Result<ActorCell, SpawnErr>> + Send + Sync>;

fn child<A: Actor>(name: &'static str, actor: fn() -> A, arguments: A::Arguments) -> Child
where
    A::Arguments: Clone + Sync,
{
    let spawn = move |supervisor: ActorCell| {
        let arguments = arguments.clone();
        let spawned = async move {
            let (actor, _ended) = A::spawn_linked(None, actor(), arguments, supervisor).await?;
            Ok(actor.get_cell())
        };
        Box::pin(spawned) as BoxFuture<'static, _>
    };
    Child { name, spawn: Arc::new(spawn) }
}

/// Bounded: one restart per failure of a child.
pub(crate) enum Message {
    Restart(usize),
}

struct Supervised {
    child: Child,
    cell: ActorCell,
    restarts: Restarts,
}

struct Running {
    children: Vec<Supervised>,
    failed: watch::Sender<Option<String>>,
}

impl Actor for Supervisor {
    type Msg = Message;
    type State = Running;
    type Arguments = Plan;

    async fn pre_start(&self, myself: ActorRef<Message>, plan: Plan) -> Result<Running, ActorProcessingErr> {
        let mut children = Vec::new();
        for child in plan.children {
            let spawned = (child.spawn)(myself.get_cell()).await;
            let cell = spawned.map_err(|error| StartError { actor: child.name, reason: error.to_string() })?;
            children.push(Supervised { child, cell, restarts: Restarts::default() });
        }
        Ok(Running { children, failed: plan.failed })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        let Message::Restart(at) = message;
        let Some(supervised) = running.children.get_mut(at) else { return Ok(()) };
        match (supervised.child.spawn)(myself.get_cell()).await {
            Ok(cell) => supervised.cell = cell,
            Err(error) => running.child_failed(&myself, at, &error.into()),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Message>,
        event: SupervisionEvent,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, error): (_, ActorProcessingErr) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, error),
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                (cell, reason.unwrap_or_else(|| "it ended".to_owned()).into())
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        if let Some(at) = running.children.iter().position(|child| child.cell.get_id() == cell.get_id()) {
            running.child_failed(&myself, at, &error);
        }
        Ok(())
    }
}

impl Running {
    fn child_failed(&mut self, myself: &ActorRef<Message>, at: usize, error: &ActorProcessingErr) {
        let supervised = &mut self.children[at];
        let actor = supervised.child.name;
        let is_fatal = error.downcast_ref::<Fatal>().is_some();
        match supervised.restarts.next(Instant::now()).filter(|_| !is_fatal) {
            Some(pause) => {
                warn!(actor, %error, ?pause, "an actor failed and is started again");
                myself.send_after(pause, move || Message::Restart(at));
            }
            None => {
                error!(actor, %error, "an actor cannot go on: the node must exit");
                self.failed.send_replace(Some(format!("actor `{actor}`: {error}")));
            }
        }
    }
}

#[cfg(test)]
mod tests;
