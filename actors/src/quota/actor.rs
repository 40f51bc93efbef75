//! The quota actor: keeps the book filled, and is the only one that talks to the ledger.
//!
//! At most one batch is in flight. A batch whose fate is unknown is sent again as it is until it is answered: the ledger
//! counts each number once. If the ledger says that a later incarnation has taken over, this node must not go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use raft::command::QuotaBatch;
use raft::journal::JournalError;
use raft::{Applied, ProposeError, Refusal, Reply};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::warn;

use super::batch::{self, Draft};
use super::book::{MeterSet, Party};
use super::past::Replay;
use super::queue::Waiter;
use super::reading::{self, InFlight};
use super::tend::{Moment, Tended, Wish};
use super::turns::Turns;
use super::{Quota, QuotaRefusal, Shared};
use crate::mailbox::Seen;
use crate::routing::{AccessKey, Name};
use crate::supervisor::Fatal;

/// Between two batches for which nobody waits: at most twenty a second. Each is a synced write on a quorum of disks, and what a
/// batch says is known to others this much later at worst.
const PACE: Duration = Duration::from_millis(50);
/// Before a batch is sent again that this node was too busy to send.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// Between two looks at every set.
const TICK: Duration = Duration::from_millis(250);

pub(crate) struct QuotaActor;

/// Bounded: a wait per call in progress, a mark per set, one batch, one View, some timers.
pub(crate) enum QuotaMessage {
    /// A call waits for tokens.
    Wait(Box<Waiter>),
    /// There is something to tell of a set, or to draw for it.
    Marked(Arc<MeterSet>),
    /// Calls cannot be noted any more.
    JournalFailed(JournalError),
    /// The batch in flight has an answer.
    Answered(Result<Applied, ProposeError>),
    /// There is a newer View.
    View(Seen),
    /// The time that was asked for has come.
    Wake(Instant),
    /// Give everything back, and say when that is done.
    Drain(oneshot::Sender<()>),
}

pub(crate) struct Running {
    shared: Arc<Shared>,
    myself: ActorRef<QuotaMessage>,
    moment: Moment,
    /// By id.
    sets: BTreeMap<u64, Tended>,
    /// Sets with calls that wait.
    waiting: BTreeSet<u64>,
    /// Sets with something to tell.
    pending: Turns,
    /// Sets of `waiting` that want a draw.
    urgent: BTreeSet<u64>,
    /// The version of keys and objects that all limits follow.
    access_version: u64,
    /// When the last batch was sent; `None` if there was more to tell than it took.
    proposed_at: Option<Instant>,
    ticked_at: Instant,
    /// The one timer that counts.
    wake_at: Option<(Instant, AbortHandle)>,
    /// Nothing is drawn any more: the node is leaving.
    is_leaving: bool,
    /// Whom to tell when everything has gone back.
    drains: Vec<oneshot::Sender<()>>,
    /// The batch in flight and the follower of Views. Ends with the actor.
    tasks: JoinSet<()>,
}

impl Actor for QuotaActor {
    type Msg = QuotaMessage;
    type State = Running;
    type Arguments = Quota;

    async fn pre_start(&self, myself: ActorRef<QuotaMessage>, quota: Quota) -> Result<Running, ActorProcessingErr> {
        let mut running = Running::new(quota.shared().clone(), myself.clone());
        running.adopt_all();
        running.shared.book.mailbox.opens(myself);
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
        running.moment = moment(&running.shared);
        match message {
            QuotaMessage::Wait(waiter) => running.wait(*waiter),
            QuotaMessage::Marked(set) => running.marked(set),
            QuotaMessage::JournalFailed(error) => return Err(Fatal(error.to_string()).into()),
            QuotaMessage::Answered(answer) => running.answered(answer)?,
            QuotaMessage::View(_seen) => running.view_changed(),
            QuotaMessage::Wake(asked) => running.wake(asked),
            QuotaMessage::Drain(done) => running.drain(done),
        }
        running.proceed();
        Ok(())
    }
}

fn moment(shared: &Shared) -> Moment {
    let view = shared.ledger.view();
    let now = shared.ledger.now_in(&view);
    let node = shared.ledger.node();
    let is_answer_due = in_flight(shared).is_some_and(|in_flight| reading::has_applied(&view, &in_flight.batch));
    Moment { view, node, now, instant: Instant::now(), is_answer_due }
}

fn in_flight(shared: &Shared) -> Option<Arc<InFlight>> {
    shared.book.in_flight.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Running {
    fn new(shared: Arc<Shared>, myself: ActorRef<QuotaMessage>) -> Running {
        let moment = moment(&shared);
        let mut tasks = JoinSet::new();
        tasks.spawn(shared.ledger.follow(myself.clone(), QuotaMessage::View));
        Running {
            access_version: moment.view.access_version,
            ticked_at: moment.instant,
            moment,
            shared,
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
        for set in self.shared.book.sets() {
            self.pending.insert(set.id);
            self.tended(&set).follow_limits_of_view();
        }
    }

    /// After a restart: the batch that was in flight still is.
    fn resume(&mut self) {
        if let Some(in_flight) = self.in_flight() {
            for sent in in_flight.sent.iter().filter(|sent| sent.draw.is_some()) {
                self.tended(&sent.set).tended.is_drawing = true;
            }
            self.propose(&in_flight, Duration::ZERO);
        }
    }

    fn past(&self) -> MutexGuard<'_, Replay> {
        self.shared.book.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_flight(&self) -> Option<Arc<InFlight>> {
        in_flight(&self.shared)
    }

    fn set_in_flight(&self, in_flight: Option<Arc<InFlight>>) {
        *self.shared.book.in_flight.lock().unwrap_or_else(PoisonError::into_inner) = in_flight;
    }

    fn tended(&mut self, set: &Arc<MeterSet>) -> Care<'_> {
        let tended = self.sets.entry(set.id).or_insert_with(|| Tended::new(set.clone(), self.moment.instant));
        Care { tended, moment: &self.moment }
    }

    // === Messages ===

    fn wait(&mut self, mut waiter: Waiter) {
        if self.is_leaving {
            return waiter.answer(Err(QuotaRefusal::Unavailable));
        }
        // A set that was forgotten while the call was on its way has a successor, or gets one.
        waiter.set = self.shared.book.obtain(&waiter.permit, waiter.set.party.clone());
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
            self.shared.book.prune(|key| reading::limits_in(&self.moment.view, key).is_none());
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
            let Some(set) = self.shared.book.find(&key, &party) else { continue };
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
            if tended.tick(&self.shared, &self.moment) {
                self.pending.insert(*id);
            }
            if tended.is_forgettable(self.moment.instant) && !self.pending.contains(*id) {
                forgotten.push(*id);
            }
        }
        for tended in forgotten.iter().filter_map(|id| self.sets.remove(id)) {
            self.shared.book.forget(&tended.set);
        }
    }

    fn drain(&mut self, done: oneshot::Sender<()>) {
        self.is_leaving = true;
        self.drains.push(done);
        self.refuse_all();
        self.pending.extend(self.sets.keys().copied());
    }

    fn answered(&mut self, answer: Result<Applied, ProposeError>) -> Result<(), ActorProcessingErr> {
        let Some(in_flight) = self.in_flight() else { return Ok(()) };
        match answer {
            Ok(Applied { reply: Reply::Quota(grants), .. }) if grants.len() == in_flight.sent.len() => {
                self.set_in_flight(None);
                self.shared.ledger.journal().confirm(in_flight.batch.sequence);
                self.past().confirmed(&in_flight.past, &self.shared.ledger);
                self.take_answers(&in_flight, &grants);
                Ok(())
            }
            Ok(Applied { reply: Reply::Refused(refusal @ Refusal::StaleBatch { .. }), .. }) => {
                Err(Fatal(format!("{refusal}: something else runs as this node")).into())
            }
            Ok(Applied { reply, .. }) => {
                Err(Fatal(format!("the ledger gave an answer that fits no batch: {reply:?}")).into())
            }
            Err(error @ ProposeError::Unknown(_)) => {
                warn!(%error, sequence = in_flight.batch.sequence, "the quota ledger does not answer; asking again");
                self.propose(&in_flight, Duration::ZERO);
                Ok(())
            }
            Err(ProposeError::Busy(_)) => {
                self.propose(&in_flight, BUSY_PAUSE);
                Ok(())
            }
            Err(ProposeError::Stopping | ProposeError::Retired) => {
                self.refuse_all();
                self.drains.clear();
                Ok(())
            }
            Err(error @ ProposeError::TooLarge { .. }) => Err(Fatal(error.to_string()).into()),
        }
    }

    fn take_answers(&mut self, in_flight: &InFlight, grants: &[raft::command::QuotaGrant]) {
        let mut served = BTreeSet::new();
        for sent in &in_flight.sent {
            self.tended(&sent.set).tended.is_drawing = false;
        }
        for ((entry, sent), grant) in in_flight.batch.entries.iter().zip(&in_flight.sent).zip(grants) {
            let care = self.tended(&sent.set);
            batch::take_answer(care.tended, care.moment, entry, sent, *grant);
            served.insert(sent.set.id);
        }
        for id in served {
            self.serve(id);
        }
    }

    /// Nothing will be granted any more.
    fn refuse_all(&mut self) {
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
    fn serve(&mut self, id: u64) {
        let Some(tended) = self.sets.get_mut(&id) else { return };
        tended.serve(&self.shared, &self.moment);
        self.waiting.remove(&id);
        self.urgent.remove(&id);
        let Some(deadline) = tended.deadline(&self.shared, &self.moment) else {
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

    /// Sends a batch if there is reason to and none is in flight, and sees to it that time passes.
    fn proceed(&mut self) {
        if !self.sets.is_empty() {
            self.wake_by(self.ticked_at + TICK);
        }
        if self.in_flight().is_some() {
            return;
        }
        let paced = self.proposed_at.map_or(self.moment.instant, |proposed| proposed + PACE);
        let is_due = !self.urgent.is_empty() || !self.drains.is_empty() || paced <= self.moment.instant;
        let has_past = self.past().advance(&self.shared.ledger, &self.moment);
        if (has_past || !self.pending.is_empty()) && !is_due {
            self.wake_by(paced);
        } else if is_due {
            self.send_batch();
        }
        if self.in_flight().is_none() && self.pending.is_empty() {
            for done in self.drains.drain(..) {
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
            }
        }
    }

    /// Everything there is to tell and to draw, in one batch.
    fn send_batch(&mut self) {
        let mut draft = Draft::default();
        // Those for whom somebody waits come first.
        while !draft.is_full()
            && let Some(id) = self.urgent.pop_first()
        {
            self.put_into(&mut draft, id);
        }
        while !draft.is_full()
            && let Some(id) = self.pending.next()
        {
            self.put_into(&mut draft, id);
        }
        let past = self.past().fill(&mut draft, &self.moment);
        // The first one says, if nothing else, that what an earlier life of this node held will not come back from it.
        let is_first = self.shared.book.sequence.load(Ordering::Acquire) == 0;
        if draft.is_empty() && past.is_empty() && !is_first {
            return;
        }
        let batch = QuotaBatch {
            node: self.moment.node,
            incarnation: self.shared.ledger.incarnation(),
            sequence: self.shared.book.sequence.fetch_add(1, Ordering::AcqRel) + 1,
            entries: draft.entries,
            usage: draft.usage,
            earlier: past.told.clone(),
        };
        let is_noted = AtomicBool::new(false);
        let in_flight = Arc::new(InFlight { batch, sent: draft.sent, parts: draft.parts, past, is_noted });
        self.set_in_flight(Some(in_flight.clone()));
        self.proposed_at = self.pending.is_empty().then_some(self.moment.instant);
        self.propose(&in_flight, Duration::ZERO);
    }

    /// Puts into a batch what there is to tell of a set, or as much as fits.
    fn put_into(&mut self, draft: &mut Draft, id: u64) {
        self.pending.remove(id);
        self.urgent.remove(&id);
        if let Some(tended) = self.sets.get_mut(&id)
            && !draft.add(tended, &self.moment, self.is_leaving)
        {
            self.pending.insert(id);
        }
    }

    fn propose(&mut self, in_flight: &InFlight, pause: Duration) {
        while self.tasks.try_join_next().is_some() {}
        let (ledger, myself) = (self.shared.ledger.clone(), self.myself.clone());
        let batch = in_flight.batch.clone();
        let noted = (!in_flight.is_noted.swap(true, Ordering::AcqRel))
            .then(|| ledger.journal().tell(in_flight.batch.sequence, in_flight.parts.clone()));
        self.tasks.spawn(async move {
            if let Some(noted) = noted
                && let Err(error) = ledger.journal().written(noted).await
            {
                // If the actor is gone, its successor is told so by whoever notes something next.
                let _ = myself.send_message(QuotaMessage::JournalFailed(error));
                return;
            }
            tokio::time::sleep(pause).await;
            let answer = ledger.send(batch).await;
            // If the actor is gone, its successor finds the batch in the book and sends it again.
            let _ = myself.send_message(QuotaMessage::Answered(answer));
        });
    }

    fn wake_by(&mut self, deadline: Instant) {
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
struct Care<'a> {
    tended: &'a mut Tended,
    moment: &'a Moment,
}

impl Care<'_> {
    fn follow_limits_of_view(&mut self) {
        self.tended.follow_limits(self.moment);
    }

    fn follow_windows_of_view(&mut self) {
        self.tended.follow_windows(self.moment);
    }
}
