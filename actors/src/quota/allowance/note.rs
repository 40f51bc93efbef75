//! What the journal keeps of a call that begins.

use std::sync::Arc;

use raft::journal::{CallHold, CallId, NoteNumber, OpenedCall};
use raft::resources::Unit;
use smallvec::SmallVec;

use super::amount::Amount;
use super::charge::{Charge, Source};
use super::hold::Hold;
use super::slots::{Granted, Rule, Slot, Slots};
use super::tally;
use crate::quota::ledger::Ledger;
use crate::routing::Permit;

/// The slots of one limit subject, and what a call holds of each.
type Part = (Arc<Slots>, Granted);

/// Notes what a call holds.
pub(super) fn open(ledger: &Ledger, call: CallId, permit: &Permit, holds: &[Hold], need: Amount) -> NoteNumber {
    let permit = permit.clone();
    let parts: SmallVec<[Part; 1]> = holds.iter().map(|hold| (hold.slots.clone(), hold.granted.clone())).collect();
    ledger.journal().open(move || opened(call, &permit, &parts, need))
}

/// A call as the journal has it. If it is lost it is taken to have used what it needed, as far as it holds that: what it used beyond,
/// nobody will ever know, and a crash leaves no debt.
fn opened(call: CallId, permit: &Permit, parts: &[Part], need: Amount) -> OpenedCall {
    let holds = parts.iter().flat_map(|(slots, granted)| slots.slots.iter().zip(granted));
    let lost = holds.fold(need, |amount, (slot, granted)| within(amount, &slot.rule, *granted));
    let estimated = Charge { amount: lost, source: Source::Estimated, ..Charge::default() };
    let of_part = |(part, (slots, _)): (u8, &Part)| {
        let hold = |slot: &Slot| CallHold {
            part,
            meter: slot.rule.id.clone(),
            window: slot.meter.number,
            held: slot.rule.used_of(lost),
        };
        slots.slots.iter().map(hold).collect::<Vec<_>>()
    };
    OpenedCall {
        call,
        labels: tally::labels(permit),
        if_lost: estimated.sum().unwrap_or_default(),
        holds: (0..).zip(parts).flat_map(of_part).collect(),
    }
}

/// As much of `amount` as `granted` of a limit covers, rather of the prompt, which is computed first.
fn within(amount: Amount, rule: &Rule, granted: u64) -> Amount {
    let Amount { input, output, requests } = amount;
    let (input, output) = match rule.unit() {
        Unit::Total => (input.min(granted), output.min(granted.saturating_sub(input))),
        Unit::Input => (input.min(granted), output),
        Unit::Output => (input, output.min(granted)),
        Unit::Cost => {
            let affordable =
                |tokens: u64, price: u64, money: u64| tokens.min(money.checked_div(price).unwrap_or(tokens));
            let input = affordable(input, rule.price.input, granted);
            let rest = granted.saturating_sub(rule.price.of(input, 0));
            (input, affordable(output, rule.price.output, rest))
        }
        Unit::Requests | Unit::InProgress => (input, output),
    };
    Amount { input, output, requests }
}

#[cfg(test)]
mod tests {
    use raft::resources::{LimitKind, LimitScope, Price};
    use raft::state::{MeterId, Subject};

    use super::*;

    fn rule(unit: Unit) -> Rule {
        let id = MeterId {
            subscription: ("s".to_owned(), "s".to_owned()),
            model: ("m".to_owned(), "m".to_owned()),
            limit: LimitKind { window_seconds: 60, unit, scope: LimitScope::User },
            subject: Subject::User("ann".to_owned()),
        };
        let price = Price { input: 2, output: 10 };
        Rule { id: Arc::new(id), limit: 1000, window: "60s".to_owned(), is_hard: false, gives_rest: true, price }
    }

    #[test]
    fn a_lost_call_is_taken_to_have_used_no_more_than_it_holds() {
        let table = [
            // Unit, granted, (input, output) of a call that needed 100 and 50.
            (Unit::Total, 150, (100, 50)),
            (Unit::Total, 120, (100, 20)),
            (Unit::Total, 30, (30, 0)),
            (Unit::Input, 30, (30, 50)),
            (Unit::Output, 30, (100, 30)),
            (Unit::Cost, 700, (100, 50)),
            (Unit::Cost, 205, (100, 0)),
            (Unit::Cost, 55, (27, 0)),
            (Unit::Requests, 1, (100, 50)),
        ];
        for (unit, granted, (input, output)) in table {
            let rule = rule(unit);
            let lost = within(Amount::of_call(100, 50), &rule, granted);
            assert_eq!(lost, Amount::of_call(input, output), "{unit:?} {granted}");
            assert!(rule.used_of(lost) <= granted, "{unit:?} {granted}");
        }
    }
}
