//! What time it is by the wall clocks of a majority, so that no node's clock alone moves the state clock.
//!
//! Every node asks every other member what its wall clock says, about once a second and whoever leads, so that a new
//! leader knows at once. An answer is carried on with this node's monotonic clock: setting this node's wall clock changes
//! its own opinion and no other. Trusted is the low median of the opinions of a majority of the voters; of two in the
//! middle it is the earlier, because a clock that is ahead ends quota windows early, and one that is behind does not.
//!
//! How long an answer travelled is ignored: the state clock needs seconds, not milliseconds. Against a majority that is
//! wrong in the same direction there is no help here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::Inner;
use crate::consensus;
use crate::ids::{NodeId, Timestamp};
use crate::peers::message::{Request, Response};

/// Between two rounds of questions: when a majority is known, and before.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(100));
/// How long one question may take.
const ASK_WITHIN: Duration = Duration::from_millis(300);
/// An older answer does not count: whoever gave it may be gone, or its clock set.
const FRESH: Duration = Duration::from_secs(10);

/// Who answers none of a few questions is down or cut off.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// What the other members' wall clocks said last.
#[derive(Debug, Default)]
pub(crate) struct WallClocks {
    heard: Mutex<BTreeMap<NodeId, Heard>>,
}

#[derive(Debug)]
struct Heard {
    wall: Timestamp,
    at: Instant,
}

impl WallClocks {
    /// `node` says at `now` that it is `wall`.
    fn hear(&self, node: NodeId, wall: Timestamp, now: Instant) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|_, heard| heard.is_fresh(now));
        heard.insert(node, Heard { wall, at: now });
    }

    /// Whether `node` has said nothing for a while at `now`, on a node that has asked since `started`.
    pub(super) fn is_silent(&self, node: NodeId, started: Instant, now: Instant) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let last = heard.get(&node).map_or(started, |heard| heard.at);
        now.saturating_duration_since(last) > SILENT_AFTER
    }

    /// What time it is at `now` for a majority of `voters`, when this is `node` and its own wall clock says `wall`.
    /// `None` if too few are known.
    pub(crate) fn trusted(
        &self,
        node: NodeId,
        wall: Timestamp,
        voters: &BTreeSet<NodeId>,
        now: Instant,
    ) -> Option<Timestamp> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let opinion = |voter: &NodeId| match heard.get(voter) {
            _ if *voter == node => Some(wall),
            Some(heard) if heard.is_fresh(now) => Some(heard.wall.plus(now.saturating_duration_since(heard.at))),
            _ => None,
        };
        low_median_of_majority(voters.iter().filter_map(opinion).collect(), voters.len())
    }
}

impl Heard {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) <= FRESH
    }
}

/// The low median of `opinions`, if they are those of more than half of `voters`.
fn low_median_of_majority(mut opinions: Vec<Timestamp>, voters: usize) -> Option<Timestamp> {
    if opinions.len() * 2 <= voters {
        return None;
    }
    opinions.sort_unstable();
    opinions.get((opinions.len() - 1) / 2).copied()
}

/// Asks the other members for as long as this node lives. It has two other goods: every node greets every other soon after
/// both are up, so that each knows the other's disk before it matters; and one that was taken out while it was away is told.
pub(super) async fn compare(inner: Weak<Inner>) {
    while let Some(inner) = inner.upgrade() {
        let members = consensus::standing(inner.member.raft()).members;
        let others = members.iter().filter(|(node, _)| **node != inner.node);
        join_all(others.map(|(node, address)| inner.ask_wall(*node, address))).await;
        let pause = if inner.member.trusted_wall().is_some() { ASK_AGAIN.0 } else { ASK_AGAIN.1 };
        drop(inner);
        sleep(pause).await;
    }
}

impl Inner {
    async fn ask_wall(&self, node: NodeId, address: &str) {
        match self.peers.call(node, address, Request::WallTime, ASK_WITHIN).await {
            Ok(Response::WallTime(wall)) => self.member.walls().hear(node, wall, Instant::now()),
            Ok(Response::Retired) => self.is_told_retired.store(true, Ordering::Release),
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_majority_is_trusted_and_never_that_of_one_clock_that_is_ahead() {
        let table: &[(&str, usize, &[u64], Option<u64>)] = &[
            ("alone in its cluster", 1, &[500], Some(500)),
            ("no cluster yet", 0, &[], None),
            ("one of two", 2, &[500], None),
            ("one of three", 3, &[500], None),
            ("two of three: the earlier", 3, &[9000, 500], Some(500)),
            ("all of three, one ahead", 3, &[501, 9000, 500], Some(501)),
            ("all of three, one behind", 3, &[1, 501, 500], Some(500)),
            ("two of four are no majority", 4, &[500, 501], None),
            ("all of four: the earlier of the middle", 4, &[500, 502, 501, 9000], Some(501)),
            ("three of five, two of them wrong each way", 5, &[9000, 500, 1], Some(500)),
        ];
        for (case, voters, opinions, expected) in table {
            let opinions = opinions.iter().copied().map(Timestamp).collect();
            assert_eq!(low_median_of_majority(opinions, *voters).map(Timestamp::millis), *expected, "{case}");
        }
    }

    #[test]
    fn what_was_heard_goes_on_with_the_monotonic_clock_until_it_is_too_old() {
        let walls = WallClocks::default();
        let began = Instant::now();
        let voters = BTreeSet::from([1, 2, 3].map(NodeId));
        let trusted =
            |wall, after| walls.trusted(NodeId(1), Timestamp(wall), &voters, began + after).map(Timestamp::millis);
        walls.hear(NodeId(2), Timestamp(50_000), began);
        walls.hear(NodeId(9), Timestamp(50_000), began);
        let is_silent = |node, after| walls.is_silent(NodeId(node), began, began + after);
        assert_eq!([2, 3].map(|node| is_silent(node, SILENT_AFTER)), [false, false]);
        assert_eq!([2, 3].map(|node| is_silent(node, SILENT_AFTER + Duration::from_millis(1))), [true, true]);
        assert_eq!(trusted(90_000_000, Duration::from_secs(4)), Some(54_000), "our own clock was set in between");
        assert_eq!(trusted(60_000, FRESH), Some(60_000));
        assert_eq!(
            trusted(60_001, FRESH + Duration::from_millis(1)),
            None,
            "nobody heard lately but node 9 is no voter"
        );
        walls.hear(NodeId(3), Timestamp(61_000), began + Duration::from_secs(11));
        assert_eq!(trusted(61_005, Duration::from_secs(11)), Some(61_000), "heard again, from another");
    }
}
