//! The quota actor: keeps the book filled, and is the only one that talks to the ledger.
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
use super::moment::Moment;
use super::outbox::Outbox;
use super::reading;
use super::round_robin::Turns;
use super::set_state::Tended;
use super::waiting::Wish;
use crate::mailbox::Seen;
use crate::quota::allowance::{Allowance, MeterSet, Notice, Party, QuotaRefusal, Waiter};
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
    pub(super) moment: Moment,
    /// By id.
    pub(super) sets: BTreeMap<u64, Tended>,
    /// Sets with calls that wait.
    pub(super) waiting: BTreeSet<u64>,
    /// Sets with something to tell.
    pub(super) pending: Turns,
    /// Sets of `waiting` that want a draw.
    pub(super) urgent: BTreeSet<u64>,
    /// The version of keys and objects that all limits follow.
    pub(super) access_version: u64,
    /// When the last batch was sent; `None` if there was more to tell than it took.
    pub(super) proposed_at: Option<Instant>,
    pub(super) ticked_at: Instant,
    /// The one timer that counts.
    pub(super) wake_at: Option<(Instant, AbortHandle)>,
    /// Nothing is drawn any more: the node is leaving.
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
        running.moment = Moment::now(&running.allowance.ledger, &running.outbox);
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
        let moment = Moment::now(&allowance.ledger, &outbox);
        let mut tasks = JoinSet::new();
        tasks.spawn(allowance.ledger.follow(myself.clone(), QuotaMessage::View));
        Running {
            access_version: moment.view.access_version,
            ticked_at: moment.instant,
            moment,
            allowance,
            outbox,
            myself,
            sets: BTreeMap::new(),
            waiting: BTreeSet::new(),
            pending: Turns::default(),
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
            self.tended(&set).follow_limits_of_view();
        }
    }

    /// After a restart: the batch that was in flight still is.
    fn resume(&mut self) {
        if let Some(in_flight) = self.outbox.in_flight() {
            for sent in in_flight.sent.iter().filter(|sent| sent.draw.is_some()) {
                self.tended(&sent.set).tended.is_drawing = true;
            }
            self.propose(&in_flight, Duration::ZERO);
        }
    }

    pub(super) fn tended(&mut self, set: &Arc<MeterSet>) -> Care<'_> {
        let tended = self.sets.entry(set.id).or_insert_with(|| Tended::new(set.clone(), self.moment.instant));
        Care { tended, moment: &self.moment }
    }

    // === Messages ===

    fn wait(&mut self, mut waiter: Waiter) {
        if self.is_leaving {
            return waiter.answer(Err(QuotaRefusal::Unavailable));
        }
        // A set that was forgotten while the call was on its way has a successor, or gets one.
        waiter.set = self.allowance.obtain(&waiter.permit, waiter.set.party.clone());
        let set = waiter.set.clone();
        let limits_differ = !set.slots.load().stand_for(&waiter.permit.subscription().limits);
        let mut care = self.tended(&set);
        if limits_differ {
            care.follow_limits_of_view();
        }
        care.follow_windows_of_view();
        care.tended.waiters.push_back(waiter);
        self.serve(set.id);
    }

    fn marked(&mut self, set: Arc<MeterSet>) {
        self.tended(&set);
        self.pending.insert(set.id);
        // What came back may serve those who wait here.
        if self.waiting.contains(&set.id) {
            self.serve(set.id);
        }
    }

    fn view_changed(&mut self) {
        let version = self.moment.view.access_version;
        if self.access_version != version {
            self.access_version = version;
            for tended in self.sets.values_mut() {
                let had_limits = tended.notes.len();
                tended.follow_limits(&self.moment);
                if had_limits != tended.notes.len() || tended.set.retired().iter().any(|(_, meter)| meter.has_news()) {
                    self.pending.insert(tended.set.id);
                }
            }
            self.allowance.prune(|key| reading::limits_in(&self.moment.view, key).is_none());
        }
        for id in self.waiting.clone() {
            self.serve(id);
        }
        self.heed_recalls();
    }

    /// Meters that other nodes want tokens of: what is not in use here goes back at once.
    fn heed_recalls(&mut self) {
        for id in &self.moment.view.recalled {
            let key = AccessKey {
                subscription: Name::new(&id.subscription.0, &id.subscription.1),
                model: Name::new(&id.model.0, &id.model.1),
            };
            let party = Party { scope: id.limit.scope, subject: id.subject.clone() };
            let Some(set) = self.allowance.find(&key, &party) else { continue };
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
        if self.moment.instant - self.ticked_at >= TICK {
            self.ticked_at = self.moment.instant;
            self.tick();
        }
    }

    fn tick(&mut self) {
        let mut forgotten = Vec::new();
        for (id, tended) in &mut self.sets {
            if tended.tick(self.allowance.settings.idle_return, &self.moment) {
                self.pending.insert(*id);
            }
            if tended.is_forgettable(self.moment.instant) && !self.pending.contains(*id) {
                forgotten.push(*id);
            }
        }
        for tended in forgotten.iter().filter_map(|id| self.sets.remove(id)) {
            self.allowance.forget(&tended.set);
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
        for tended in self.sets.values_mut() {
            for waiter in tended.waiters.drain(..) {
                waiter.answer(Err(QuotaRefusal::Unavailable));
            }
        }
        self.waiting.clear();
        self.urgent.clear();
    }

    // === Serving and proposing ===

    /// Answers those of the set's calls that can be answered or have waited long enough, and notes what the rest wants.
    pub(super) fn serve(&mut self, id: u64) {
        let Some(tended) = self.sets.get_mut(&id) else { return };
        tended.serve(&self.allowance, &self.moment);
        self.waiting.remove(&id);
        self.urgent.remove(&id);
        let Some(deadline) = tended.deadline(&self.allowance.settings, &self.moment) else {
            // Nobody waits any more: the ledger need not ask others for us.
            if tended.notes.iter().any(|note| note.is_wanting) {
                self.pending.insert(id);
            }
            return;
        };
        self.waiting.insert(id);
        if tended.wish(&self.moment) != Wish::Nothing {
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
        let pause = deadline.saturating_duration_since(self.moment.instant);
        let timer = self.myself.send_after(pause, move || QuotaMessage::Wake(deadline));
        self.wake_at = Some((deadline, timer.abort_handle()));
    }
}

/// A set, and what is known at the moment.
pub(super) struct Care<'a> {
    pub(super) tended: &'a mut Tended,
    pub(super) moment: &'a Moment,
}

impl Care<'_> {
    fn follow_limits_of_view(&mut self) {
        self.tended.follow_limits(self.moment);
    }

    fn follow_windows_of_view(&mut self) {
        self.tended.follow_windows(self.moment);
    }
}
