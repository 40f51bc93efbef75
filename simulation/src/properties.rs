//! What must hold, whatever breaks. One sentence, one file; the id is what a failure names. OWN and STREAM are judged where answers are
//! read (`world/user.rs`), REVOKED also where those who left try again (`world/leavers.rs`), PANIC where the world takes a step, IDLE where a scenario ends.
//!
//! | id | holds when |
//! |---|---|
//! | LEADER | whoever leads in a term is replaced within it only by a node with a higher number, and no node forgets a term |
//! | LIVES | every start of a node counts as a later incarnation than those before it |
//! | VIEW | what a node knows never goes back while it lives |
//! | CLOCK | the state clock is never ahead of all wall clocks but one |
//! | SAME | two nodes that applied equally many entries have equal states |
//! | LOG | an applied entry is the same on every node, for ever |
//! | QUOTA | no meter admits beyond its limit in any window, hard ones owe nothing, and windows do not overlap |
//! | USABLE | where nothing breaks, all of a limit can be used, from any node, and a call that is the only one is not refused while any of it is left |
//! | DEBT | debt is carried, paid and never lost, and no more is owed than calls used that were not held as a whole |
//! | FAIR | one user's poison costs no other user a call, and an engine that hangs gets no new calls once that can be known |
//! | USAGE | what engines produced is in the ledger, and no more; usage adds up to what was charged |
//! | BOOK | a node's local allowance never has more than the ledger granted to that node |
//! | ENDS | every reservation ends exactly once |
//! | GROWTH | when nobody calls any more, a node has no more tasks, connections and log than a fixed bound |
//! | REVOKED | a key is never admitted after its revocation returned, nor a key or token after its end was answered (its account, its owner's place in a Group, the Group, the token), nor anybody by a node that was taken out |
//! | KEYS | no user gets more working keys than one may have, whichever nodes are asked; ended keys are kept for their time unless newer ones take their place; none that was revoked or forgotten comes back |
//! | LINEAR | administrators see one history |
//! | OWN | no call is answered with the answer to another |
//! | STREAM | streams arrive in order and complete, or with an error, and nothing follows their end |
//! | LIVE | when nothing breaks any more, calls are served, what was held is settled, and every node knows the same |
//! | PANIC | no task of a host panics, no actor either |
//! | IDLE | a scenario's faults take place |

mod book;
mod clock;
mod debt;
mod ends;
mod fair;
mod growth;
mod keys;
mod leader;
mod linear;
mod live;
mod lives;
mod log;
mod quota;
mod revoked;
mod same;
mod usable;
mod usage;
mod view;

use std::fmt;

use crate::world::{Observation, Shared};

/// A property that does not hold.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// Which.
    pub(crate) id: &'static str,
    text: String,
}

impl Violation {
    pub(crate) fn new(id: &'static str, text: String) -> Violation {
        Violation { id, text }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.text)
    }
}

/// All of them, and what they remember.
#[derive(Default)]
pub(crate) struct Properties {
    leader: leader::Leaders,
    lives: lives::Lives,
    view: view::Views,
    clock: clock::Clocks,
    same: same::States,
    log: log::Entries,
    quota: quota::Windows,
    keys: keys::Keys,
    debt: debt::Debts,
    usable: usable::Rests,
    live: live::Liveness,
}

impl Properties {
    /// Looks at what a node said of itself.
    pub(crate) fn observe(&mut self, shared: &Shared, seen: Observation) {
        let checks = [
            self.leader.check(shared, &seen),
            self.lives.check(&seen),
            self.view.check(&seen),
            self.clock.check(shared, &seen),
            self.same.check(&seen),
            self.log.check(shared, &seen),
            self.quota.check(shared, &seen),
            self.keys.check(shared, &seen),
            self.debt.check(&seen),
            ends::check(&seen),
            book::check(&seen),
        ];
        for violation in checks.into_iter().filter_map(Result::err) {
            shared.violate(violation);
        }
        self.usable.note(&seen);
        self.live.note(seen);
    }

    /// What is not as it should be once everything has come to rest; `None` when all is.
    pub(crate) fn unsettled(&mut self, shared: &Shared) -> Option<Violation> {
        self.live.check(shared).err()
    }

    /// Looks at the whole run.
    pub(crate) fn at_end(&self, shared: &Shared) {
        let checks = [
            live::served(shared),
            fair::check(shared),
            revoked::check(shared),
            linear::check(shared, self.live.state()),
            usage::check(shared, self.live.state()),
            usable::check(shared, self.live.state()),
            self.usable.check(shared),
            debt::check(shared, self.live.state()),
        ];
        for violation in checks.into_iter().filter_map(Result::err) {
            shared.violate(violation);
        }
    }

    /// How often a node went past log entries that it never had.
    pub(crate) fn jumps(&self) -> u64 {
        self.log.jumps()
    }

    /// How many limits were used up in a run in which all of a limit can be used.
    pub(crate) fn used_up(&self, shared: &Shared) -> usize {
        self.live.state().map_or(0, |state| usable::used_up(shared, &state).len())
    }

    /// How many terms somebody led.
    pub(crate) fn terms(&self) -> u64 {
        self.leader.terms()
    }
}
