//! Outlier detection: whether the answers of one replica are worse than those of its peers. Pure; time is an argument.
//!
//! A failure says as much of the call as of the replica: one caller's request that makes vLLM answer 500 does so at every
//! replica, as often as that caller likes. So failures are counted by caller, and a caller has one voice, however many calls it makes:
//! - it *blames* a replica if at least half of its calls there fail, and at other replicas at most half as many do;
//! - it *vouches* for a replica if less than half of its calls there fail;
//! - without any good answer at another replica it says nothing: its calls may fail everywhere.
//!
//! A replica is an outlier if more callers blame it than vouch for it, and at least two do, with three failures together. A
//! connection that breaks is rarely a caller's doing: for those, three failures of one caller are enough.
//!
//! Counts fade, so that what was long ago does not matter.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{CallerId, ReplicaId};

/// Counts halve in so many seconds.
const HALF_LIFE_SECONDS: f64 = 10.0;
/// A count below this is nothing: what one call is after two half-lives.
const COUNT_MIN: f64 = 0.25;
/// Together, faded a little.
const FAILURES_MIN: f64 = 2.5;
/// After so long without one, failures are too faded to matter.
const QUIET_AFTER: Duration = Duration::from_secs(60);
/// Callers of one pool that are told apart; the one that has been silent for longest is forgotten first.
const CALLERS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");

/// How a call ended, as far as it says something of the replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// With an answer.
    Answered,
    /// With an answer that says that the replica failed, or with none in time.
    Failed,
    /// With a connection that broke.
    Lost,
    /// With an answer that says that the engine died.
    EngineDied,
}

/// The counts of one pool.
pub(super) struct Outliers {
    callers: LruCache<CallerId, SmallVec<[Tally; 4]>>,
    /// The last failure.
    failed_at: Option<Instant>,
}

/// One caller's calls at one replica, as they were counted at a moment.
#[derive(Clone, Copy, Debug)]
struct Tally {
    replica: ReplicaId,
    counts: Counts,
    at: Instant,
}

#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    answered: f64,
    failed: f64,
    lost: f64,
}

impl Counts {
    fn all(&self) -> f64 {
        self.answered + self.bad()
    }

    fn bad(&self) -> f64 {
        self.failed + self.lost
    }

    /// The share of bad ends; 0 without any.
    fn rate(&self) -> f64 {
        if self.all() > 0.0 { self.bad() / self.all() } else { 0.0 }
    }

    fn add(&mut self, other: Counts) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.lost += other.lost;
    }
}

impl Tally {
    fn faded(&self, now: Instant) -> Counts {
        let weight = 0.5_f64.powf((now - self.at).as_secs_f64() / HALF_LIFE_SECONDS);
        let Counts { answered, failed, lost } = self.counts;
        Counts { answered: answered * weight, failed: failed * weight, lost: lost * weight }
    }
}

impl Default for Outliers {
    fn default() -> Outliers {
        Outliers { callers: LruCache::new(CALLERS_MAX), failed_at: None }
    }
}

impl Outliers {
    /// Counts a call of `caller` that ended at `replica`.
    pub(super) fn note(&mut self, replica: ReplicaId, caller: CallerId, ending: Ending, now: Instant) {
        let tallies = self.callers.get_or_insert_mut(caller, SmallVec::new);
        let at = tallies.iter().position(|tally| tally.replica == replica).unwrap_or_else(|| {
            tallies.retain(|tally| tally.faded(now).all() >= COUNT_MIN);
            tallies.push(Tally { replica, counts: Counts::default(), at: now });
            tallies.len() - 1
        });
        let tally = &mut tallies[at];
        (tally.counts, tally.at) = (tally.faded(now), now);
        if ending != Ending::Answered {
            self.failed_at = Some(now);
        }
        match ending {
            Ending::Answered => tally.counts.answered += 1.0,
            Ending::Failed | Ending::EngineDied => tally.counts.failed += 1.0,
            Ending::Lost => tally.counts.lost += 1.0,
        }
    }

    /// Why `replica` is an outlier; `None` if it is not.
    pub(super) fn judge(&self, replica: ReplicaId, now: Instant) -> Option<String> {
        let (mut blaming, mut vouching) = (0, 0);
        let mut blamed = Counts::default();
        for tallies in self.callers.iter().map(|(_, tallies)| tallies) {
            match opinion(tallies, replica, now) {
                Opinion::Blames(here) => {
                    blaming += 1;
                    blamed.add(here);
                }
                Opinion::Vouches => vouching += 1,
                Opinion::None => {}
            }
        }
        if blaming <= vouching {
            return None;
        }
        if blamed.lost >= FAILURES_MIN {
            return Some("connections break there, and not at other replicas".to_owned());
        }
        let is_enough = blaming >= 2 && blamed.bad() >= FAILURES_MIN;
        is_enough.then(|| format!("calls of {blaming} callers fail there, and not at other replicas"))
    }

    /// Whether calls of `caller` that fail at `replica` say something of the replica: at other replicas they are answered.
    pub(super) fn is_telling(&self, replica: ReplicaId, caller: CallerId, now: Instant) -> bool {
        let tallies = self.callers.peek(&caller);
        tallies.is_some_and(|tallies| matches!(opinion(tallies, replica, now), Opinion::Blames(_)))
    }

    /// Whether `caller` had better go to another replica: its own calls fail here, three of them, and not there. That spares a lone
    /// caller an ill replica, and concerns nobody else.
    pub(super) fn is_shunned(&self, replica: ReplicaId, caller: CallerId, now: Instant) -> bool {
        let tallies = self.callers.peek(&caller);
        tallies.is_some_and(
            |tallies| matches!(opinion(tallies, replica, now), Opinion::Blames(here) if here.bad() >= FAILURES_MIN),
        )
    }

    /// Whether anything failed lately.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        self.failed_at.is_none_or(|at| now - at > QUIET_AFTER)
    }

    /// Forgets what was counted at `replica`: it gets calls again, and is judged by these.
    pub(super) fn forget(&mut self, replica: ReplicaId) {
        self.callers.iter_mut().for_each(|(_, tallies)| tallies.retain(|tally| tally.replica != replica));
    }
}

/// What one caller's calls say of a replica.
enum Opinion {
    /// It fails; how often.
    Blames(Counts),
    Vouches,
    None,
}

fn opinion(tallies: &[Tally], replica: ReplicaId, now: Instant) -> Opinion {
    let (mut here, mut elsewhere) = (Counts::default(), Counts::default());
    for tally in tallies {
        if tally.replica == replica { &mut here } else { &mut elsewhere }.add(tally.faded(now));
    }
    if here.all() < COUNT_MIN {
        return Opinion::None;
    }
    if here.rate() < 0.5 {
        return Opinion::Vouches;
    }
    let is_worse = elsewhere.answered >= COUNT_MIN && elsewhere.rate() <= here.rate() / 2.0;
    if is_worse { Opinion::Blames(here) } else { Opinion::None }
}

#[cfg(test)]
mod tests;
