//! When keys were last used: noted by requests in passing, told to the cluster by an actor, at most once a minute and key.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use raft::state::ApiKey;
use raft::{Command, Timestamp, View};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::debug;
use uuid::Uuid;

use super::Auth;
use crate::mailbox::{Mailbox, Seen, follow_views};

/// A key's last use is told again after so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Between two reports to the cluster.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Keys noted between two reports: beyond it, notes are lost, and only a display is a minute late.
const NOTED_MAX: usize = 10_000;

/// Keys used since the last report whose use the cluster does not know yet.
#[derive(Clone)]
pub(crate) struct LastUsed {
    noted: Arc<Mutex<BTreeSet<Uuid>>>,
    pub(crate) mailbox: Mailbox<LastUsedMessage>,
}

impl Default for LastUsed {
    fn default() -> LastUsed {
        LastUsed { noted: Arc::default(), mailbox: Mailbox::new() }
    }
}

impl LastUsed {
    /// Notes that `key` is used. Never waits: if somebody else is noting, that call or a later one of this key will do.
    pub(super) fn note(&self, key: &ApiKey, now: Timestamp) {
        if is_known(key, now) {
            return;
        }
        if let Ok(mut noted) = self.noted.try_lock()
            && noted.len() < NOTED_MAX
        {
            noted.insert(key.id);
        }
    }

    /// Takes what is worth telling.
    fn take(&self, view: &View, now: Timestamp) -> Vec<(Uuid, Timestamp)> {
        let noted = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
        let is_news = |id: &Uuid| view.keys.get(id).is_some_and(|key| !is_known(key, now));
        noted.into_iter().filter(is_news).map(|id| (id, now)).collect()
    }

    /// Tells the cluster what is noted, now.
    pub(crate) async fn report(&self) {
        let (done, answered) = oneshot::channel();
        if self.mailbox.send(LastUsedMessage::Report(Some(done))) {
            // Dropped unanswered if the actor dies: then there is nothing to wait for.
            let _ = answered.await;
        }
    }
}

fn is_known(key: &ApiKey, now: Timestamp) -> bool {
    key.last_used.is_some_and(|used| now.since(used) < FORGOTTEN_AFTER)
}

/// Tells the cluster when keys were last used, and keeps the tables of [`Auth`] fresh.
pub(crate) struct LastUsedActor;

/// Bounded: one timer, one View at a time, one report asked for at shutdown.
pub(crate) enum LastUsedMessage {
    /// Tell the cluster; and say when that is done.
    Report(Option<oneshot::Sender<()>>),
    /// There is a newer View.
    View(Seen),
}

pub(crate) struct Running {
    auth: Auth,
    /// Ends with the actor.
    _following: JoinSet<()>,
}

impl Actor for LastUsedActor {
    type Msg = LastUsedMessage;
    type State = Running;
    type Arguments = Auth;

    async fn pre_start(&self, myself: ActorRef<LastUsedMessage>, auth: Auth) -> Result<Running, ActorProcessingErr> {
        auth.refresh();
        auth.last_used().mailbox.opens(myself.clone());
        let mut following = JoinSet::new();
        following.spawn(follow_views(auth.cluster().clone(), myself.clone(), LastUsedMessage::View));
        myself.send_after(REPORT_INTERVAL, || LastUsedMessage::Report(None));
        Ok(Running { auth, _following: following })
    }

    async fn handle(
        &self,
        myself: ActorRef<LastUsedMessage>,
        message: LastUsedMessage,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            LastUsedMessage::View(_seen) => running.auth.refresh(),
            LastUsedMessage::Report(done) => {
                running.report().await;
                if done.is_none() {
                    myself.send_after(REPORT_INTERVAL, || LastUsedMessage::Report(None));
                }
            }
        }
        Ok(())
    }
}

impl Running {
    async fn report(&self) {
        let view = self.auth.cluster().view();
        let used = self.auth.last_used().take(&view, self.auth.now(&view));
        if used.is_empty() {
            return;
        }
        let keys = used.len();
        if let Err(error) = self.auth.cluster().propose(Command::TouchKeys(used)).await {
            debug!(%error, keys, "when keys were last used is not recorded; later uses will be");
        }
    }
}
