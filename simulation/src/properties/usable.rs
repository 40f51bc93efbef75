//! USABLE: where nothing breaks, all of a limit can be used, from any node. What is left of one that is used up is too little for the
//! smallest call that anybody made; and a call that is its user's only one is not refused as long as anything is left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use raft::View;
use raft::resources::{LimitScope, Unit};
use raft::state::Subject;

use super::Violation;
use crate::trace;
use crate::world::{Call, Ended, Observation, Shared, username};

/// A limit counts as used up when so many of the smallest calls were refused one after the other, each on some node.
const REFUSED: usize = 5;

/// A call that has ended may be at work on its node for so long: an answer that is read to its end, or a caller's leaving, has to get there.
const FADES: Duration = Duration::from_millis(100);

/// By user: since when something is left of the limit, or nothing.
#[derive(Default)]
pub(super) struct Rests {
    /// The newest state that was looked at.
    applied: u64,
    users: BTreeMap<String, Vec<(Duration, bool)>>,
}

impl Rests {
    pub(super) fn note(&mut self, seen: &Observation) {
        if seen.view.applied <= self.applied {
            return;
        }
        self.applied = seen.view.applied;
        for id in seen.view.meters.keys() {
            let (Subject::User(user), Unit::Total, LimitScope::User) = (&id.subject, id.limit.unit, id.limit.scope)
            else {
                continue;
            };
            let Some(reading) = seen.view.reading(id, seen.view.time) else { continue };
            let (is_left, known) = (reading.used < reading.limit, self.users.entry(user.clone()).or_default());
            if known.last().is_none_or(|(_, was_left)| *was_left != is_left) {
                known.push((trace::now(), is_left));
            }
        }
    }

    /// Whether something was left for the whole of a time.
    fn is_left(&self, user: &str, from: Duration, to: Duration) -> bool {
        let known = self.users.get(user).map_or(&[][..], Vec::as_slice);
        let before = known.iter().rev().find(|(since, _)| *since <= from).is_none_or(|(_, is_left)| *is_left);
        before && known.iter().filter(|(since, _)| *since > from && *since <= to).all(|(_, is_left)| *is_left)
    }

    pub(super) fn check(&self, shared: &Shared) -> Result<(), Violation> {
        let plan = &shared.plan;
        // With other limits there is another reason to be refused; a hard one wants room for the whole call.
        if !plan.faults.is_empty() || plan.has_many_limits || plan.is_hard {
            return Ok(());
        }
        let (calls, keys) = (shared.calls.borrow(), shared.keys.borrow());
        for call in calls.iter() {
            let Some((ended, Ended::Refused(429))) = call.ended else { continue };
            let user = keys[call.key].user;
            let is_other = |other: &&Call| keys[other.key].user == user && other.id != call.id;
            let meets = |other: &Call| {
                let left = other.ended.as_ref().is_none_or(|(left, _)| *left + FADES > call.began);
                left && other.began < ended
            };
            let (user, is_alone) = (username(user), !calls.iter().filter(is_other).any(meets));
            if is_alone && self.is_left(&user, call.began, ended + FADES) {
                let text = format!("{} was {user}'s only call, something was left, and it was refused", call.id);
                return Err(Violation::new("USABLE", text));
            }
        }
        Ok(())
    }
}

/// A limit that was used up.
pub(crate) struct UsedUp {
    user: String,
    limit: u64,
    left: u64,
    /// What the smallest call took.
    smallest: u64,
}

/// Those limits of users that were used up by the end of the run.
pub(crate) fn used_up(shared: &Shared, state: &View) -> Vec<UsedUp> {
    let plan = &shared.plan;
    // With other limits there is another reason to be refused, and what is left of a window that has ended nobody knows.
    if !plan.is_skewed || !plan.faults.is_empty() || plan.has_many_limits || !plan.is_one_window() {
        return Vec::new();
    }
    let (calls, keys) = (shared.calls.borrow(), shared.keys.borrow());
    let of_user = |user: usize| {
        let is_limited = |call: &&Call| matches!(call.ended, Some((_, Ended::Refused(429))));
        let is_theirs = |call: &&Call| call.is_smallest && keys[call.key].user == user;
        let is_told = |call: &&Call| is_limited(call) || matches!(call.ended, Some((_, Ended::Answered { .. })));
        let theirs: Vec<&Call> = calls.iter().filter(is_theirs).filter(is_told).collect();
        let taken = |call: &&Call| match call.ended {
            Some((_, Ended::Answered { tokens })) => tokens,
            _ => None,
        };
        let smallest = theirs.iter().filter_map(taken).max()?;
        let is_used_up = theirs.len() >= REFUSED && theirs[theirs.len() - REFUSED..].iter().all(is_limited);
        let user = username(user);
        let is_of = |subject: &Subject| matches!(subject, Subject::User(name) if *name == user);
        let meter = state
            .meters
            .iter()
            .find(|(id, _)| (id.limit.unit, id.limit.scope) == (Unit::Total, LimitScope::User) && is_of(&id.subject));
        let settled = meter.and_then(|(_, meter)| meter.window.as_ref()).map_or(0, |window| window.settled);
        let left = plan.limit.saturating_sub(settled);
        is_used_up.then_some(UsedUp { user, limit: plan.limit, left, smallest })
    };
    (1..=plan.users).filter_map(of_user).collect()
}

pub(super) fn check(shared: &Shared, state: Option<Arc<View>>) -> Result<(), Violation> {
    let Some(state) = state else { return Ok(()) };
    match used_up(shared, &state).into_iter().find(|used_up| used_up.left >= used_up.smallest) {
        Some(UsedUp { user, limit, left, smallest }) => {
            let text = format!("{left} of {limit} tokens of {user} are left, and calls of {smallest} are refused");
            Err(Violation::new("USABLE", text))
        }
        None => Ok(()),
    }
}
