//! USAGE: what engines produced for answered calls is in the ledger (charged or owed; or held by a node that lost its power and forgot them),
//! and nothing is charged that no engine produced. What limits were charged is what usage adds up to, call by call, whatever died.
//!
//! Only for windows that outlast the run: a window that ended took its numbers with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft::resources::{LimitScope, Unit};
use raft::state::{MeterId, MeterWindow, Subject, UsageLabels};
use raft::{Timestamp, View};
use sim_vllm::Outcome;

use super::Violation;
use crate::plan::WHOLE_RUN;
use crate::world::{Call, Ended, PRICE, Shared};

/// What a call that broke off may be charged at most, beyond what its engine says: its reservation. So may one that is not streamed and
/// whose caller left, because it is charged for the time until its node saw that.
const BROKEN_OFF_MAX: u64 = 2_000;
/// What a streamed call whose caller left may be charged beyond what its engine says: its prompt is guessed until the engine has told.
const HUNG_UP_MAX: u64 = 150;

/// What the ledger should have of a user.
#[derive(Default)]
struct Expected {
    at_least: u64,
    at_most: u64,
}

pub(super) fn check(shared: &Shared, state: Option<Arc<View>>) -> Result<(), Violation> {
    check_owners(shared)?;
    let Some(state) = state.filter(|_| shared.plan.is_one_window()) else { return Ok(()) };
    // What an engine does not report is counted by the gateway as well as that goes.
    let is_reported = shared.plan.usage_is_true();
    let journals_are_whole = shared.plan.journals_are_whole();
    let engines_are_well = !shared.plan.faults.iter().any(|planned| planned.fault.concerns_engines());
    if is_reported {
        check_told(shared)?;
    }
    if is_reported && journals_are_whole {
        check_estimated(shared, &state)?;
    }
    check_rows(&state)?;
    if journals_are_whole {
        check_cost(&state)?;
    }
    for (user, expected) in expected(shared) {
        let meter = state.meters.iter().find(|(id, _)| is_of(id, &user)).map(|(_, meter)| meter);
        let (mut charged, mut held) = (0, 0);
        if let Some(meter) = meter {
            let window = meter.window.as_ref();
            charged = meter.debt + window.map_or(0, |window| window.settled);
            // Of nodes that came back it is orphaned, of lost ones granted.
            held = if journals_are_whole { 0 } else { window.map_or(0, MeterWindow::held) };
        }
        let text = if is_reported && expected.at_least > charged + held {
            format!(
                "engines produced {} tokens for {user}, the ledger has {charged}, dead nodes {held}",
                expected.at_least
            )
        } else if engines_are_well && charged > expected.at_most {
            format!("{user} was charged {charged} tokens, engines produced at most {}", expected.at_most)
        } else {
            continue;
        };
        return Err(Violation::new("USAGE", text));
    }
    Ok(())
}

/// What was charged, and what usage says of the same calls: told in one batch, so lost or kept together.
fn check_rows(state: &View) -> Result<(), Violation> {
    for (id, meter) in &state.meters {
        let Subject::User(user) = &id.subject else { continue };
        if !is_of(id, user) || u64::from(id.limit.window_seconds) < WHOLE_RUN {
            continue;
        }
        let charged = meter.debt + meter.window.as_ref().map_or(0, |window| window.settled);
        let is_theirs = |labels: &UsageLabels| {
            (&labels.user, &labels.subscription, &labels.model) == (user, &id.subscription, &id.model)
        };
        let all = state.usage.between(Timestamp(0), Timestamp(u64::MAX));
        let sums: Vec<_> = all.filter(|(_, _, labels, _)| is_theirs(labels)).map(|(_, _, _, sum)| sum).collect();
        let used: u64 = sums.iter().map(|sum| sum.total()).sum();
        // What an engine reports that cannot be true is in usage, and charged as far as it can be.
        let is_exact = sums.iter().all(|sum| sum.absurd_calls == 0);
        if used < charged || (is_exact && used != charged) {
            let text = format!("{user} was charged {charged} tokens, and used {used} by what usage says");
            return Err(Violation::new("USAGE", text));
        }
    }
    Ok(())
}

/// What a budget was charged is what usage says, at the price of prompts and answers.
fn check_cost(state: &View) -> Result<(), Violation> {
    let all = state.usage.between(Timestamp(0), Timestamp(u64::MAX));
    let sums: Vec<_> = all.map(|(_, _, _, sum)| sum).collect();
    if sums.iter().any(|sum| sum.absurd_calls > 0) {
        return Ok(());
    }
    let used: u64 = sums.iter().map(|sum| sum.input * PRICE.0 + sum.output * PRICE.1).sum();
    for (id, meter) in state.meters.iter().filter(|(id, _)| id.limit.unit == Unit::Cost) {
        let charged = id.limit.unit.written(meter.debt + meter.window.as_ref().map_or(0, |window| window.settled));
        let expected = format!("{}.{:03}", used / 1000, used % 1000);
        if charged.trim_end_matches('0') != expected.trim_end_matches('0') {
            let text = format!("a budget was charged {charged}, and usage says {expected}");
            return Err(Violation::new("USAGE", text));
        }
    }
    Ok(())
}

/// The meter of a user's tokens.
pub(super) fn is_of(id: &MeterId, user: &str) -> bool {
    (id.limit.unit, id.limit.scope) == (Unit::Total, LimitScope::User) && id.subject == Subject::User(user.to_owned())
}

/// What a call was answered with is what an engine made for it.
fn check_owners(shared: &Shared) -> Result<(), Violation> {
    let answers = shared.answers.borrow();
    for engine in &shared.engines {
        for record in engine.records.borrow().iter() {
            if let Some(call) = answers.get(&record.request_id).filter(|call| **call != record.client_id) {
                let text = format!("call {call} was answered with the answer to {}", record.client_id);
                return Err(Violation::new("OWN", text));
            }
        }
    }
    Ok(())
}

/// A caller who was told how many tokens a call took was told what an engine says of that call.
fn check_told(shared: &Shared) -> Result<(), Violation> {
    for call in shared.calls.borrow().iter() {
        let Some((_, Ended::Answered { tokens: Some(told) })) = call.ended else { continue };
        let made: Vec<u64> = shared.engines.iter().flat_map(|engine| engine.tokens_of(&call.id)).collect();
        if !made.contains(&told) {
            let text = format!("the caller of {} was told of {told} tokens, engines say {made:?}", call.id);
            return Err(Violation::new("USAGE", text));
        }
    }
    Ok(())
}

/// What a killed process noted of a call that had ended is what the call used: only calls that broke off are charged by their reservation.
fn check_estimated(shared: &Shared, state: &View) -> Result<(), Violation> {
    let keys = shared.keys.borrow();
    let mut estimated: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, _, labels, sum) in state.usage.between(Timestamp(0), Timestamp(u64::MAX)) {
        *estimated.entry(&labels.user).or_default() += sum.estimated_calls;
    }
    for call in shared.calls.borrow().iter() {
        if !matches!(call.ended, Some((_, Ended::Answered { .. }))) {
            let user = crate::world::username(keys[call.key].user);
            if let Some(calls) = estimated.get_mut(user.as_str()) {
                *calls = calls.saturating_sub(1);
            }
        }
    }
    match estimated.into_iter().find(|(_, calls)| *calls > 0) {
        Some((user, calls)) => {
            let text =
                format!("{calls} calls of {user} were charged by their reservation, and had been answered whole");
            Err(Violation::new("USAGE", text))
        }
        None => Ok(()),
    }
}

/// By the callers' ids of calls: what was made in all, and by the attempt that came to an end.
fn made(shared: &Shared) -> BTreeMap<String, (u64, u64)> {
    let mut made: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for engine in &shared.engines {
        for record in engine.records.borrow().iter() {
            let tokens = (record.prompt_tokens + record.produced_tokens) as u64;
            let (all, whole) = made.entry(record.client_id.clone()).or_default();
            *all += tokens;
            if record.outcome == Outcome::Finished {
                *whole = (*whole).max(tokens);
            }
        }
    }
    made
}

/// By username.
fn expected(shared: &Shared) -> BTreeMap<String, Expected> {
    let made = made(shared);
    let keys = shared.keys.borrow();
    let mut users: BTreeMap<String, Expected> = BTreeMap::new();
    for call in shared.calls.borrow().iter() {
        let (all, whole) = made.get(&call.id).copied().unwrap_or_default();
        let user = users.entry(crate::world::username(keys[call.key].user)).or_default();
        let is_answered = matches!(call.ended, Some((_, Ended::Answered { .. })));
        user.at_least += if is_answered { whole } else { 0 };
        user.at_most += at_most(call, all);
    }
    users
}

/// What a call can have been charged, for which engines made so much in all.
fn at_most(call: &Call, made: u64) -> u64 {
    made + match call.ended.as_ref().map(|(_, ended)| ended) {
        Some(Ended::Answered { .. } | Ended::Refused(..500)) => 0,
        Some(Ended::HungUp) if call.is_streamed => HUNG_UP_MAX,
        Some(Ended::HungUp | Ended::Refused(_) | Ended::Broken(_)) | None => BROKEN_OFF_MAX,
    }
}

/// What a call can have used.
pub(super) struct Used {
    pub(super) user: String,
    /// It said how long its answer may be.
    pub(super) is_stated: bool,
    pub(super) at_most: u64,
}

/// All calls, in the order in which they began.
pub(super) fn used(shared: &Shared) -> Vec<Used> {
    let (made, keys) = (made(shared), shared.keys.borrow());
    let of_call = |call: &Call| {
        let (all, _) = made.get(&call.id).copied().unwrap_or_default();
        let user = crate::world::username(keys[call.key].user);
        Used { user, is_stated: call.is_stated, at_most: at_most(call, all) }
    };
    shared.calls.borrow().iter().map(of_call).collect()
}
