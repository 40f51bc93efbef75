//! The state clock: the time that goes into the log. Pure; the leader feeds it what its clocks say.
//!
//! It never goes back. It follows the trusted wall time, which is that of a majority ([`super::WallClocks`]), but while one
//! node leads it runs at most a tenth faster or slower than that node's monotonic clock: no quota window opens early and no
//! key lives long because somebody set the time.
//!
//! A new leadership is based on the trusted wall time once, at once: that is how the time catches up after nobody led for
//! long. Until it knows that time it goes on from what is in the log, at the rate of its monotonic clock.

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
    /// Whether the trusted wall time was known to this leadership at any moment.
    based: bool,
}

impl StateClock {
    /// The stamp of a proposal in `term`, at `now` on the monotonic clock, when a majority's wall clocks say `trusted`
    /// and the last stamp applied here is `applied`.
    ///
    /// `None` if nothing was ever stamped and the time is not known: there is nothing to go on from, and a first stamp by
    /// one wall clock that is ahead could never be taken back. Whoever leads reaches a majority, so it is a matter of moments.
    pub(crate) fn stamp(
        &mut self,
        term: u64,
        now: Duration,
        trusted: Option<Timestamp>,
        applied: Timestamp,
    ) -> Option<Timestamp> {
        let leading = self.leading.as_ref().filter(|leading| leading.term == term);
        let stamp_nanos = match (leading, trusted.map(nanos)) {
            (Some(leading), trusted) if leading.based || trusted.is_none() => leading.go_on(now, trusted),
            (Some(leading), Some(trusted)) => trusted.max(leading.stamp_nanos),
            (None, Some(trusted)) => trusted,
            (_, None) if applied == Timestamp(0) => return None,
            (_, None) => nanos(applied),
        };
        // What an earlier leader stamped may be applied here only after the first stamp of this leadership.
        let stamp_nanos = stamp_nanos.max(nanos(applied));
        let based = trusted.is_some() || leading.is_some_and(|leading| leading.based);
        self.leading = Some(Leadership { term, stamp_nanos, at: now, based });
        Some(Timestamp(stamp_nanos / 1_000_000))
    }
}

impl Leadership {
    /// The stamp at `now`: toward the trusted wall time if it is known, as far as the slew allows.
    fn go_on(&self, now: Duration, trusted_nanos: Option<u64>) -> u64 {
        let elapsed = u64::try_from(now.saturating_sub(self.at).as_nanos()).unwrap_or(u64::MAX);
        let steady = self.stamp_nanos.saturating_add(elapsed);
        let slew = elapsed / SLEW;
        trusted_nanos.map_or(steady, |trusted| trusted.clamp(steady.saturating_sub(slew), steady.saturating_add(slew)))
    }
}

fn nanos(time: Timestamp) -> u64 {
    time.0.saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    /// The trusted wall time is not known.
    const UNKNOWN: u64 = 0;
    /// There is no stamp.
    const NONE: u64 = 0;

    /// Each row: term, monotonic clock, trusted wall time, last stamp applied (all in ms) -> stamp (ms).
    fn check(rows: &[(u64, u64, u64, u64, u64)]) {
        let mut clock = StateClock::default();
        for (row, (term, now, trusted, applied, expected)) in rows.iter().enumerate() {
            let trusted = Some(Timestamp(*trusted)).filter(|trusted| trusted.0 != UNKNOWN);
            let stamp = clock.stamp(*term, Duration::from_millis(*now), trusted, Timestamp(*applied));
            assert_eq!(stamp.map_or(NONE, Timestamp::millis), *expected, "row {row}");
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
    fn a_new_leadership_is_based_on_the_trusted_time_but_not_on_one_that_is_behind_the_log() {
        check(&[(1, 0, 1000, 0, 1000), (2, 10, 50_000, 1000, 50_000), (3, 20, 2000, 50_000, 50_000)]);
    }

    #[test]
    fn without_a_trusted_time_it_goes_on_at_the_monotonic_rate() {
        check(&[
            (1, 0, 1000, 900, 1000),
            (1, 100, UNKNOWN, 1000, 1100),
            (1, 400, 1410, 1100, 1410),
            (2, 500, UNKNOWN, 1410, 1410),
            (2, 600, UNKNOWN, 1410, 1510),
        ]);
    }

    #[test]
    fn after_an_outage_of_all_nodes_it_catches_up_once_when_a_majority_is_known() {
        check(&[
            (7, 50, UNKNOWN, 1000, 1000),
            (7, 150, UNKNOWN, 1000, 1100),
            (7, 250, 3 * HOUR, 1100, 3 * HOUR),
            (7, 350, 9 * HOUR, 3 * HOUR, 3 * HOUR + 110),
        ]);
    }

    #[test]
    fn a_leadership_that_finds_itself_ahead_when_a_majority_is_known_does_not_go_back() {
        check(&[(2, 0, UNKNOWN, 9000, 9000), (2, 100, 1000, 9000, 9000), (2, 200, 1100, 9000, 9090)]);
    }

    #[test]
    fn what_an_earlier_leader_stamped_and_is_applied_late_is_not_fallen_behind() {
        check(&[(2, 0, UNKNOWN, 1000, 1000), (2, 10, UNKNOWN, 5000, 5000), (2, 20, UNKNOWN, 5000, 5010)]);
    }

    #[test]
    fn nothing_is_stamped_before_the_first_trusted_time() {
        check(&[(1, 0, UNKNOWN, 0, NONE), (1, 100, UNKNOWN, 0, NONE), (1, 200, HOUR, 0, HOUR)]);
    }

    #[test]
    fn frequent_proposals_do_not_lose_the_slew_to_rounding() {
        let mut clock = StateClock::default();
        clock.stamp(1, Duration::ZERO, Some(Timestamp(1000)), Timestamp(0));
        let mut last = Timestamp(0);
        for step in 1..=100_000_u64 {
            let now = Duration::from_micros(10 * step);
            last = clock.stamp(1, now, Some(Timestamp(900_000)), last).unwrap();
        }
        assert_eq!(last.0, 1000 + 1100, "a second of proposals every 10 us, against a wall clock that ran ahead");
    }
}
