use super::*;

fn reading((free, held, available, others): (u64, u64, u64, u64)) -> Reading {
    Reading { free, held, available, others, ..Reading::default() }
}

#[test]
fn a_need_is_met_from_the_nearest_place_that_has_enough() {
    use Prospect::{Acquire, Held, Ready, Spent};
    let table = [
        // Need, (free here, held here, available, others), prospect, worth recalling.
        (10, (10, 0, 0, 0), Ready, false),
        (10, (9, 0, 1, 0), Acquire, false),
        (10, (0, 0, 100, 50), Acquire, true),
        (10, (9, 1, 0, 0), Held, false),
        (10, (0, 0, 0, 10), Held, true),
        (10, (1, 2, 3, 4), Held, false),
        (10, (1, 2, 3, 6), Held, true),
        (10, (1, 2, 3, 3), Spent, false),
        (10, (0, 0, 9, 0), Spent, false),
    ];
    for (need, parts, prospect, is_worth_recalling) in table {
        let reading = reading(parts);
        assert_eq!(reading.prospect(need), prospect, "{need} {parts:?}");
        assert_eq!(reading.is_worth_recalling(need), is_worth_recalling, "{need} {parts:?}");
    }
}

#[test]
fn a_need_that_nobody_competes_with_is_met_from_the_rest_of_a_limit() {
    use Prospect::{Acquire, Held, Ready, Rest, Spent};
    let table = [
        // (free here, held here, available, others), whether no call of this node holds anything, prospect of 10, worth recalling.
        ((10, 0, 0, 0), true, Ready, false),
        ((4, 0, 20, 0), true, Acquire, false),
        ((4, 0, 1, 0), true, Acquire, false),
        ((4, 0, 0, 0), true, Rest, false),
        ((0, 0, 0, 0), true, Spent, false),
        // Others may give back, and what is on its way back may be acquired again.
        ((4, 0, 1, 1), true, Held, true),
        ((4, 0, 0, 1), true, Held, true),
        ((4, 1, 0, 0), true, Held, false),
        // A call of this node is in progress: when it has ended, there is no rival any more.
        ((0, 1, 0, 0), false, Held, false),
        ((0, 1, 0, 1), false, Held, false),
        ((0, 1, 5, 5), false, Held, true),
    ];
    for (parts, is_alone, prospect, is_worth_recalling) in table {
        let reading = Reading { gives_rest: true, is_alone, ..reading(parts) };
        assert_eq!(reading.prospect(10), prospect, "{parts:?} {is_alone}");
        assert_eq!(reading.is_worth_recalling(10), is_worth_recalling, "{parts:?} {is_alone}");
        let strict = Reading { gives_rest: false, ..reading };
        assert!(strict.prospect(10) != Rest && !strict.takes_rest(), "{parts:?}");
    }
}

#[test]
fn top_ups_reach_two_seconds_and_stop_when_little_is_left() {
    let acquire = |need, extra| Some(Acquire { need, extra, alone: false });
    let table = [
        // Rate, free, available, sharers, acquire.
        (0.0, 0, 1000, 1, None),
        (100.0, 100, 1000, 1, None),
        (100.0, 99, 1000, 1, acquire(1, 100)),
        (100.0, 0, 1000, 3, acquire(1, 199)),
        (100.0, 0, 0, 1, None),
        // A sixth of what is left is less than an eighth of what is wanted.
        (100.0, 0, 120, 3, None),
        (100.0, 0, 150, 3, acquire(1, 199)),
    ];
    for (rate, free, available, sharers, answer) in table {
        let top_up = reading((free, 0, available, 0)).top_up(rate, sharers);
        assert_eq!(top_up, answer, "{rate} {free} {available} {sharers}");
    }
}

#[test]
fn what_was_not_touched_goes_back_but_for_what_the_rate_needs() {
    for (lowest, rate, answer) in [(100, 0.0, 100), (100, 10.0, 80), (10, 10.0, 0)] {
        assert_eq!(surplus(lowest, rate), answer, "{lowest} {rate}");
    }
    for (free, rate, answer) in [(1000, 100.0, 100), (100, 100.0, 50), (0, 100.0, 0), (100, 0.0, 0)] {
        assert_eq!(low_water(free, rate), answer, "{free} {rate}");
    }
}

#[test]
fn the_rate_follows_what_is_taken() {
    let second = Duration::from_secs(1);
    let quarter = Duration::from_millis(250);
    let mut rate = 0.0;
    for _ in 0..20 {
        rate = next_rate(rate, 25, quarter);
    }
    assert!((99.0..=100.0).contains(&rate), "{rate}");
    assert!(next_rate(rate, 0, second) < 40.0);
    assert_eq!(next_rate(rate, 5, Duration::ZERO), rate);
    // Equal times say the same in one interval or in four.
    let in_four = (0..4).fold(10.0, |rate, _| next_rate(rate, 10, quarter));
    assert!((in_four - next_rate(10.0, 40, second)).abs() < 1e-9);
}

/// Waiting calls, available of each limit (the second has 10 free), served, needs.
type Case<'a> = (&'a [u64], [u64; 2], usize, [u64; 2]);

#[test]
fn as_many_calls_are_acquired_for_as_every_limit_can_serve() {
    let limits = |available: [u64; 2]| [reading((0, 0, available[0], 0)), reading((10, 0, available[1], 0))];
    let table: &[Case<'_>] = &[
        (&[20, 20, 20], [1000, 40], 2, [40, 40]),
        (&[20, 20, 20], [30, 1000], 1, [20, 20]),
        (&[20], [0, 0], 1, [20, 20]),
        // A call larger than a limit takes the whole limit.
        (&[200, 1], [1000, 40], 1, [200, 50]),
    ];
    for (waiting, available, count, needs) in table {
        // What a call needs of limits of 1000 and of 50.
        let needs_of = |call: &u64| vec![(*call).min(1000), (*call).min(50)];
        let answer = servable(waiting.iter().map(needs_of), &limits(*available));
        assert_eq!(answer, (*count, needs.to_vec()), "{waiting:?} {available:?}");
    }
}
