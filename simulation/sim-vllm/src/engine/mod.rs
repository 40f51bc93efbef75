//! The engine: a loop around the [`scheduler`] that lets each step take its time and tells readers what came of it.
//!
//! The loop sleeps while there is nothing to compute. Steps are paced against an ideal clock, so that timers which
//! fire a millisecond late do not slow the engine down.

pub(crate) mod kv;
pub(crate) mod meters;
pub(crate) mod output;
pub(crate) mod records;
pub(crate) mod scheduler;
pub(crate) mod timing;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use self::{
    meters::{Meters, Passage},
    output::{Ending, Generation, Slot},
    records::{Outcome, Records, RequestRecord, Stats},
    scheduler::{Advance, Scheduler, Sequence, Started},
};
use crate::{chance::Chance, config::Config};

/// How far the ideal clock may lag behind (a machine too busy to keep up) before the engine gives up catching up.
const LAG_MAX: Duration = Duration::from_millis(50);

/// From so many tokens a step on (at recorded speed) the front end falls behind now and then, and sends two tokens of a sequence as one
/// event.
const FRONT_END_TOKENS: f64 = 128.0;
/// How often, for each token (recorded: 126 to 127 events for 128 tokens), in proportion to the tokens beyond that.
const MERGED_SHARE: f64 = 0.01;
/// However far behind it is, so often at most.
const MERGED_SHARE_MAX: f64 = 0.5;

/// One engine; clones are the same one. It stops when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Engine(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Something arrived, or changed: look again.
    wake: Arc<Notify>,
}

/// A sequence to be computed.
pub(crate) struct Job {
    pub(crate) request_id: String,
    pub(crate) client_id: String,
    pub(crate) prompt: Vec<u32>,
    /// What it is going to produce; nothing for an embedding.
    pub(crate) output: Vec<u32>,
    pub(crate) salt: u64,
    pub(crate) priority: i64,
    /// The caller's limit, for the metrics.
    pub(crate) max_tokens: usize,
    /// Ends because of its limit, for the metrics.
    pub(crate) ends_by_length: bool,
}

struct State {
    config: Config,
    scheduler: Scheduler,
    started_at: Instant,
    /// Requests that are still being tokenised, by the time at which they reach the engine.
    arriving: BTreeMap<(Instant, u64), Sequence>,
    live: BTreeMap<u64, Live>,
    ended: Records,
    meters: Meters,
    next_id: u64,
    /// The end of the last step, had every timer been exact.
    ideal: Option<Instant>,
    /// What its metrics go on to say while it hangs.
    hung: Option<Vitals>,
    dead: bool,
    advances: Vec<Advance>,
    /// For what depends on the front end's luck.
    chance: Chance,
}

/// What metrics say of an engine: its counters, sequences that run and wait, KV usage.
type Vitals = (Meters, usize, usize, f64);

/// What is remembered of a sequence until it ends.
struct Live {
    slot: Arc<Slot>,
    record: RequestRecord,
    max_tokens: usize,
    ends_by_length: bool,
    arrived: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

/// What the loop does next.
enum Next {
    StepUntil(Instant),
    Idle(Option<Instant>),
}

impl Engine {
    /// An engine on the current tokio runtime.
    pub(crate) fn start(config: &Config) -> Self {
        let state = State {
            config: config.clone(),
            scheduler: Scheduler::new(config.engine.clone()),
            started_at: Instant::now(),
            arriving: BTreeMap::new(),
            live: BTreeMap::new(),
            ended: Records::default(),
            meters: Meters::default(),
            next_id: 0,
            ideal: None,
            hung: None,
            dead: false,
            advances: Vec::new(),
            chance: Chance::new(config.seed),
        };
        let inner = Arc::new(Inner { state: Mutex::new(state), wake: Arc::new(Notify::new()) });
        tokio::spawn(run(Arc::downgrade(&inner), inner.wake.clone()));
        Self(inner)
    }

    /// Queues a job. In a dead engine it ends at once.
    pub(crate) fn submit(&self, job: Job) -> Generation {
        let slot = Arc::new(Slot::default());
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        if state.dead {
            slot.publish(0, Some(Ending::EngineDied));
        } else {
            state.accept(id, job, slot.clone());
        }
        drop(state);
        self.0.wake.notify_one();
        Generation::new(self.clone(), id, slot)
    }

    /// Drops a sequence; a step that already computes it still runs to its end.
    pub(crate) fn abort(&self, id: u64) {
        let mut state = self.state();
        state.scheduler.abort(id);
        state.arriving.retain(|(_, other), _| *other != id);
        state.end(id, Outcome::Aborted);
    }

    /// Stops computing without a sign (SIGSTOP), or goes on.
    pub(crate) fn set_hung(&self, hung: bool) {
        let mut state = self.state();
        state.hung = hung.then(|| state.vitals());
        drop(state);
        self.0.wake.notify_one();
    }

    /// Dies: every sequence ends with [`Ending::EngineDied`].
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        state.dead = true;
        state.end_all(Ending::EngineDied, Outcome::Failed);
    }

    /// Ends every sequence as it is: what was produced is the answer.
    pub(crate) fn stop(&self) {
        self.state().end_all(Ending::Aborted, Outcome::Aborted);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Sequences that arrive, wait or run.
    pub(crate) fn open(&self) -> usize {
        self.state().live.len()
    }

    /// The counters, and (running, waiting, KV usage).
    pub(crate) fn meters(&self) -> (Meters, usize, usize, f64) {
        self.state().vitals()
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.state();
        let open = state.live.values().map(|live| live.record.clone());
        Stats {
            running: state.scheduler.running(),
            waiting: state.scheduler.waiting(),
            arriving: state.arriving.len(),
            kv_usage: state.scheduler.kv_usage(),
            preemptions: state.meters.preemptions,
            prefix_hit_tokens: state.meters.prefix_hits,
            prompt_tokens: state.meters.prompt_tokens,
            generation_tokens: state.meters.generation_tokens,
            requests: open.chain(state.ended.iter().cloned()).collect(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

/// The loop: decide a step, let it take its time, deliver; sleep when there is nothing to do.
async fn run(inner: Weak<Inner>, wake: Arc<Notify>) {
    loop {
        let Some(strong) = inner.upgrade() else { return };
        let next = strong.state().next(Instant::now());
        drop(strong);
        match next {
            Next::StepUntil(deadline) => {
                if deadline <= Instant::now() {
                    // Catching up: let the readers of the last step run before the next one.
                    tokio::task::yield_now().await;
                } else {
                    sleep_until(deadline).await;
                }
                // A hang in the middle of a step holds its results back as well.
                loop {
                    let Some(strong) = inner.upgrade() else { return };
                    if strong.state().deliver(Instant::now()) {
                        break;
                    }
                    drop(strong);
                    wake.notified().await;
                }
            }
            Next::Idle(None) => wake.notified().await,
            Next::Idle(Some(until)) => {
                tokio::select! { biased; () = wake.notified() => {}, () = sleep_until(until) => {} }
            }
        }
    }
}

impl State {
    /// A core that hangs reports nothing new, whatever happens around it.
    fn vitals(&self) -> Vitals {
        let now = || {
            let scheduler = &self.scheduler;
            (self.meters.clone(), scheduler.running(), scheduler.waiting(), scheduler.kv_usage())
        };
        self.hung.clone().unwrap_or_else(now)
    }

    fn accept(&mut self, id: u64, job: Job, slot: Arc<Slot>) {
        let now = Instant::now();
        let delay = self.config.scaled(timing::front_end_time(&self.config.timing, job.prompt.len()));
        let record = RequestRecord {
            request_id: job.request_id,
            client_id: job.client_id,
            prompt_tokens: job.prompt.len(),
            cached_tokens: 0,
            produced_tokens: 0,
            outcome: Outcome::Open,
            arrived_seconds: (now - self.started_at).as_secs_f64(),
            ended_seconds: None,
        };
        let live = Live {
            slot,
            record,
            max_tokens: job.max_tokens,
            ends_by_length: job.ends_by_length,
            arrived: now,
            started: None,
            first_token: None,
            last_token: None,
        };
        self.live.insert(id, live);
        let sequence = if job.output.is_empty() {
            Sequence::pooling(id, job.prompt, job.salt)
        } else {
            Sequence::new(id, job.priority, job.prompt, job.output, job.salt)
        };
        self.arriving.insert((now + delay, id), sequence);
    }

    fn next(&mut self, now: Instant) -> Next {
        if self.hung.is_some() || self.dead {
            return Next::Idle(None);
        }
        while let Some(entry) = self.arriving.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let sequence = entry.remove();
            self.scheduler.add(sequence);
        }
        let Some(step) = self.scheduler.schedule() else {
            self.ideal = None;
            return Next::Idle(self.arriving.first_key_value().map(|((at, _), _)| *at));
        };
        self.meters.preemptions += step.preempted;
        self.meters.iteration.observe(step.load.tokens() as f64);
        for started in &step.started {
            self.start_sequence(started, now);
        }
        let earliest = now.checked_sub(LAG_MAX).unwrap_or(now);
        let begin = self.ideal.unwrap_or(now).max(earliest);
        let deadline = begin + self.config.scaled(timing::step_time(&self.config.timing, &step.load));
        self.ideal = Some(deadline);
        Next::StepUntil(deadline)
    }

    fn start_sequence(&mut self, started: &Started, now: Instant) {
        self.meters.prefix_queries += started.prompt_tokens as u64;
        self.meters.prefix_hits += started.cached_tokens as u64;
        self.meters.prefill_computed.observe((started.prompt_tokens - started.cached_tokens) as f64);
        if let Some(live) = self.live.get_mut(&started.id) {
            live.started = Some(now);
            live.record.cached_tokens = started.cached_tokens;
            live.slot.set_cached(started.cached_tokens);
        }
    }

    /// Tells the readers what a step produced; false while the engine hangs.
    fn deliver(&mut self, now: Instant) -> bool {
        if self.hung.is_some() {
            return false;
        }
        let mut advances = std::mem::take(&mut self.advances);
        self.scheduler.complete(&mut advances);
        let merged_share = self.merged_share(advances.len());
        for advance in advances.drain(..) {
            let is_merged = merged_share > 0.0 && self.chance.unit() < merged_share;
            self.advance(&advance, is_merged, now);
        }
        self.advances = advances;
        true
    }

    /// How likely a token of a step with so many is to wait for the next one of its sequence.
    fn merged_share(&self, tokens: usize) -> f64 {
        let load = tokens as f64 * self.config.speed / FRONT_END_TOKENS;
        if load < 1.0 { 0.0 } else { (MERGED_SHARE * load).min(MERGED_SHARE_MAX) }
    }

    fn advance(&mut self, advance: &Advance, is_merged: bool, now: Instant) {
        let Some(live) = self.live.get_mut(&advance.id) else { return };
        let fresh = advance.produced - live.record.produced_tokens;
        live.record.produced_tokens = advance.produced;
        self.meters.generation_tokens += fresh as u64;
        match live.last_token.replace(now) {
            None => {
                live.first_token = Some(now);
                self.meters.prompt_tokens += live.record.prompt_tokens as u64;
                self.meters.prompt_cached += live.record.cached_tokens as u64;
                self.meters.first_token.observe((now - live.arrived).as_secs_f64());
            }
            Some(last) => self.meters.between_tokens.observe((now - last).as_secs_f64()),
        }
        let is_first = advance.produced == fresh;
        if advance.finished || is_first || !is_merged {
            live.slot.publish(advance.produced, advance.finished.then_some(Ending::Complete));
        }
        if advance.finished {
            self.end(advance.id, Outcome::Finished);
        }
    }

    /// Forgets a sequence that ended and keeps its record.
    fn end(&mut self, id: u64, outcome: Outcome) {
        let Some(live) = self.live.remove(&id) else { return };
        let now = Instant::now();
        let reason = match outcome {
            Outcome::Finished => usize::from(live.ends_by_length),
            Outcome::Open | Outcome::Aborted => 2,
            Outcome::Failed => 3,
        };
        self.meters.ended[reason] += 1;
        if outcome == Outcome::Finished {
            let started = live.started.unwrap_or(now);
            let first = live.first_token.unwrap_or(now);
            let passage = Passage {
                queue: started - live.arrived,
                prefill: first - started,
                decode: now - first,
                end_to_end: now - live.arrived,
            };
            self.meters.ended_well(live.record.prompt_tokens, live.record.produced_tokens, live.max_tokens, passage);
        }
        self.ended.end(live.record, outcome, now - self.started_at);
    }

    fn end_all(&mut self, ending: Ending, outcome: Outcome) {
        self.arriving.clear();
        let ids: Vec<u64> = self.live.keys().copied().collect();
        for id in ids {
            self.scheduler.abort(id);
            if let Some(live) = self.live.get(&id) {
                live.slot.publish(live.record.produced_tokens, Some(ending));
            }
            self.end(id, outcome);
        }
    }
}
