//! What happened in a run: a hash over every byte that crossed the network, every disk operation, every fault and every
//! answer; and the last events as text, for whoever reads a failure. One run at a time, on one thread.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use xxhash_rust::xxh3::Xxh3;

/// Events that are kept as text.
const KEPT: usize = 4_000;

/// Stamps what nodes log with the time of the simulation.
pub(crate) struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:>9.3}s", now().as_secs_f64())
    }
}

struct Trace {
    hash: Xxh3,
    events: u64,
    now: Duration,
    recent: VecDeque<String>,
}

thread_local! {
    static TRACE: RefCell<Trace> = const { RefCell::new(Trace {
        hash: Xxh3::new(),
        events: 0,
        now: Duration::ZERO,
        recent: VecDeque::new(),
    }) };
}

/// The world's clock moved to `now`.
pub(crate) fn time_is(now: Duration) {
    TRACE.with_borrow_mut(|trace| trace.now = now);
}

/// Simulated time since the beginning of the run.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_else(|| TRACE.with_borrow(|trace| trace.now))
}

static PANIC: OnceLock<String> = OnceLock::new();

/// From now on the first panic of any thread is remembered, also one that somebody catches, as actors' are.
pub(crate) fn remember_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if PANIC.set(panic.to_string()).is_ok() {
            // At once: a second panic may end the process.
            eprintln!("{panic}");
        }
    }));
}

/// The first panic, if there was one.
pub(crate) fn first_panic() -> Option<String> {
    PANIC.get().cloned()
}

/// Something that happened and that nobody will want to read: only its hash is kept.
pub(crate) fn bytes(who: &str, what: &str, bytes: &[u8]) {
    let now = now();
    TRACE.with_borrow_mut(|trace| trace.add(now, who, what, bytes));
}

/// Something that happened, for people.
pub(crate) fn event(who: &str, text: &str) {
    let now = now();
    TRACE.with_borrow_mut(|trace| {
        trace.add(now, who, "event", text.as_bytes());
        if trace.recent.len() == KEPT {
            trace.recent.pop_front();
        }
        trace.recent.push_back(format!("{:>9.3}s {who:<10} {text}", now.as_secs_f64()));
    });
}

/// The hash over everything so far, and how much that was.
pub(crate) fn digest() -> (u64, u64) {
    TRACE.with_borrow(|trace| (trace.hash.digest(), trace.events))
}

/// The last events as text, oldest first.
pub(crate) fn recent() -> Vec<String> {
    TRACE.with_borrow(|trace| trace.recent.iter().cloned().collect())
}

impl Trace {
    fn add(&mut self, now: Duration, who: &str, what: &str, bytes: &[u8]) {
        self.hash.update(&now.as_nanos().to_le_bytes());
        for part in [who.as_bytes(), what.as_bytes(), bytes] {
            self.hash.update(&part.len().to_le_bytes());
            self.hash.update(part);
        }
        self.events += 1;
    }
}
