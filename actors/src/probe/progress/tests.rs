use super::*;

/// Each line: seconds, the engine's counters, whether it says that it has calls, whether a call waits for it, pieces of streams and
/// answers so far; and what that shows.
type Line = (u64, f64, bool, bool, u64, u64, Motion);

fn check(case: &str, story: &[Line]) {
    let start = Instant::now();
    let mut progress = Progress::default();
    for &(second, work, has_calls, awaiting, pieces, answers, motion) in story {
        let look = Look { work, has_calls, seen: Seen { awaiting, pieces, answers } };
        assert_eq!(progress.note(look, start + Duration::from_secs(second)), motion, "{case}, second {second}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_hangs_if_calls_are_in_flight_and_nothing_moves_for_ten_seconds() {
    use Motion::{Hangs, Moves, Unclear};
    check(
        "it hangs, and wakes up",
        &[
            (0, 5.0, true, true, 3, 0, Unclear),
            (1, 6.0, true, true, 4, 0, Moves),
            (2, 6.0, true, true, 4, 0, Unclear),
            (10, 6.0, true, true, 4, 0, Unclear),
            (11, 6.0, true, true, 4, 0, Hangs),
            (60, 6.0, true, true, 4, 0, Hangs),
            (61, 7.0, true, true, 4, 0, Moves),
            (62, 7.0, true, true, 4, 0, Unclear),
        ],
    );
    check(
        "calls of other nodes hang there",
        &[
            (0, 5.0, true, false, 0, 0, Unclear),
            (10, 5.0, true, false, 0, 0, Unclear),
            (20, 5.0, true, false, 0, 0, Hangs),
        ],
    );
    check("it is idle", &[(0, 5.0, false, false, 0, 0, Unclear), (60, 5.0, false, false, 0, 0, Unclear)]);
    check(
        "a call has only begun",
        &[
            (0, 5.0, false, false, 0, 0, Unclear),
            (60, 5.0, false, true, 0, 0, Unclear),
            (69, 5.0, false, true, 0, 0, Unclear),
            (70, 5.0, false, true, 0, 0, Hangs),
        ],
    );
    check(
        "its counters stand still and a stream does not",
        &[
            (0, 5.0, true, false, 0, 0, Unclear),
            (9, 5.0, true, false, 1, 0, Moves),
            (18, 5.0, true, false, 2, 0, Moves),
            (27, 5.0, true, false, 3, 0, Moves),
        ],
    );
    check(
        "a long prefill moves the count of steps",
        &[
            (0, 5.0, true, true, 0, 0, Unclear),
            (9, 6.0, true, true, 0, 0, Moves),
            (18, 7.0, true, true, 0, 0, Moves),
            (27, 8.0, true, true, 0, 0, Moves),
        ],
    );
    check(
        "calls that need no engine are answered all the time",
        &[
            (0, 5.0, false, true, 0, 0, Unclear),
            (9, 5.0, false, true, 0, 1, Unclear),
            (18, 5.0, false, true, 0, 2, Unclear),
            (27, 5.0, false, true, 0, 3, Unclear),
        ],
    );
    check(
        "they are, and the engine says that it has others",
        &[(0, 5.0, true, true, 0, 0, Unclear), (9, 5.0, true, true, 0, 1, Unclear), (20, 5.0, true, true, 0, 2, Hangs)],
    );
    check(
        "a process that was started anew counts from zero",
        &[(0, 5.0, true, true, 0, 0, Unclear), (11, 0.0, true, true, 0, 0, Moves)],
    );
}
