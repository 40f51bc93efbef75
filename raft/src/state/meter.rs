//! The ledger: what was spent of each limit, what nodes hold of it, what is owed.
//!
//! The invariant, after every command, for every meter in its open window:
//! `settled + orphaned + sum(granted) <= max(limit - debt carried in, what was granted before the limit was lowered)`.
//! A node spends only what it was granted, so the cluster never admits beyond the limit; no clock takes part in the argument.
//!
//! Here is what a meter is and how time passes for it; [`batch`] has what nodes do to it.

mod batch;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::State;
use crate::ids::{NodeId, Timestamp};
use crate::resources::{LimitKind, LimitScope, Unit};

/// Names a meter: one limit of one subscription on one model, and who is counted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MeterId {
    /// The MaaSSubscription's namespace and name.
    pub subscription: (String, String),
    /// The MaaSModelRef's namespace and name.
    pub model: (String, String),
    /// Which of the subscription's limits on that model.
    pub limit: LimitKind,
    /// Who is counted.
    pub subject: Subject,
}

/// Who is counted by a meter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Subject {
    /// A user.
    User(String),
    /// An API key, by its id.
    Key(Uuid),
    /// Whoever uses the subscription.
    Everybody,
}

impl Subject {
    /// None comes before it.
    pub(crate) const FIRST: Subject = Subject::User(String::new());

    /// Whom a limit of this scope counts when `user` calls with `key`. Who shows no key is counted like a key of that user.
    pub fn of(scope: LimitScope, user: &str, key: Option<Uuid>) -> Subject {
        match (scope, key) {
            (LimitScope::Subscription, _) => Subject::Everybody,
            (LimitScope::Key, Some(id)) => Subject::Key(id),
            (LimitScope::Key, None) | (LimitScope::User, _) => Subject::User(user.to_owned()),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::User(name) => f.write_str(name),
            Subject::Key(id) => write!(f, "key {id}"),
            Subject::Everybody => f.write_str("everybody"),
        }
    }
}

impl MeterId {
    /// Whether what a call takes of it comes back when the call ends: nothing is ever spent, and the end of a node ends what its calls hold.
    pub fn is_in_progress(&self) -> bool {
        self.limit.unit == Unit::InProgress
    }
}

/// One meter.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Meter {
    /// The current window; `None` before the first acquire and after one ended.
    pub window: Option<MeterWindow>,
    /// Tokens used beyond what was free; the next window starts with so much less.
    pub debt: u64,
    /// While no window is open: since when nothing was used. Every whole window that passes without use pays one limit of the debt,
    /// as an empty window would have done.
    pub idle_since: Timestamp,
}

/// A fixed window: opened by the first acquire, closed when the state clock reaches its end.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MeterWindow {
    /// Its number: the log index that opened it.
    pub number: u64,
    /// When it ends, by the state clock.
    pub ends: Timestamp,
    /// Tokens charged in it, debt carried in included.
    pub settled: u64,
    /// Tokens that nodes hold and may still spend.
    pub granted: OrdMap<NodeId, u64>,
    /// Tokens granted to incarnations that are gone, or to nodes that were taken out: neither spent nor free until the window ends,
    /// or until the node says what became of them.
    pub orphaned: OrdMap<NodeId, u64>,
    /// What nodes wanted and other nodes hold: the mark that asks everybody to give back what is not in use.
    pub wanted: OrdMap<NodeId, u64>,
}

/// Where a meter stands, for headers and refusals. All in the limit's unit, like everything here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MeterReading {
    /// The limit.
    pub limit: u64,
    /// Charged in the current window, or owed if none is open.
    pub used: u64,
    /// Held by nodes: in use by calls in progress, in their local allowances, or orphaned.
    pub held: u64,
    /// `limit - used - held`.
    pub free: u64,
    /// Owed beyond this window.
    pub debt: u64,
    /// When the window ends, by the state clock; `None` if none is open.
    pub ends: Option<Timestamp>,
}

impl MeterWindow {
    /// What may still be granted under `limit`.
    pub fn free(&self, limit: u64) -> u64 {
        limit.saturating_sub(self.settled).saturating_sub(self.held())
    }

    /// Tokens that nodes hold, spent or not.
    pub fn outstanding(&self) -> u64 {
        sum(&self.granted)
    }

    fn is_unused(&self) -> bool {
        self.settled == 0 && self.granted.is_empty() && self.orphaned.is_empty() && self.wanted.is_empty()
    }

    /// Tokens that are neither settled nor free: outstanding and orphaned.
    pub fn held(&self) -> u64 {
        self.outstanding().saturating_add(sum(&self.orphaned))
    }
}

fn sum(amounts: &OrdMap<NodeId, u64>) -> u64 {
    amounts.values().fold(0, |sum, amount| sum.saturating_add(*amount))
}

impl Meter {
    /// Where it stands under `limit`.
    pub(super) fn reading(&self, limit: u64) -> MeterReading {
        match &self.window {
            Some(window) => MeterReading {
                limit,
                used: window.settled,
                held: window.held(),
                free: window.free(limit),
                debt: self.debt,
                ends: Some(window.ends),
            },
            None => {
                let used = self.debt.min(limit);
                MeterReading { limit, used, held: 0, free: limit - used, debt: self.debt - used, ends: None }
            }
        }
    }

    /// Closes a window that has ended by `time`, and lets idle time pay debt. Without a limit one idle window pays everything:
    /// nobody is left to collect it. How often this is called changes nothing as long as the limit stays the same.
    pub(super) fn pass_time(&mut self, id: &MeterId, time: Timestamp, limit: Option<u64>) {
        if let Some(window) = self.window.take_if(|window| window.ends <= time) {
            self.idle_since = window.ends;
        }
        if self.window.is_some() || self.debt == 0 {
            return;
        }
        let length = id.limit.window().as_millis();
        let passed = u64::try_from(time.since(self.idle_since).as_millis() / length).unwrap_or(u64::MAX);
        if passed > 0 {
            self.debt = self.debt.saturating_sub(limit.map_or(u64::MAX, |limit| limit.saturating_mul(passed)));
            let paid = u64::try_from(length).unwrap_or(u64::MAX).saturating_mul(passed);
            self.idle_since = self.idle_since.plus(Duration::from_millis(paid));
        }
    }

    /// Whether it says no more than a meter that does not exist.
    fn is_blank(&self) -> bool {
        self.window.is_none() && self.debt == 0
    }

    /// When time will change it next.
    fn due(&self, id: &MeterId) -> Timestamp {
        match &self.window {
            Some(window) => window.ends,
            None => self.idle_since.plus(id.limit.window()),
        }
    }

    fn is_recalled(&self) -> bool {
        self.window.as_ref().is_some_and(|window| !window.wanted.is_empty())
    }
}

impl State {
    /// Stores a meter, or forgets it if it is blank, and keeps what is derived in step.
    pub(super) fn put_meter(&mut self, id: &MeterId, mut meter: Meter) {
        // Where nothing is ever spent, a window that nobody uses says nothing, and would never end.
        meter.window.take_if(|window| id.is_in_progress() && window.is_unused());
        if self.is_forgotten(&id.subject) && meter.window.as_ref().is_none_or(|window| window.held() == 0) {
            meter = Meter::default();
        }
        let due = (!meter.is_blank()).then(|| meter.due(id));
        let due_before = self.meters.get(id).map(|before| before.due(id));
        if due != due_before {
            if let Some(time) = due_before {
                self.meters_due.remove(&(time, id.clone()));
            }
            if let Some(time) = due {
                self.meters_due.insert((time, id.clone()));
            }
        }
        if meter.is_recalled() {
            self.recalled.insert(id.clone());
        } else {
            self.recalled.remove(id);
        }
        match due {
            Some(_) => self.meters.insert(id.clone(), Arc::new(meter)),
            None => self.meters.remove(id),
        };
    }

    /// Whether it is a key that is not there any more, so that nothing is granted to it again.
    pub(super) fn is_forgotten(&self, subject: &Subject) -> bool {
        matches!(subject, Subject::Key(id) if !self.keys.contains_key(id))
    }

    /// Looks at up to `max` meters whose time has come. Whether a meter was swept or not makes no difference to anybody who uses it:
    /// this only keeps the map from growing.
    fn sweep_meters(&mut self, max: usize) {
        for _ in 0..max {
            let Some((due, id)) = self.meters_due.get_min().cloned() else { return };
            if self.time < due {
                return;
            }
            let limit = self.limit_of(&id);
            let mut meter = self.meters.get(&id).map(|meter| Meter::clone(meter)).unwrap_or_default();
            meter.pass_time(&id, self.time, limit);
            self.put_meter(&id, meter);
        }
    }
}
