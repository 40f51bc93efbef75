//! USABLE: where nothing breaks, all of a limit can be used, from any node: what is left of one that is used up is too little for the
//! smallest call that anybody made.

use std::sync::Arc;

use raft::View;
use raft::resources::{LimitScope, Unit};
use raft::state::Subject;

use super::Violation;
use crate::world::{Call, Ended, Shared, username};

/// A limit counts as used up when so many of the smallest calls were refused one after the other, each on some node.
const REFUSED: usize = 5;

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
