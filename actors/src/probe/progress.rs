//! Whether an engine moves. One that hangs answers `/health` with 200 and its metrics as they were, so only two looks at its
//! counters, some time apart, show it. Pure; time is an argument.
//!
//! It hangs if calls are in flight, and for at least ten seconds neither its counters have moved nor a piece of a stream has come.
//! Ten seconds, because a long prefill emits nothing, and metrics lag by up to 2.5 s.
//!
//! Calls are in flight if the engine says that it has any. If it says that it has none, it may have stopped before this node's
//! calls came: then those that only the engine can answer count, as long as no call at all is answered meanwhile.

use std::time::Duration;

use tokio::time::Instant;

/// So long nothing moves while an engine hangs.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// What one look at a replica shows.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Look {
    /// The sum of the engine's counters.
    pub(super) work: f64,
    /// Whether the engine says that it has calls.
    pub(super) has_calls: bool,
    /// What this node's calls show.
    pub(super) seen: Seen,
}

/// What a node's calls at a replica show of its engine.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Seen {
    /// Whether a call waits that only the engine can answer.
    pub(crate) awaiting: bool,
    /// Pieces of streams that ever came.
    pub(crate) pieces: u64,
    /// Calls that were ever answered.
    pub(crate) answers: u64,
}

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Motion {
    /// The engine works.
    Moves,
    /// It does nothing although calls are in flight.
    Hangs,
    /// Nothing moves, and nothing has to, or not for long enough.
    Unclear,
}

/// The looks at one replica.
#[derive(Default, Debug)]
pub(super) struct Progress {
    last: Option<Look>,
    /// Since when calls are in flight and nothing has moved.
    still_since: Option<Instant>,
}

impl Progress {
    /// Takes note of a look at `now`.
    pub(super) fn note(&mut self, look: Look, now: Instant) -> Motion {
        let Some(last) = self.last.replace(look) else { return Motion::Unclear };
        let in_flight = look.has_calls || look.seen.awaiting;
        let has_answered = look.seen.answers != last.seen.answers;
        if look.work != last.work || look.seen.pieces != last.seen.pieces {
            self.still_since = in_flight.then_some(now);
            return Motion::Moves;
        }
        if !in_flight || (!look.has_calls && has_answered) {
            self.still_since = in_flight.then_some(now);
            return Motion::Unclear;
        }
        let since = *self.still_since.get_or_insert(now);
        if now - since >= HANGS_AFTER { Motion::Hangs } else { Motion::Unclear }
    }
}

#[cfg(test)]
mod tests;
