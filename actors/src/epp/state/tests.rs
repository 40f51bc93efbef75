use std::time::Duration;

use super::*;

/// Each line: milliseconds, what happens then, what calls find after it, and the status.
type Line = (u64, &'static str, Admission, &'static str);

async fn check(story: &[Line]) {
    let start = Instant::now();
    let mut state = ReplicaState::new();
    for (millis, event, admission, status) in story {
        let now = start + Duration::from_millis(*millis);
        match *event {
            "probe is good" => state.comes_up(false),
            "new process" => state.comes_up(true),
            "probe fails" => state.goes_down("slow".to_owned()),
            "hangs" => state.hangs(now),
            "moves" => state.moves(),
            "connects" => state.connects(now),
            "busy" => state.is_busy(now),
            "no connection" => state.fails_to_connect(false, now),
            "no connection for the trial" => state.fails_to_connect(true, now),
            "outlier" => state.eject("calls fail".to_owned(), now),
            "trial starts" => state.start_trial(),
            "trial shows nothing" => state.end_trial(),
            "trial passes" => state.pass_trial(),
            "trial fails" => state.fail_trial(now),
            other => assert_eq!(other, "", "no such event"),
        }
        assert_eq!((state.admission(now), state.status().name()), (*admission, *status), "{millis} ms {event}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_decides_whether_a_replica_is_down() {
    use Admission::{Free, Out};
    check(&[
        (0, "", Out, "down"),
        (1, "probe is good", Free, "ready"),
        (2, "probe fails", Out, "down"),
        (99_000, "", Out, "down"),
        (99_001, "probe is good", Free, "ready"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn three_failed_connections_in_a_row_end_with_a_trial_that_connects() {
    use Admission::{Free, Out, Trial};
    check(&[
        (0, "probe is good", Free, "ready"),
        (1, "no connection", Free, "ready"),
        (2, "no connection", Free, "ready"),
        (3, "connects", Free, "ready"),
        (4, "no connection", Free, "ready"),
        (5, "no connection", Free, "ready"),
        (10, "no connection", Out, "unreachable"),
        (500, "no connection", Out, "unreachable"),
        (1009, "probe is good", Out, "unreachable"),
        (1010, "", Trial, "unreachable"),
        (1020, "trial starts", Out, "unreachable"),
        (1030, "trial shows nothing", Trial, "unreachable"),
        (1040, "trial starts", Out, "unreachable"),
        (1050, "no connection for the trial", Out, "unreachable"),
        (3049, "", Out, "unreachable"),
        (3050, "", Trial, "unreachable"),
        (3060, "connects", Free, "ready"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_replica_comes_after_others_for_a_second_and_is_not_ill() {
    use Admission::{Busy, Free};
    check(&[
        (0, "probe is good", Free, "ready"),
        (1, "busy", Busy, "ready"),
        (500, "connects", Busy, "ready"),
        (1000, "", Busy, "ready"),
        (1001, "", Free, "ready"),
        (1002, "connects", Free, "ready"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_outlier_is_ejected_until_a_trial_is_answered() {
    use Admission::{Ejected, Free, Out, Trial};
    check(&[
        (0, "probe is good", Free, "ready"),
        (1, "outlier", Ejected, "ejected"),
        (500, "outlier", Ejected, "ejected"),
        (600, "probe is good", Ejected, "ejected"),
        (1001, "", Trial, "ejected"),
        (1002, "trial starts", Ejected, "ejected"),
        (1003, "trial fails", Ejected, "ejected"),
        (3002, "", Ejected, "ejected"),
        (3003, "", Trial, "ejected"),
        (3004, "probe fails", Out, "down"),
        (3005, "probe is good", Trial, "ejected"),
        (3006, "trial starts", Ejected, "ejected"),
        (3007, "trial passes", Free, "ready"),
        (3008, "outlier", Ejected, "ejected"),
        (3009, "new process", Free, "ready"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_hung_engine_gets_nothing_until_it_moves_or_has_been_without_calls_for_half_a_minute() {
    use Admission::{Free, Out, Trial};
    check(&[
        (0, "probe is good", Free, "ready"),
        (1, "hangs", Out, "hung"),
        (2000, "hangs", Out, "hung"),
        (2500, "probe is good", Out, "hung"),
        (31_999, "", Out, "hung"),
        (32_000, "", Trial, "hung"),
        (32_001, "trial starts", Out, "hung"),
        (32_100, "hangs", Out, "hung"),
        (62_000, "trial shows nothing", Out, "hung"),
        (62_100, "", Trial, "hung"),
        (62_200, "moves", Free, "ready"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn pauses_last_for_thirty_seconds_at_most() {
    let mut now = Instant::now();
    let mut pause = HalfOpen::new(now);
    for seconds in [1, 2, 4, 8, 16, 30, 30, 30] {
        assert!(!pause.has_trial(now + Duration::from_millis(seconds * 1000 - 1)));
        now += Duration::from_secs(seconds);
        assert!(pause.has_trial(now));
        pause.start_trial();
        assert!(!pause.has_trial(now));
        pause.fail_trial(now);
    }
}
