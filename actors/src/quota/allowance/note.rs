//! What the journal keeps of a call that begins.

use std::sync::Arc;

use raft::journal::{CallHold, CallId, NoteNumber, OpenedCall};
use smallvec::SmallVec;

use super::amount::Amount;
use super::charge::{Charge, Source};
use super::hold::Hold;
use super::slots::{Slot, Slots};
use super::tally;
use crate::quota::ledger::Ledger;
use crate::routing::Permit;

/// Notes what a call holds.
pub(super) fn open(ledger: &Ledger, call: CallId, permit: &Permit, holds: &[Hold], need: Amount) -> NoteNumber {
    let permit = permit.clone();
    let slots: SmallVec<[Arc<Slots>; 1]> = holds.iter().map(|hold| hold.slots.clone()).collect();
    ledger.journal().open(move || opened(call, &permit, &slots, need))
}

/// A call as the journal has it.
fn opened(call: CallId, permit: &Permit, slots: &[Arc<Slots>], need: Amount) -> OpenedCall {
    let estimated = Charge { amount: need, source: Source::Estimated, ..Charge::default() };
    let of_part = |(part, slots): (u8, &Arc<Slots>)| {
        let hold = |slot: &Slot| CallHold {
            part,
            meter: slot.rule.id.clone(),
            window: slot.meter.number,
            held: if slot.rule.id.is_in_progress() { 0 } else { slot.share_of(need) },
        };
        slots.slots.iter().map(hold).collect::<Vec<_>>()
    };
    OpenedCall {
        call,
        labels: tally::labels(permit),
        if_lost: estimated.sum().unwrap_or_default(),
        holds: (0..).zip(slots).flat_map(of_part).collect(),
    }
}
