//! The state clock: the time that goes into the log. Pure; the leader feeds it what its clocks say.
//!
//! It never goes back. While one node leads it follows wall time, but runs at most a tenth faster or slower than
//! the leader's monotonic clock: a wall clock that jumps moves it by no more than that, so no quota window opens
//! early and no key lives long because somebody set the time.

use std::time::Duration;

use crate::ids::Timestamp;

/// A tenth: how far from the monotonic clock's rate it may run.
const SLEW: u64 = 10;

/// The state clock of one node, used while it leads.
#[derive(Debug, Default)]
pub(crate) struct StateClock {
    leading: Option<Leadership>,
}

#[derive(Debug)]
struct Leadership {
    term: u64,
    /// The last stamp, in nanoseconds since the epoch: proposals come faster than milliseconds.
    stamp_nanos: u64,
    /// When it was made, on the monotonic clock.
    at: Duration,
}

impl StateClock {
    /// The stamp of a proposal in `term`, at `now` on the monotonic clock, when the wall clock says `wall` and the
    /// last stamp applied here is `applied`.
    pub(crate) fn stamp(&mut self, term: u64, now: Duration, wall: Timestamp, applied: Timestamp) -> Timestamp {
        let wall_nanos = nanos(wall);
        let stamp_nanos = match &self.leading {
            Some(leading) if leading.term == term => {
                let elapsed = u64::try_from(now.saturating_sub(leading.at).as_nanos()).unwrap_or(u64::MAX);
                let slowest = leading.stamp_nanos.saturating_add(elapsed - elapsed / SLEW);
                let fastest = leading.stamp_nanos.saturating_add(elapsed).saturating_add(elapsed / SLEW);
                wall_nanos.clamp(slowest, fastest)
            }
            // A new leadership takes wall time as it is, or goes on from where the last one was if that is later.
            _ => wall_nanos.max(nanos(applied)),
        };
        self.leading = Some(Leadership { term, stamp_nanos, at: now });
        Timestamp(stamp_nanos / 1_000_000).max(applied)
    }
}

fn nanos(time: Timestamp) -> u64 {
    time.0.saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row: term, monotonic clock, wall clock, last stamp applied (all in ms) -> stamp (ms).
    fn check(rows: &[(u64, u64, u64, u64, u64)]) {
        let mut clock = StateClock::default();
        for (row, (term, now, wall, applied, expected)) in rows.iter().enumerate() {
            let stamp = clock.stamp(*term, Duration::from_millis(*now), Timestamp(*wall), Timestamp(*applied));
            assert_eq!(stamp.0, *expected, "row {row}");
        }
    }

    #[test]
    fn follows_a_steady_wall_clock() {
        check(&[(1, 0, 1000, 0, 1000), (1, 10, 1010, 1000, 1010), (1, 500, 1500, 1010, 1500)]);
    }

    #[test]
    fn a_jump_ahead_is_followed_at_a_tenth_faster() {
        check(&[(1, 0, 1000, 0, 1000), (1, 100, 90_000, 1000, 1110), (1, 1100, 91_000, 1110, 2210)]);
    }

    #[test]
    fn a_jump_back_slows_it_by_a_tenth_and_never_turns_it_around() {
        check(&[(1, 0, 90_000, 0, 90_000), (1, 100, 1000, 90_000, 90_090), (1, 1100, 2000, 90_090, 90_990)]);
    }

    #[test]
    fn a_new_leadership_takes_its_own_wall_clock_but_not_one_that_is_behind_the_log() {
        check(&[(1, 0, 1000, 0, 1000), (2, 10, 50_000, 1000, 50_000), (3, 20, 2000, 50_000, 50_000)]);
    }

    #[test]
    fn frequent_proposals_do_not_lose_the_slew_to_rounding() {
        let mut clock = StateClock::default();
        clock.stamp(1, Duration::ZERO, Timestamp(1000), Timestamp(0));
        let mut last = Timestamp(0);
        for step in 1..=100_000_u64 {
            last = clock.stamp(1, Duration::from_micros(10 * step), Timestamp(900_000), last);
        }
        assert_eq!(last.0, 1000 + 1100, "a second of proposals every 10 us, against a wall clock that ran ahead");
    }
}
