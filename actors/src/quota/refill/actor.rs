//! The quota actor: keeps the local allowance filled, and is the only one that talks to the ledger.
//!
//! At most one batch is in flight. A batch whose fate is unknown is sent again as it is until it is answered: the ledger
//! counts each number once. If the ledger says that a later incarnation has taken over, this node must not go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use raft::{Applied, ProposeError};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::Refill;
use super::ledger_snapshot::LedgerSnapshot;
use super::outbox::Outbox;
use super::reading;
use super::round_robin::RoundRobin;
use super::set_state::SetState;
use super::waiting::Demand;
use crate::mailbox::Seen;
use crate::quota::allowance::{Allowance, LimitSubject, MeterSet, Notice, QuotaRefusal, Waiter};
use crate::routing::{AccessKey, Name};
use crate::supervisor::Fatal;

/// Between two looks at every set.
pub(super) const TICK: Duration = Duration::from_millis(250);

pub(crate) struct QuotaActor;

/// Bounded: what calls send, one batch, one View, some timers.
pub(crate) enum QuotaMessage {
    /// From a call, or from the journal.
    Notice(Notice),
    /// The batch in flight has an answer.
    Answered(Result<Applied, ProposeError>),
    /// There is a newer View.
    View(Seen),
    /// The time that was asked for has come.
    Wake(Instant),
}

impl From<Notice> for QuotaMessage {
    fn from(notice: Notice) -> QuotaMessage {
        QuotaMessage::Notice(notice)
    }
}

pub(crate) struct Running {
    pub(super) allowance: Arc<Allowance>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) myself: ActorRef<QuotaMessage>,
    pub(super) snapshot: LedgerSnapshot,
    /// By id.
    pub(super) sets: BTreeMap<u64, SetState>,
    /// Sets with calls that wait.
    pub(super) waiting: BTreeSet<u64>,
    /// Sets with something to tell.
    pub(super) pending: RoundRobin,
    /// Sets of `waiting` that want an acquire.
    pub(super) urgent: BTreeSet<u64>,
    /// The version of keys and objects that all limits follow.
    pub(super) access_version: u64,
    /// When the last batch was sent; `None` if there was more to tell than it took.
    pub(super) proposed_at: Option<Instant>,
    pub(super) ticked_at: Instant,
    /// The one timer that counts.
    pub(super) wake_at: Option<(Instant, AbortHandle)>,
    /// Nothing is acquired any more: the node is leaving.
    pub(super) is_leaving: bool,
    /// Whom to tell when everything has gone back.
    pub(super) drains: Vec<oneshot::Sender<()>>,
    /// The batch in flight and the follower of Views. Ends with the actor.
    pub(super) tasks: JoinSet<()>,
}

impl Actor for QuotaActor {
    type Msg = QuotaMessage;
    type State = Running;
    type Arguments = Refill;

    async fn pre_start(&self, myself: ActorRef<QuotaMessage>, refill: Refill) -> Result<Running, ActorProcessingErr> {
        let mut running = Running::new(refill, myself.clone());
        running.adopt_all();
        running.allowance.notices.opens(myself);
        running.resume();
        running.proceed();
        Ok(running)
    }

    async fn handle(
        &self,
        _myself: ActorRef<QuotaMessage>,
        message: QuotaMessage,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        running.snapshot = LedgerSnapshot::now(&running.allowance.ledger, &running.outbox);
        match message {
            QuotaMessage::Notice(Notice::Wait(waiter)) => running.wait(*waiter),
            QuotaMessage::Notice(Notice::Marked(set)) => running.marked(set),
            QuotaMessage::Notice(Notice::JournalFailed(error)) => return Err(Fatal(error.to_string()).into()),
            QuotaMessage::Notice(Notice::Drain(done)) => running.drain(done),
            QuotaMessage::Answered(answer) => running.answered(answer)?,
            QuotaMessage::View(_seen) => running.view_changed(),
            QuotaMessage::Wake(asked) => running.wake(asked),
        }
        running.proceed();
        Ok(())
    }
}

impl Running {
    fn new(refill: Refill, myself: ActorRef<QuotaMessage>) -> Running {
        let Refill { allowance, outbox } = refill;
        let snapshot = LedgerSnapshot::now(&allowance.ledger, &outbox);
        let mut tasks = JoinSet::new();
        tasks.spawn(allowance.ledger.follow(myself.clone(), QuotaMessage::View));
        Running {
            access_version: snapshot.view.access_version,
            ticked_at: snapshot.instant,
            snapshot,
            allowance,
            outbox,
            myself,
            sets: BTreeMap::new(),
            waiting: BTreeSet::new(),
            pending: RoundRobin::default(),
            urgent: BTreeSet::new(),
            proposed_at: None,
            wake_at: None,
            is_leaving: false,
            drains: Vec::new(),
            tasks,
        }
    }

    /// After a restart: every set is there, and none has told what happened to it meanwhile.
    fn adopt_all(&mut self) {
        for set in self.allowance.sets() {
            self.pending.insert(set.id);
            self.state_of(&set).follow_limits_of_view();
        }
    }

    /// After a restart: the batch that was in flight still is.
    fn resume(&mut self) {
        if let Some(in_flight) = self.outbox.in_flight() {
            for sent in in_flight.sent.iter().filter(|sent| sent.acquire.is_some()) {
                self.state_of(&sent.set).state.is_acquiring = true;
            }
            self.propose(&in_flight, Duration::ZERO);
        }
    }

    pub(super) fn state_of(&mut self, set: &Arc<MeterSet>) -> SetContext<'_> {
        let state = self.sets.entry(set.id).or_insert_with(|| SetState::new(set.clone(), self.snapshot.instant));
        SetContext { state, snapshot: &self.snapshot }
    }

    // === Messages ===

    fn wait(&mut self, mut waiter: Waiter) {
        if self.is_leaving {
            return waiter.answer(Err(QuotaRefusal::Unavailable));
        }
        // A set that was forgotten while the call was on its way has a successor, or gets one.
        waiter.set = self.allowance.obtain(&waiter.permit, waiter.set.limit_subject.clone());
        let set = waiter.set.clone();
        let limits_differ = !set.slots.load().stand_for(&waiter.permit.subscription().limits);
        let mut context = self.state_of(&set);
        if limits_differ {
            context.follow_limits_of_view();
        }
        context.follow_windows_of_view();
        context.state.waiters.push_back(waiter);
        self.serve(set.id);
    }

    fn marked(&mut self, set: Arc<MeterSet>) {
        self.state_of(&set);
        self.pending.insert(set.id);
        // What came back may serve those who wait here.
        if self.waiting.contains(&set.id) {
            self.serve(set.id);
        }
    }

    fn view_changed(&mut self) {
        let version = self.snapshot.view.access_version;
        if self.access_version != version {
            self.access_version = version;
            for state in self.sets.values_mut() {
                let had_limits = state.slot_states.len();
                state.follow_limits(&self.snapshot);
                if had_limits != state.slot_states.len() || state.set.closed().iter().any(|(_, meter)| meter.has_news())
                {
                    self.pending.insert(state.set.id);
                }
            }
            self.allowance.prune(|key| reading::limits_in(&self.snapshot.view, key).is_none());
        }
        for id in self.waiting.clone() {
            self.serve(id);
        }
        self.heed_recalls();
    }

    /// Meters that other nodes want tokens of: what is not in use here goes back at once.
    fn heed_recalls(&mut self) {
        for id in &self.snapshot.view.recalled {
            let key = AccessKey {
                subscription: Name::new(&id.subscription.0, &id.subscription.1),
                model: Name::new(&id.model.0, &id.model.1),
            };
            let limit_subject = LimitSubject { scope: id.limit.scope, subject: id.subject.clone() };
            let Some(set) = self.allowance.find(&key, &limit_subject) else { continue };
            let slots = set.slots.load();
            let holds_some = slots.slots.iter().any(|slot| *slot.rule.id == *id && slot.meter.free() > 0);
            if holds_some && self.sets.contains_key(&set.id) {
                self.pending.insert(set.id);
            }
        }
    }

    fn wake(&mut self, asked: Instant) {
        // One that was replaced by an earlier one while it was on its way starts nothing, or timers would multiply.
        if self.wake_at.take_if(|(deadline, _)| *deadline == asked).is_none() {
            return;
        }
        for id in self.waiting.clone() {
            self.serve(id);
        }
        if self.snapshot.instant - self.ticked_at >= TICK {
            self.ticked_at = self.snapshot.instant;
            self.tick();
        }
    }

    fn tick(&mut self) {
        let mut forgotten = Vec::new();
        for (id, state) in &mut self.sets {
            if state.tick(self.allowance.settings.idle_return, &self.snapshot) {
                self.pending.insert(*id);
            }
            if state.is_forgettable(self.snapshot.instant) && !self.pending.contains(*id) {
                forgotten.push(*id);
            }
        }
        for state in forgotten.iter().filter_map(|id| self.sets.remove(id)) {
            self.allowance.forget(&state.set);
        }
    }

    fn drain(&mut self, done: oneshot::Sender<()>) {
        self.is_leaving = true;
        self.drains.push(done);
        self.refuse_all();
        self.pending.extend(self.sets.keys().copied());
    }

    /// Nothing will be granted any more.
    pub(super) fn refuse_all(&mut self) {
        for state in self.sets.values_mut() {
            for waiter in state.waiters.drain(..) {
                waiter.answer(Err(QuotaRefusal::Unavailable));
            }
        }
        self.waiting.clear();
        self.urgent.clear();
    }

    // === Serving and proposing ===

    /// Answers those of the set's calls that can be answered or have waited long enough, and notes what the rest wants.
    pub(super) fn serve(&mut self, id: u64) {
        let Some(state) = self.sets.get_mut(&id) else { return };
        state.serve(&self.allowance, &self.snapshot);
        self.waiting.remove(&id);
        self.urgent.remove(&id);
        let Some(deadline) = state.deadline(&self.allowance.settings, &self.snapshot) else {
            // Nobody waits any more: the ledger need not ask others for us.
            if state.slot_states.iter().any(|slot_state| slot_state.is_to_give_up(self.snapshot.instant)) {
                self.pending.insert(id);
            }
            return;
        };
        self.waiting.insert(id);
        if state.demand(&self.snapshot) != Demand::Nothing {
            self.urgent.insert(id);
        }
        self.wake_by(deadline);
    }

    pub(super) fn wake_by(&mut self, deadline: Instant) {
        if let Some((earlier, timer)) = &self.wake_at {
            if *earlier <= deadline {
                return;
            }
            timer.abort();
        }
        let pause = deadline.saturating_duration_since(self.snapshot.instant);
        let timer = self.myself.send_after(pause, move || QuotaMessage::Wake(deadline));
        self.wake_at = Some((deadline, timer.abort_handle()));
    }
}

/// The state of a set, and what was read of the ledger for this message.
pub(super) struct SetContext<'a> {
    pub(super) state: &'a mut SetState,
    pub(super) snapshot: &'a LedgerSnapshot,
}

impl SetContext<'_> {
    fn follow_limits_of_view(&mut self) {
        self.state.follow_limits(self.snapshot);
    }

    fn follow_windows_of_view(&mut self) {
        self.state.follow_windows(self.snapshot);
    }
}
