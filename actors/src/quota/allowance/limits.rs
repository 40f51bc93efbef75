//! The limits of a call that has ended, for as long as its answer is on its way to the caller.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use raft::doors::BoxFuture;
use raft::journal::{JournalError, NoteNumber};
use smallvec::SmallVec;

use super::Allowance;
use super::set::MeterSet;
use super::standing::{self, LimitStanding};

/// The limits that a settled call was held in.
pub struct Limits {
    pub(super) allowance: Arc<Allowance>,
    pub(super) sets: SmallVec<[Arc<MeterSet>; 1]>,
    /// What the call used; `None` once it is known to be written.
    pub(super) note: Option<NoteNumber>,
    /// While somebody waits for that.
    pub(super) written: Option<BoxFuture<'static, Result<(), JournalError>>>,
}

impl Limits {
    /// Ready once it is noted what the call used, so that whoever has its whole answer pays just that, even if this process is killed.
    /// A journal that fails stops the node, and makes nobody wait.
    pub fn poll_noted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(note) = self.note {
            let written = self.written.get_or_insert_with(|| Box::pin(self.allowance.ledger.journal().written(note)));
            // Its failure is met by whoever uses it next.
            let _ = ready!(written.as_mut().poll(cx));
            (self.note, self.written) = (None, None);
        }
        Poll::Ready(())
    }

    /// Where each limit stands for the caller now; the tightest first.
    pub fn standing(&self) -> Vec<LimitStanding> {
        standing::of_sets(self.sets.iter(), self.allowance.ledger.now())
    }
}
