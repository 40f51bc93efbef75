//! CLOCK: the state clock is never ahead of all wall clocks but one. It follows a majority, so one that is set ahead moves nothing.

use std::time::Duration;

use raft::doors::Clock;

use super::Violation;
use crate::trace;
use crate::world::{Observation, Shared};

/// What a node knows of the others' clocks is as wrong as the messages that told it were slow.
const TOLERANCE_MILLIS: u64 = 2_000;

/// The most that the second fastest wall clock has ever said, going on from there: the state clock never goes back.
#[derive(Default)]
pub(super) struct Clocks {
    furthest: u64,
    at: Duration,
}

impl Clocks {
    pub(super) fn check(&mut self, shared: &Shared, seen: &Observation) -> Result<(), Violation> {
        let existing = shared.nodes.iter().filter(|slot| slot.exists.get());
        let mut walls: Vec<u64> = existing.map(|slot| slot.clock.wall().0).collect();
        walls.sort_unstable();
        let second = walls.len().checked_sub(2).map_or(0, |at| walls[at]);
        let now = trace::now();
        let gone_on = self.furthest + (now - self.at).as_millis() as u64;
        (self.furthest, self.at) = (gone_on.max(second), now);
        let time = seen.view.time.0;
        if time <= self.furthest + TOLERANCE_MILLIS {
            return Ok(());
        }
        let text = format!(
            "on node {} it is {time} ms, and no two wall clocks ever said more than {} ms",
            seen.node, self.furthest
        );
        Err(Violation::new("CLOCK", text))
    }
}
