//! One replica: what it counts, and how it answers for now.

use std::cell::Cell;
use std::rc::Rc;

use serde::Deserialize;

/// How every replica answers for now.
#[derive(Default)]
pub(super) struct Pace(Cell<Settings>);

/// How large and how slow answers are.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Before the first byte, in milliseconds.
    pub(super) latency_ms: u64,
    /// Between two events of a stream, in milliseconds; with 0 each is sent as soon as the one before is in the kernel.
    pub(super) gap_ms: u64,
    /// Events with text in a stream.
    pub(super) chunks: u32,
    /// Bytes of an answer that is no stream.
    pub(super) body_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { latency_ms: 0, gap_ms: 0, chunks: 50, body_bytes: 2048 }
    }
}

impl Pace {
    pub(super) fn get(&self) -> Settings {
        self.0.get()
    }

    pub(super) fn set(&self, settings: Settings) {
        self.0.set(settings);
    }
}

/// One replica.
pub(super) struct Replica {
    pub(super) port: u16,
    pace: Rc<Pace>,
    counts: Rc<Counts>,
}

/// What a replica counts.
#[derive(Default)]
pub(super) struct Counts {
    /// Calls that came.
    pub(super) calls: Cell<u64>,
    /// Calls in progress.
    pub(super) running: Cell<u64>,
    /// Calls whose answer was handed over to the last byte.
    pub(super) finished: Cell<u64>,
    /// Calls whose caller went away before.
    pub(super) aborted: Cell<u64>,
}

impl Replica {
    pub(super) fn new(port: u16, pace: Rc<Pace>) -> Replica {
        Replica { port, pace, counts: Rc::default() }
    }

    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Forgets what was counted, except what is still running.
    pub(super) fn start_again(&self) {
        self.counts.calls.set(0);
        self.counts.finished.set(0);
        self.counts.aborted.set(0);
    }

    /// A call begins. It ends when the value is dropped.
    pub(super) fn begin(&self) -> Running {
        add(&self.counts.calls, 1);
        add(&self.counts.running, 1);
        Running { counts: self.counts.clone(), is_finished: false }
    }
}

/// A call in progress.
pub(super) struct Running {
    counts: Rc<Counts>,
    is_finished: bool,
}

impl Running {
    /// The answer is complete.
    pub(super) fn finish(&mut self) {
        self.is_finished = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.counts.running.set(self.counts.running.get() - 1);
        add(if self.is_finished { &self.counts.finished } else { &self.counts.aborted }, 1);
    }
}

fn add(count: &Cell<u64>, more: u64) {
    count.set(count.get() + more);
}
