//! What the engine tells the HTTP side about one sequence: how many tokens exist, and how it ended.
//!
//! Not a queue: a count that only grows, so a slow reader finds several tokens at once (as with vLLM's merged
//! outputs) and nothing can pile up.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::Engine;

/// How a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It produced all of its output.
    Complete,
    /// The server is stopping: what exists is the answer.
    Aborted,
    /// The engine died.
    EngineDied,
}

/// What is known of a sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) produced: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) ending: Option<Ending>,
}

/// Shared between the engine and one reader.
#[derive(Default)]
pub(super) struct Slot(Mutex<SlotState>);

#[derive(Default)]
struct SlotState {
    produced: usize,
    cached_tokens: usize,
    ending: Option<Ending>,
    reader: Option<Waker>,
}

impl Slot {
    pub(super) fn set_cached(&self, tokens: usize) {
        self.state().cached_tokens = tokens;
    }

    pub(super) fn publish(&self, produced: usize, ending: Option<Ending>) {
        let mut state = self.state();
        state.produced = state.produced.max(produced);
        state.ending = state.ending.or(ending);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One sequence in the engine, as its reader holds it. Dropping it before its end aborts the sequence.
pub(crate) struct Generation {
    engine: Engine,
    id: u64,
    slot: Arc<Slot>,
    seen: usize,
    ended: bool,
}

impl Generation {
    pub(super) fn new(engine: Engine, id: u64, slot: Arc<Slot>) -> Self {
        Self { engine, id, slot, seen: 0, ended: false }
    }

    /// Ready when there is something that the last answer did not have.
    pub(crate) fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        let mut state = self.slot.state();
        if state.produced == self.seen && (state.ending.is_none() || self.ended) {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.seen = state.produced;
        self.ended = state.ending.is_some();
        Poll::Ready(Progress { produced: state.produced, cached_tokens: state.cached_tokens, ending: state.ending })
    }

    /// Waits for the end.
    pub(crate) async fn finished(&mut self) -> Progress {
        loop {
            let progress = poll_fn(|cx| self.poll_progress(cx)).await;
            if progress.ending.is_some() {
                return progress;
            }
        }
    }
}

impl Drop for Generation {
    /// The client left, or the answer was abandoned: nobody reads what the sequence would still produce.
    fn drop(&mut self) {
        if !self.ended {
            self.engine.abort(self.id);
        }
    }
}
