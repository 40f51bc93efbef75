//! When credentials were last used: noted by requests in passing, told to the cluster by an actor, at most once a minute and credential.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use raft::{Command, Timestamp, View};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::debug;
use uuid::Uuid;

use super::{Auth, Credential};
use crate::mailbox::{Mailbox, Seen, follow_views};

/// A credential's last use is told again after so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Between two reports to the cluster.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Credentials noted between two reports: beyond it, notes are lost, and only a display is a minute late.
const NOTED_MAX: usize = 10_000;

/// Credentials used since the last report whose use the cluster does not know yet.
#[derive(Clone)]
pub(crate) struct LastUsed {
    noted: Arc<Mutex<BTreeSet<Noted>>>,
    pub(crate) mailbox: Mailbox<LastUsedMessage>,
}

/// A key by its id, a token by its hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Noted {
    Key(Uuid),
    Token([u8; 32]),
}

impl Default for LastUsed {
    fn default() -> LastUsed {
        LastUsed { noted: Arc::default(), mailbox: Mailbox::new() }
    }
}

impl LastUsed {
    /// Notes that `credential` is used. Never waits: if somebody else is noting, that call or a later one with it will do.
    pub(super) fn note(&self, credential: &Credential, now: Timestamp) {
        let (noting, last_used) = match credential {
            Credential::Key(key) => (Noted::Key(key.id), key.last_used),
            Credential::Token(token) => (Noted::Token(token.hash), token.last_used),
        };
        if is_known(last_used, now) {
            return;
        }
        if let Ok(mut noted) = self.noted.try_lock()
            && noted.len() < NOTED_MAX
        {
            noted.insert(noting);
        }
    }

    /// Takes what is worth telling.
    fn take(&self, view: &View, now: Timestamp) -> Vec<Command> {
        let noted = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut keys, mut tokens) = (Vec::new(), Vec::new());
        for noted in noted {
            match noted {
                Noted::Key(id) if view.keys.get(&id).is_some_and(|key| !is_known(key.last_used, now)) => {
                    keys.push((id, now));
                }
                Noted::Token(hash) if view.tokens.get(&hash).is_some_and(|token| !is_known(token.last_used, now)) => {
                    tokens.push((hash, now));
                }
                Noted::Key(_) | Noted::Token(_) => {}
            }
        }
        let keys = (!keys.is_empty()).then_some(Command::TouchKeys(keys));
        let tokens = (!tokens.is_empty()).then_some(Command::TouchTokens(tokens));
        keys.into_iter().chain(tokens).collect()
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

fn is_known(last_used: Option<Timestamp>, now: Timestamp) -> bool {
    last_used.is_some_and(|used| now.since(used) < FORGOTTEN_AFTER)
}

/// Tells the cluster when credentials were last used, and keeps the tables of [`Auth`] fresh.
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
        for command in self.auth.last_used().take(&view, self.auth.now(&view)) {
            let what = command.name();
            if let Err(error) = self.auth.cluster().propose(command).await {
                debug!(%error, what, "when credentials were last used is not recorded; later uses will be");
            }
        }
    }
}
