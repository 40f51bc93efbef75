use super::*;

/// Each line: milliseconds, what happens then, what calls find after it.
#[tokio::test(start_paused = true)]
async fn a_breaker_opens_after_three_failures_and_closes_after_a_good_trial() {
    let start = Instant::now();
    let mut breaker = Breaker::default();
    let story = [
        (0, "fail", Admission::Free),
        (1, "fail", Admission::Free),
        // A success in between starts the count again.
        (2, "succeed", Admission::Free),
        (3, "fail", Admission::Free),
        (4, "fail", Admission::Free),
        (10, "fail", Admission::Refused),
        // Calls that were under way when it opened do not prolong it.
        (500, "fail", Admission::Refused),
        (1009, "", Admission::Refused),
        (1010, "", Admission::Trial),
        (1020, "try", Admission::Refused),
        (1030, "abandon", Admission::Trial),
        (1040, "try", Admission::Refused),
        (1050, "fail", Admission::Refused),
        (3049, "", Admission::Refused),
        (3050, "", Admission::Trial),
        (3050, "try", Admission::Refused),
        (3060, "succeed", Admission::Free),
    ];
    for (millis, event, after) in story {
        let now = start + Duration::from_millis(millis);
        match event {
            "fail" => breaker.failed(now),
            "succeed" => breaker.succeeded(),
            "try" => breaker.start_trial(),
            "abandon" => breaker.abandon_trial(),
            _ => {}
        }
        assert_eq!(breaker.admission(now), after, "{millis} ms {event}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_stays_open_for_thirty_seconds_at_most() {
    let mut now = Instant::now();
    let mut breaker = Breaker::default();
    for _ in 0..2 {
        breaker.failed(now);
    }
    for pause in [1, 2, 4, 8, 16, 30, 30, 30] {
        breaker.failed(now);
        assert_eq!(breaker.admission(now + Duration::from_millis(pause * 1000 - 1)), Admission::Refused);
        now += Duration::from_secs(pause);
        assert_eq!(breaker.admission(now), Admission::Trial);
        breaker.start_trial();
    }
}
